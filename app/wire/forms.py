"""The three forms of a request body, read into the same thing: images and validated fields."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Generic, TypeVar
from urllib.parse import parse_qsl

import pybase64  # thirty times as fast as the standard library's, which took most of a request's time
from pydantic import BaseModel, ValidationError
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import Field, File, FormParser, parse_options_header

from app.errors import InvalidInputError, MalformedError, UnsupportedMediaError
from app.settings import Settings
from app.wire.schemas import Context, Fields, explain
from app.wire.structure import has_too_much_structure

TOLD_NAMES = 5  # of unknown fields
MAX_PARTS = 8192  # of a multipart body; no request within the limits has more
F = TypeVar("F", bound=Fields)
M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Upload:
    data: bytes
    digest: bytes  # SHA-256


@dataclass(frozen=True, slots=True)
class Form(Generic[F]):
    images: tuple[Upload, ...]
    fields: F
    num_chars: int  # of all fields, approximately


def read_form(content_type: str, query: bytes, body: bytes, model: type[F], settings: Settings) -> Form[F]:
    """Raises MalformedError, UnsupportedMediaError, InvalidInputError."""
    media = content_type.partition(";")[0].strip().lower()
    is_json, is_image = media == "application/json", media.startswith("image/")
    if query and not is_image:
        raise InvalidInputError("Query parameters go with a raw image body only.")
    most_images = settings.max_items if model.num_images[1] is None else model.num_images[1]
    if is_json:
        model, values = model.adapted(read_object(body))
        images = _take_images(values, most_images)
    elif media == "multipart/form-data":
        images, values = _read_multipart(content_type, body)
    elif is_image:
        images, values = [body], _gather(parse_qsl(_text(query), keep_blank_values=True, errors="surrogateescape"))
    else:
        raise UnsupportedMediaError("The body must be multipart/form-data, application/json or an image (image/*).")
    _check_images(images, model.num_images[0], most_images)
    _check_names(values.keys(), model)
    fields = validated(model, values, Context(settings, len(images)), strict=is_json)
    return Form(tuple(map(upload, images)), fields, _num_chars(values))


def upload(image: bytes) -> Upload:
    return Upload(image, sha256(image).digest())


def validated(model: type[M], values: Mapping[str, Any], context: Context, *, strict: bool = False) -> M:
    """Raises InvalidInputError."""
    try:
        return model.model_validate(values, strict=strict, context=context)
    except ValidationError as error:
        raise InvalidInputError(explain(error.errors(include_url=False, include_input=False))) from None


def _check_images(images: list[bytes], fewest: int, most: int) -> None:
    if len(images) < fewest:
        raise InvalidInputError("image: is missing")
    _check_number(len(images), most)
    if not all(images):
        raise InvalidInputError("image: is empty")


def _check_number(number: int, most: int) -> None:
    if number > most:
        raise InvalidInputError(f"image: {number} given, at most {most} allowed")


def _check_names(names: Set[str], model: type[Fields]) -> None:
    """Before the validation, which would make an error for each."""
    if unknown := sorted(names - model.model_fields.keys()):
        told = ", ".join(repr(name[:64]) for name in unknown[:TOLD_NAMES])
        more = f" and {len(unknown) - TOLD_NAMES} more" if len(unknown) > TOLD_NAMES else ""
        allowed = ", ".join(("image", *model.model_fields))
        raise InvalidInputError(f"unknown field {told}{more}; there are: {allowed}")


def _num_chars(values: Mapping[str, Any]) -> int:
    """Of the texts, about: how long it may take to tokenise them."""
    lists = [value if isinstance(value, list) else [value] for value in values.values()]
    return sum(len(str(one)) for values in lists for one in values)


def _gather(pairs: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """A field that is repeated becomes a list."""
    values: dict[str, Any] = {}
    for name, value in pairs:
        values.setdefault(name, []).append(value)
    return {name: value[0] if len(value) == 1 else value for name, value in values.items()}


def read_object(body: bytes) -> dict[str, Any]:
    """A JSON object. Raises MalformedError, InvalidInputError."""
    if has_too_much_structure(body):
        raise MalformedError("The body is not parsed: it has more values than any request may have.")
    try:
        values = json.loads(body.decode("utf-8-sig"), object_pairs_hook=_distinct)
    except (ValueError, RecursionError):
        raise MalformedError("The body is not valid JSON (in UTF-8).") from None
    if not isinstance(values, dict):
        raise InvalidInputError("The body must be a JSON object.")
    return values


def _take_images(values: dict[str, Any], most_images: int) -> list[bytes]:
    """Out of the values of a JSON body."""
    image, images = values.pop("image", None), values.pop("images", None)
    if image is not None and images is not None:
        raise InvalidInputError("image, images: only one of the two may be given")
    encoded = images if images is not None else [] if image is None else [image]
    if not isinstance(encoded, list) or not all(isinstance(one, str) for one in encoded):
        raise InvalidInputError("image must be a string, images a list of strings")
    _check_number(len(encoded), most_images)
    return [read_image(one) for one in encoded]


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Refuses repeated keys: json.loads would silently keep the last value."""
    if len(values := dict(pairs)) < len(pairs):
        [(name, _)] = Counter(name for name, _ in pairs).most_common(1)
        raise InvalidInputError(f"{name[:64]!r}: is given more than once")
    return values


