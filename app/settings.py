"""The service's settings: the one reader of BLIP_* environment variables."""

from __future__ import annotations

import math
import os
import re
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, SecretStr, ValidationInfo, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

LEAST_TIMEOUT_SECONDS = 0.001  # that a client may ask for: less is a mistake, not a deadline
HOST = r"[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*|\[[0-9a-f:.]+\]"
PORT = r"(:[1-9][0-9]{0,4})?"
DEVICES = r"auto|cpu|mps|cuda(:\d+)?"


def default_threads(cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """The CPUs that the cgroup's quota allows (v2, then v1), at most those that this process may run on."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        if (cgroup / "cpu.max").exists():
            quota, period = (cgroup / "cpu.max").read_text().split()
        else:
            quota, period = ((cgroup / "cpu" / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        return max(1, min(usable, math.ceil(int(quota) / int(period)))) if int(quota) > 0 else usable
    except (OSError, ValueError):  # no cgroup, or "max": no quota
        return usable


def keys_in(path: Path) -> tuple[str, ...]:
    """One a line. Raises ValueError, without a word of what the file holds."""
    try:
        keys = tuple(line.strip() for line in path.read_text().splitlines() if line.strip())
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"cannot read {path}: {getattr(error, 'strerror', None) or 'not text'}") from error
    if not keys:
        raise ValueError(f"{path} holds no key")  # and must not open the service to all
    return keys


def _with_keys(path: Path) -> Path:
    keys_in(path)
    return path


class Settings(BaseSettings):
    """Each field is read from BLIP_<NAME>, or from a flag (app/start/commandline.py). Units are in the names."""

    model_config = SettingsConfigDict(env_prefix="BLIP_", env_ignore_empty=True, frozen=True, extra="forbid")

    host: str = Field(
        "127.0.0.1", min_length=1, description="address to listen on; 0.0.0.0: all of IPv4; :: of IPv6 too"
    )
    port: int = Field(8000, ge=0, le=65535, description="port to listen on; 0: any free one")
    profile: str = Field("demo", description="which profile of the catalog to serve")
    catalog: Path | None = Field(None, description="a TOML file with further profiles and served models")
    device: str = Field("auto", description="auto, cpu, cuda, cuda:N or mps")
    dtype: Literal["auto", "fp32", "bf16", "fp16", "int8"] = Field(
        "auto", description="auto, fp32, bf16, fp16 or int8 (CPUs)"
    )
    int8_head: bool = Field(False, description="project to the vocabulary in int8 (CPUs): faster steps, less exact")
    compile: bool = Field(False, description="compile the towers before the service is ready; needs a C++ compiler")
    kernels: Literal["auto", "torch", "onednn", "fbgemm"] = Field(
        "auto",
        description="of matrix products on CPUs: auto, by a trial; or where it can be torch, onednn, fbgemm",
    )
    threads: int = Field(default_factory=default_threads, ge=1, description="CPU threads")
    max_batch_size: int = Field(16, ge=1, description="work items per batch")
    max_queue_items: int = Field(512, ge=1, description="waiting work items; beyond: 429")
    request_timeout_seconds: float = Field(
        60, gt=0, allow_inf_nan=False, description="seconds for a request; beyond: 504"
    )
    drain_seconds: float = Field(25, gt=0, allow_inf_nan=False, description="seconds from SIGTERM to the exit, at most")
    stuck_seconds: float = Field(
        120, gt=0, allow_inf_nan=False, description="seconds in one device call after which liveness fails"
    )
    body_timeout_seconds: float = Field(
        30, gt=0, allow_inf_nan=False, description="seconds without progress of a body (408) or of an answer's reader"
    )
    body_max_seconds: float = Field(
        300, gt=0, allow_inf_nan=False, description="seconds for a body that makes progress; beyond: 408"
    )
    max_body_bytes: int = Field(20 * 2**20, ge=1, description="bytes of a body; beyond: 413")
    max_pixels: int = Field(64_000_000, ge=1, description="pixels of an image; beyond: 422")
    max_side: int = Field(16_384, ge=1, description="pixels of an image's longer side; beyond: 422")
    fast_decode: bool = Field(
        False, description="decode large JPEGs at 1/2, 1/4 or 1/8 size: faster, but answers differ a little"
    )
    max_items: int = Field(64, ge=1, description="images, texts or questions of a request; beyond: 422")
    max_pairs: int = Field(1024, ge=1, description="image-text pairs, scored candidates; beyond: 422")
    max_text_chars: int = Field(10_000, ge=1, description="characters of a text; beyond: 422")
    max_inflight_bytes: int = Field(512 * 2**20, ge=1, description="bytes of bodies and pixels at once; beyond: 429")
    feature_cache_bytes: int = Field(
        256 * 2**20, ge=0, description="bytes of image features, and of what is made of them, that are kept"
    )
    generation_cache_bytes: int = Field(2 * 2**30, ge=1, description="bytes of KV caches; beyond: rows wait")
    api_keys_file: Annotated[Path, AfterValidator(_with_keys)] | None = Field(
        None, description="a file with API keys, one a line; unset, and no BLIP_API_KEYS: no key is needed"
    )
    api_keys: Annotated[tuple[SecretStr, ...], NoDecode] = Field(
        (), validate_default=True, description="API keys, comma separated, beside those of the file"
    )
    cors_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="comma separated origins (https://page.example) whose pages may ask, or *; unset: none"
    )
    image_urls: Literal["off", "allowed", "public"] = Field(
        "off", description="images by URL: off; allowed: from the hosts named; public: from any public address too"
    )
    image_url_hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="comma separated hosts to fetch images from: name, *.name, or with another port name:port"
    )
    image_url_private_hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="those of them whose addresses may be private: name or name:port"
    )
    image_url_timeout_seconds: float = Field(
        10, gt=0, allow_inf_nan=False, description="seconds to fetch an image; beyond: 504"
    )
    image_url_proxy: str | None = Field(
        None, description="http(s)://host:port of the proxy to fetch images by; it looks the hosts up"
    )
    root_path: str = Field("", description="prefix under which a proxy passes requests on, if it does not strip it")
    ui: bool = Field(True, description="serve the page at /")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="debug, info, warning or error")
    log_format: Literal["text", "json"] = Field("text", description="text or json")
    tracing: bool = Field(False, description="send OpenTelemetry spans; needs the extra otel, and OTEL_* variables")

    @property
    def farewell_seconds(self) -> float:
        """The end of the drain time, left for answering what could not complete and for ending the threads."""
        return min(3.0, self.drain_seconds / 4)

    @field_validator("port", mode="before")
    @classmethod
    def _not_a_link(cls, value: object) -> object:
        if isinstance(value, str) and "://" in value:
            raise ValueError("a link to a Service named blip, not a port: set enableServiceLinks: false in the pod")
        return value

    @field_validator("device", mode="before")
    @classmethod
    def _known_device(cls, value: object) -> object:
        if isinstance(value, str) and not re.fullmatch(DEVICES, value):
            raise ValueError("it must be auto, cpu, cuda, cuda:N or mps")
        return value

    @field_validator("api_keys", mode="before")
    @classmethod
    def _split(cls, value: object, info: ValidationInfo) -> object:
        """With the keys of the file, which was validated before."""
        path = info.data.get("api_keys_file")
        own = tuple(key.strip() for key in value.split(",") if key.strip()) if isinstance(value, str) else value
        return (*own, *keys_in(path)) if path and isinstance(own, tuple) else own

    @field_validator("cors_origins", "image_url_hosts", "image_url_private_hosts", mode="before")
    @classmethod
    def _split_at_commas(cls, value: object) -> object:
        return tuple(one.strip() for one in value.split(",") if one.strip()) if isinstance(value, str) else value

    @field_validator("cors_origins")
    @classmethod
    def _as_browsers_write_them(cls, origins: tuple[str, ...]) -> tuple[str, ...]:
        """They are compared whole."""
        for origin in origins:
            if not re.fullmatch(r"\*|null|[A-Za-z][A-Za-z0-9+.-]*://[^/?#@\s*]+", origin):
                raise ValueError("each must be *, or scheme://host[:port] without a path")
        return tuple(origin.lower() for origin in origins)

    @field_validator("image_url_hosts", "image_url_private_hosts")
    @classmethod
    def _hosts(cls, hosts: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        wildcard = r"(\*\.)?" if info.field_name == "image_url_hosts" else ""
        hosts = tuple(host.lower() for host in hosts)
        if not all(re.fullmatch(f"{wildcard}({HOST}){PORT}", host) for host in hosts):
            raise ValueError(f"each must be name{', *.name' if wildcard else ''} or name:port, others in Punycode")
        return hosts

    @field_validator("image_url_proxy")
    @classmethod
    def _without_a_password(cls, proxy: str | None) -> str | None:
        if proxy is not None and not re.fullmatch(f"https?://({HOST}){PORT}/?", proxy.lower()):
            raise ValueError("it must be http://host:port or https://host:port, without a user or a password")
        return proxy

    @field_validator("root_path")
    @classmethod
    def _slash_before_it(cls, path: str) -> str:
        return f"/{stripped}" if (stripped := path.strip().strip("/")) else ""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.stuck_seconds <= self.request_timeout_seconds:
            raise ValueError("BLIP_STUCK_SECONDS must be above BLIP_REQUEST_TIMEOUT_SECONDS")
        if self.image_urls == "allowed" and not (self.image_url_hosts or self.image_url_private_hosts):
            raise ValueError("BLIP_IMAGE_URLS=allowed needs hosts: BLIP_IMAGE_URL_HOSTS, BLIP_IMAGE_URL_PRIVATE_HOSTS")
        if self.image_urls == "public" and self.image_url_proxy is not None:
            raise ValueError("BLIP_IMAGE_URL_PROXY looks the hosts up, unchecked: it needs BLIP_IMAGE_URLS=allowed")
        if self.max_inflight_bytes < self.max_body_bytes:
            raise ValueError("BLIP_MAX_INFLIGHT_BYTES must not be below BLIP_MAX_BODY_BYTES")
        return self


def variable(name: str) -> str:
    return f"BLIP_{name.upper()}"
