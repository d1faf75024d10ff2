"""Operation: health, models, metrics."""

from __future__ import annotations

from fastapi import APIRouter
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from app.http.admission import Admission
from app.service import Service
from app.wire.answers import CheckpointInfo, HealthAnswer, ModelInfo, ModelsAnswer
from app.wire.documentation import LIVE, METRICS, MODELS, READY
from models.base import Checkpoint, ServedModel, Task

LIMITS = (
    "max_body_bytes",
    "max_pixels",
    "max_side",
    "max_items",
    "max_pairs",
    "max_text_chars",
    "request_timeout_seconds",
)
router = APIRouter(tags=["operation"])


@router.get("/health/live", responses=LIVE)
async def live(request: Request) -> Response:
    """Whether the process should go on; 503: restart it."""
    if reason := service_of(request).sickness():
        return _health({"status": "failing", "reason": reason})
    return _health({"status": "live"})


@router.get("/health/ready", responses=READY)
async def ready(request: Request) -> Response:
    """Whether requests are accepted."""
    admission: Admission = request.app.state.admission
    if refusal := admission.refusal():
        return _health({"status": "not ready", "reason": refusal.detail})
    return _health({"status": "ready"})


@router.get("/metrics", response_class=Response, responses=METRICS)
async def metrics(request: Request) -> Response:
    """Prometheus metrics."""
    text = generate_latest(service_of(request).metrics.registry)
    return Response(text, headers={"Content-Type": CONTENT_TYPE_LATEST})


@router.get("/models", responses=MODELS)
async def models(request: Request) -> Response:
    """The served models, the profile's first one first, and the limits of a request."""
    return JSONResponse(models_answer(service_of(request)))


def models_answer(service: Service) -> ModelsAnswer:
    return {
        "models": [_model(model) for model in service.models.values()],
        "limits": {name: getattr(service.settings, name) for name in LIMITS},
    }


def service_of(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


def _health(body: HealthAnswer) -> Response:
    return JSONResponse(body, 503 if "reason" in body else 200)


def _model(model: ServedModel) -> ModelInfo:
    tasks: dict[str, CheckpointInfo] = {task: _checkpoint(task, one) for task, one in model.checkpoints.items()}
    return {
        "name": model.name,
        "family": model.family,
        "note": model.note,
        "template": model.template,
        "tasks": tasks,
    }


def _checkpoint(task: Task, checkpoint: Checkpoint) -> CheckpointInfo:
    info: CheckpointInfo = {
        "checkpoint": checkpoint.name,
        "revision": checkpoint.revision,
        "device": checkpoint.device,
        "dtype": checkpoint.dtype,
        "image_size": checkpoint.preprocessing.image_size,
    }
    if checkpoint.kernels:
        info["kernels"] = dict(checkpoint.kernels)
    capabilities = checkpoint.heads.capabilities
    if task is Task.VQA:
        info |= {"history": capabilities.history, "template": capabilities.template}
        info |= {"images": capabilities.num_images, "answers": len(capabilities.answers)}
    if task is Task.MATCH:
        info |= {"heads": list(capabilities.heads), "temperature": checkpoint.temperature}
        info |= {"logit_bias": capabilities.logit_bias}
    if task is Task.EMBED:
        info |= {"dimensions": capabilities.dimensions, "pooling": list(capabilities.pooling)}
        info |= {"spaces": list(capabilities.spaces)}
    if task in (Task.MATCH, Task.EMBED):
        info |= {"video": capabilities.video}
    if task is Task.LOCALIZE and (localizing := capabilities.localizing) is not None:
        info |= {"layer": localizing.default, "layers": localizing.num_layers}
    return info