def read_image(text: str) -> bytes:
    """Base64, in lines or not, or a data URI of an image. Raises InvalidInputError, MalformedError."""
    if text[:8].lower().startswith(("http://", "https://")):
        raise InvalidInputError("image: images by URL are not enabled")
    if text[:5].lower() == "data:":
        kind, comma, text = text[5:].partition(",")
        if not comma or not kind.lower().startswith("image/") or not kind.lower().endswith(";base64"):
            raise MalformedError("image: a data URI must begin with data:image/...;base64,")
    if "\n" in text or "\r" in text:
        text = text.replace("\r", "").replace("\n", "")
    try:
        return pybase64.b64decode(text, validate=True)
    except ValueError:
        raise MalformedError("image: is not valid base64") from None


def _read_multipart(content_type: str, body: bytes) -> tuple[list[bytes], dict[str, Any]]:
    images: list[bytes] = []
    pairs: list[tuple[str, str]] = []
    ends: list[None] = []

    def count() -> None:
        if len(images) + len(pairs) >= MAX_PARTS:
            raise InvalidInputError(f"More than {MAX_PARTS} fields.")

    def on_field(field: Field) -> None:
        count()
        name, value = _text(field.field_name), _text(field.value)
        if name == "image":
            raise InvalidInputError("image: must be sent as a file (with a filename)")
        pairs.append((name, value))

    def on_file(file: File) -> None:
        count()
        if file.field_name != b"image":
            raise InvalidInputError(f"{_text(file.field_name)[:64]!r}: only `image` can be a file")
        images.append(file.file_object.getvalue())  # type: ignore[union-attr]  # BytesIO: it is never flushed to disk

    _, options = parse_options_header(content_type)
    config = {"MAX_MEMORY_FILE_SIZE": float("inf")}
    try:
        parser = FormParser(
            "multipart/form-data",
            on_field,
            on_file,
            on_end=lambda: ends.append(None),
            boundary=options.get(b"boundary") or None,
            config=config,
        )
        parser.write(body)
        parser.finalize()
    except FormParserError:
        raise MalformedError("The body is not valid multipart/form-data.") from None
    if not ends:
        raise MalformedError("The multipart body is cut off: its last boundary is missing.")
    return images, _gather(pairs)


def _text(value: bytes | None) -> str:
    """Bytes that are not UTF-8 become lone surrogates, which the validation refuses."""
    return (value or b"").decode("utf-8", "surrogateescape")
