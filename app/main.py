"""The composition root: settings -> an application that loads, serves and drains."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from copy import deepcopy
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from app import __version__
from app.decoding.pool import decoder_processes
from app.errors import UnknownRouteError
from app.http.admission import Admission
from app.http.gate import Gate
from app.http.paths import nearest, route_path
from app.http.tracing import Tracing
from app.routes import (
    capfilt,
    caption,
    classify,
    docs,
    embed,
    home,
    localize,
    match,
    openai,
    ops,
    page,
    regions,
    rerank,
    vqa,
)
from app.service import MakeDecoder, Phase, Service
from app.settings import Settings
from app.start.variables import check_variables
from app.wire.served import as_served
from models.base import ServedModel

log = logging.getLogger("blip")
Load = Callable[[Settings], list[ServedModel]]
GETS = (ops, openai, docs, home)
ENDPOINTS = {
    endpoint.path: endpoint
    for endpoint in (
        *(routes.ENDPOINT for routes in (caption, vqa, match, embed, classify, capfilt, localize)),
        *regions.ENDPOINTS,
        *rerank.ENDPOINTS,
        *openai.ENDPOINTS,
    )
}


def load_models(settings: Settings) -> list[ServedModel]:
    """From the catalog. Imports torch: not before it is needed."""
    _let_threads_wait_briefly()
    from models.loader import load

    models = load(
        settings.profile,
        catalog=settings.catalog,
        device=settings.device,
        dtype=settings.dtype,
        threads=settings.threads,
        compile_batches=settings.max_batch_size if settings.compile else 0,
        kernels=settings.kernels,
        int8_head=settings.int8_head,
    )
    gc.collect()
    gc.freeze()  # what stays for ever need not be looked at again: a full collection would stop everything for 0.2 s
    return models


def _let_threads_wait_briefly() -> None:
    """How often the threads of GNU OpenMP, that of torch's builds for Linux, look for their next part of a product
    before they sleep, unless the operator said it. Looking for long, as they do by default, they take the core from a
    neighbour, a decoder or the event loop, and products took up to ten times as long; sleeping at once, the small
    products of a decoder's step took twice as long."""
    if not {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & os.environ.keys():
        os.environ["GOMP_SPINCOUNT"] = "2000"


def fetch_weights(settings: Settings) -> dict[str, Path]:
    """The folder of each checkpoint of the profile that the hub has, downloaded if it is not here yet; by its name.
    Raises RuntimeError with one line for the operator."""
    from models.loader import fetch_profile

    folders = fetch_profile(settings.profile, catalog=settings.catalog)
    return {f"{entry.checkpoint}@{entry.revision}": folder for entry, folder in folders.items()}


def create_app(
    settings: Settings | None = None, load: Load = load_models, make_decoder: MakeDecoder = decoder_processes
) -> FastAPI:
    """`uvicorn app.main:create_app --factory` serves it; `blip-serve` also drains."""
    if settings is None:
        check_variables(os.environ)
    service = Service(settings or Settings(), make_decoder)
    admission = Admission(service)
    tracing = Tracing() if service.settings.tracing else None

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await service.start()
        loading = asyncio.create_task(_load(service, load))
        try:
            yield
        finally:
            loading.cancel()
            await service.close()
            if tracing is not None:
                tracing.close(service.settings.farewell_seconds / 3)

    app = FastAPI(
        title="blip-serve",
        version=__version__,
        summary="Captions, visual question answering, image-text matching and embeddings with BLIP",
        lifespan=lifespan,
        redirect_slashes=False,
        docs_url=None,  # ours needs no network
        redoc_url=None,
        exception_handlers={HTTPException: _to_the_gate},
    )
    app.state.service, app.state.admission = service, admission
    app.add_middleware(Gate, service=service, admission=admission, endpoints=ENDPOINTS, tracing=tracing)
    for endpoint in ENDPOINTS.values():
        app.add_api_route(endpoint.path, endpoint.function, methods=["POST"], **endpoint.documentation)
    gets = [routes.router for routes in (*GETS, *([page] if service.settings.ui else []))]
    for router in gets:
        app.include_router(router)
    app.openapi = _describing(app.openapi, service)  # type: ignore[method-assign]
    documents = [route for router in gets for route in router.routes if isinstance(route, Route)]
    app.state.paths = {"/openapi.json", *ENDPOINTS, *(one.path for one in documents if not one.param_convertors)}
    return app


def _describing(build: Callable[[], dict[str, Any]], service: Service) -> Callable[[], dict[str, Any]]:
    """/openapi.json, made when it is first asked for: once while there are no models, and once with them."""
    made: dict[bool, dict[str, Any]] = {}

    def describe() -> dict[str, Any]:
        loaded = bool(service.models)
        if loaded not in made:
            names = {
                path: [model.name for model in service.models.values() if {*endpoint.tasks} & {*model.checkpoints}]
                for path, endpoint in ENDPOINTS.items()
            }
            made[loaded] = as_served(deepcopy(build()), service.settings, names, ops.models_answer(service))
        return made[loaded]

    return describe


async def _load(service: Service, load: Load) -> None:
    """Load in the background, so that probes are answered meanwhile. Never raises: see `Service.failure`."""
    try:
        models = await _in_daemon_thread(lambda: load(service.settings))
    except Exception as error:
        service.failure, service.phase = error, Phase.FAILED
        return
    service.serve(models)
    for model in models:
        note = f" ({model.note})" if model.note else ""
        log.info("serving %s%s: %s", model.name, note, ", ".join(model.checkpoints))


async def _in_daemon_thread(function: Callable[[], list[ServedModel]]) -> list[ServedModel]:
    """Not in a pool: the end of the process would wait for it."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[list[ServedModel]] = loop.create_future()

    def settle(result: list[ServedModel] | Exception) -> None:
        if future.cancelled():
            return
        if isinstance(result, Exception):
            future.set_exception(result)
        else:
            future.set_result(result)

    def run() -> None:
        result: list[ServedModel] | Exception
        try:
            result = function()
        except Exception as error:
            result = error
        with suppress(RuntimeError):  # the event loop has ended meanwhile
            loop.call_soon_threadsafe(settle, result)

    threading.Thread(target=run, name="load", daemon=True).start()
    return await future


async def _to_the_gate(request: Request, error: Exception) -> Response:
    """What the router refuses, told so that it helps."""
    if not isinstance(error, HTTPException):
        raise error
    if error.status_code == 404:
        near = nearest(route_path(request.scope), request.app.state.paths)
        hint = f"the nearest one is {request.scope['root_path']}{near}" if near else "/docs lists all"
        raise UnknownRouteError(f"No route has this path; {hint}")
    if error.status_code == 405 and (error.headers or {}).get("Allow") == "GET":
        raise HTTPException(405, headers={"Allow": "GET, HEAD"})
    raise error
