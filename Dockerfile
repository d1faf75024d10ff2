# Two targets: cpu (the default), and cuda, whose torch brings the CUDA libraries with it.
# docker build --target cpu --build-arg TORCH_INDEX_URL=<PyTorch's CPU index> --tag blip-serve:cpu .
# A tag can be moved: PYTHON_IMAGE takes a digest too, python:3.11-slim-bookworm@sha256:... (docs/operations.md).
ARG PYTHON_IMAGE=python:3.11-slim-bookworm

# All but torch, each file with a hash that was known before: a change to the code does not install them again.
FROM ${PYTHON_IMAGE} AS dependencies
WORKDIR /build
COPY requirements.lock ./
RUN python -m venv /opt/blip-serve \
    && /opt/blip-serve/bin/pip install --no-cache-dir --only-binary :all: --require-hashes --requirement requirements.lock

# torch has another file in each index. On Linux, PyPI's is the build for CUDA; PyTorch's own CPU index has one that is
# several GB smaller. What else torch needs is there already, but for the CUDA libraries.
FROM dependencies AS torch
COPY constraints.txt ./
RUN grep '^torch==' constraints.txt > torch.txt

FROM torch AS dependencies-cpu
ARG TORCH_INDEX_URL=""
RUN /opt/blip-serve/bin/pip install --no-cache-dir --only-binary :all: ${TORCH_INDEX_URL:+--index-url "${TORCH_INDEX_URL}"} --requirement torch.txt \
    && /opt/blip-serve/bin/pip check

FROM torch AS dependencies-cuda
RUN /opt/blip-serve/bin/pip install --no-cache-dir --only-binary :all: --requirement torch.txt \
    && /opt/blip-serve/bin/pip check

FROM ${PYTHON_IMAGE} AS service
ARG VERSION=0.1.0
ARG REVISION=""
LABEL org.opencontainers.image.title="blip-serve" \
      org.opencontainers.image.description="BLIP and BLIP-2 over HTTP: captions, visual question answering, image-text matching, embeddings" \
      org.opencontainers.image.licenses="BSD-3-Clause" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
# By number, so that Kubernetes can tell that it is not root. It owns only the cache of weights.
RUN groupadd --gid 10001 blip && useradd --uid 10001 --gid blip --no-create-home --home-dir /tmp --shell /usr/sbin/nologin blip \
    && install --directory --owner blip --group blip /cache
ENV PATH=/opt/blip-serve/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    HF_HOME=/cache \
    HF_HUB_DISABLE_PROGRESS_BARS=1 \
    BLIP_HOST=0.0.0.0 \
    BLIP_LOG_FORMAT=json
WORKDIR /srv/blip-serve
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=5s --timeout=5s --start-period=15m \
    CMD ["python", "-c", "import os, urllib.request; urllib.request.urlopen('http://127.0.0.1:' + os.environ.get('BLIP_PORT', '8000') + '/health/ready', timeout=4)"]
ENTRYPOINT ["python", "-m", "app"]

# The code changes most often: it is the last layer of each target.
FROM ${PYTHON_IMAGE} AS code
WORKDIR /srv/blip-serve
COPY LICENSE pyproject.toml ./
COPY models models
COPY blip_client blip_client
COPY app app
RUN ["python", "-m", "compileall", "-q", "app", "blip_client", "models"]

FROM service AS cuda
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
COPY --from=dependencies-cuda /opt/blip-serve /opt/blip-serve
COPY --from=code /srv/blip-serve ./
USER 10001:10001

FROM service AS cpu
COPY --from=dependencies-cpu /opt/blip-serve /opt/blip-serve
COPY --from=code /srv/blip-serve ./
USER 10001:10001
