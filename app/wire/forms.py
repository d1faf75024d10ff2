"""The three forms of a request body, read into the same thing: images and validated fields."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any, Generic, TypeVar
from urllib.parse import parse_qsl

from pydantic import BaseModel, ValidationError

from app.errors import InvalidInputError, MalformedError, UnsupportedMediaError
from app.settings import Settings
from app.wire.coding import decode_base64, decode_text
from app.wire.multipart import Part, read_parts
from app.wire.pictures import starts_like_a_picture
from app.wire.schemas import Context, Fields, explain
from app.wire.structure import has_too_much_structure

TOLD_NAMES = 5  # of unknown fields
CHARSET_FIELD = "_charset_"  # of an HTML form: names the charset of its texts
MOST_BYTES_PER_CHAR = 8  # of any charset
# What says nothing of the body: nothing itself, or what curl's --data-binary writes. Pictures alone are guessed: JSON
# sent as text/plain could come from any page, without a preflight.
MOST_PREFIX_CHARS = 64  # of white space and a scheme
SAYS_NOTHING = ("", "application/octet-stream", "application/x-www-form-urlencoded")
_DATA_URI = re.compile(r"\s*data:[^,]{0,128};\s*base64\s*,", re.IGNORECASE)
A_URL, A_DATA_URI = "a URL", "a data URI"
_URL = re.compile(r"[a-z][a-z0-9+.-]*://")  # of any scheme: which may be fetched is not decided here
F = TypeVar("F", bound=Fields)
M = TypeVar("M", bound=BaseModel)


Source = bytes | str  # an image, or the URL that it is to be fetched from


@dataclass(frozen=True, slots=True)
class Upload:
    data: bytes
    digest: bytes  # SHA-256; of the URL, until it is fetched
    place: str | None = None  # among the request's images, for errors; None: it is the only one
    url: str | None = None  # that it is to be fetched from, or has been

    def fetched(self, data: bytes) -> Upload:
        """With what its URL led to."""
        return replace(self, data=data, digest=sha256(data).digest())


@dataclass(frozen=True, slots=True)
class Form(Generic[F]):
    images: tuple[Upload, ...]  # and then those of `Fields.pictures` that are given
    fields: F
    num_chars: int  # of all fields, approximately

    @property
    def distinct_images(self) -> list[Upload]:
        """The first of equal ones."""
        return list(distinct(self.images).values())


def distinct(images: Iterable[Upload]) -> dict[bytes, Upload]:
    """By digest: the first of equal ones."""
    firsts: dict[bytes, Upload] = {}
    for image in images:
        firsts.setdefault(image.digest, image)
    return firsts


def read_form(content_type: str, query: bytes, body: bytes, model: type[F], settings: Settings) -> Form[F]:
    """Raises MalformedError, UnsupportedMediaError, InvalidInputError."""
    media = content_type.partition(";")[0].strip().lower()
    is_json = media == "application/json"
    is_raw = media.startswith("image/") or (media in SAYS_NOTHING and starts_like_a_picture(body))
    if query and (is_json or media == "multipart/form-data"):
        raise InvalidInputError("Query parameters go with a raw image body only.")
    images: Sequence[Source]
    most_images = settings.max_items if model.num_images[1] is None else model.num_images[1]
    if is_json:
        model, values = model.adapted(read_object(body))
        images = _take_images(values, most_images)
    elif media == "multipart/form-data":
        images, values = _read_multipart(content_type, body, model, settings)
    elif is_raw:
        pairs = parse_qsl(_text(query), keep_blank_values=True, errors="surrogateescape")
        images, values = [body], _gather(pairs, model)
    else:
        raise UnsupportedMediaError(
            "The body must be multipart/form-data, application/json or the bytes of an image (image/*)."
        )
    _check_images(images, model.num_images[0], most_images)
    _check_names(values.keys(), model)
    values = {name: value for name, value in values.items() if value is not None}
    more = _take_pictures(values, model)
    if not is_json:
        _check_bytes(images, more)
    fields = validated(model, values, Context(settings, len(images)), strict=is_json)
    several = len(images) > 1
    uploads = [upload(image, f"image: {index}" if several else None) for index, image in enumerate(images)]
    uploads += [upload(picture, name) for name, picture in more.items()]
    return Form(tuple(uploads), fields, _num_chars(values))


def upload(source: Source, place: str | None = None) -> Upload:
    """Hashes an image: 20 MB take some 20 ms."""
    if isinstance(source, str):
        return Upload(b"", sha256(source.encode(errors="surrogatepass")).digest(), place, source)
    return Upload(source, sha256(source).digest(), place)


def validated(model: type[M], values: Mapping[str, Any], context: Context, *, strict: bool = False) -> M:
    """Raises InvalidInputError."""
    values = {name: _whole(value) for name, value in values.items()}
    try:
        return model.model_validate(values, strict=strict, context=context)
    except ValidationError as error:
        raise InvalidInputError(explain(error.errors(include_url=False, include_input=False))) from None


def _whole(value: object) -> object:
    """3.0 is an integer, in JSON Schema and from languages that know one kind of number."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _check_images(images: Sequence[Source], fewest: int, most: int) -> None:
    if len(images) < fewest:
        raise InvalidInputError("image: is missing")
    _check_number(len(images), most)
    if not all(images):
        place = f"image: {[*map(bool, images)].index(False)}" if len(images) > 1 else "image"
        raise InvalidInputError(f"{place}: is empty")


def _check_bytes(images: Sequence[Source], more: Mapping[str, Source]) -> None:
    """`-F image=https://...` in place of `-F image=@FILE` is a text, not a picture. Raises UnsupportedMediaError."""
    several = len(images) > 1
    places = [f"image: {number}" if several else "image" for number in range(len(images))]
    for place, image in [*zip(places, images, strict=True), *more.items()]:
        if isinstance(image, bytes) and (kind := _link(_text(image[:MOST_PREFIX_CHARS]))) is not None:
            raise UnsupportedMediaError(
                f"{place}: is {kind}: only a JSON body can hold it, as a string. Here it is a file (curl: "
                f"-F {place.partition(':')[0]}=@FILE)."
            )


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


def _gather(pairs: Iterable[tuple[str, str]], model: type[Fields]) -> dict[str, Any]:
    """A field that is repeated becomes a list; what is left empty is absent, as in an HTML form."""
    values: dict[str, list[str]] = {}
    for name, value in pairs:
        given = values.setdefault(name, [])
        if name in model.verbatim:
            given.append(value)
        elif stripped := value.strip():
            given.append(stripped)
    return {name: (given[0] if len(given) == 1 else given) if given else None for name, given in values.items()}


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


def _take_images(values: dict[str, Any], most_images: int) -> list[Source]:
    """Out of the values of a JSON body."""
    image, images = values.pop("image", None), values.pop("images", None)
    if image is not None and images is not None:
        raise InvalidInputError("image, images: only one of the two may be given")
    encoded = images if images is not None else [] if image is None else [image]
    if not isinstance(encoded, list) or not all(isinstance(one, str) for one in encoded):
        raise InvalidInputError("image must be a string, images a list of strings")
    _check_number(len(encoded), most_images)
    several = len(encoded) > 1
    return [read_image(one, f"image: {place}" if several else "image") for place, one in enumerate(encoded)]


def _take_pictures(values: dict[str, Any], model: type[Fields]) -> dict[str, Source]:
    """What the fields hold that are pictures, by name. The name is what is left of each among the values."""
    taken: dict[str, Source] = {}
    for name in model.pictures:
        if (given := values.get(name)) is None:
            continue
        if not isinstance(given, str | bytes):
            raise InvalidInputError(f"{name}: must be one image, as a string")
        taken[name] = read_image(given, name) if isinstance(given, str) else given
        values[name] = name
    return taken


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Refuses repeated keys: json.loads would silently keep the last value."""
    if len(values := dict(pairs)) < len(pairs):
        [(name, _)] = Counter(name for name, _ in pairs).most_common(1)
        raise InvalidInputError(f"{name[:64]!r}: is given more than once")
    return values


def is_data_uri(text: str) -> bool:
    return _DATA_URI.match(text) is not None


def _link(start: str) -> str | None:
    """What a text that begins so is in place of an image's bytes."""
    start = start.lstrip().lower()
    if _URL.match(start):
        return A_URL
    return A_DATA_URI if start.startswith("data:") else None


def read_image(text: str, place: str = "image") -> Source:
    """A string of JSON that stands for an image: base64, a data URI of any type, as the bytes tell what they are, or
    a URL, which is returned as it is. `place`: what errors name. Raises MalformedError, InvalidInputError."""
    kind = _link(text[:MOST_PREFIX_CHARS])
    if kind == A_URL:
        return text.strip()
    if kind == A_DATA_URI:
        kind, comma, text = text.partition(",")
        if not comma or not kind.isascii() or kind.rpartition(";")[2].strip().lower() != "base64":
            raise MalformedError(f"{place}: a data URI must begin with data:...;base64,")
        for character in "+/=" if "%" in text else "":  # the only ones that an encoder of URIs changes
            code = f"%{ord(character):02X}"
            text = text.replace(code, character).replace(code.lower(), character)
    try:
        data = decode_base64(text.encode("ascii"))
    except ValueError:
        raise MalformedError(f"{place}: is not valid base64") from None
    if not data:
        raise InvalidInputError(f"{place}: is empty")
    return data


def _read_multipart(
    content_type: str, body: bytes, model: type[Fields], settings: Settings
) -> tuple[list[bytes], dict[str, Any]]:
    """The name of a part decides what it is: a picture may come without a filename, and a text with one."""
    parts = list(read_parts(content_type, body))
    images = [part.data for part in parts if part.name == "image" and (part.data or part.has_filename)]
    charset = next((_text(part.data) for part in parts if part.name == CHARSET_FIELD), "utf-8")
    pictures = [(part.name, part.data) for part in parts if part.name in model.pictures and part.data]
    texts = [part for part in parts if part.name not in ("image", CHARSET_FIELD, *model.pictures)]
    _check_names({part.name for part in texts}, model)  # before they are decoded: a misnamed picture is no text
    pairs = [(part.name, _decode_part(part, part.charset or charset, settings)) for part in texts]
    if len(given := dict(pictures)) < len(pictures):
        raise InvalidInputError(f"{', '.join(given)}: one image at most may be given")
    return images, _gather(pairs, model) | given


def _decode_part(part: Part, charset: str, settings: Settings) -> str:
    limit = settings.max_text_chars
    if len(part.data) > MOST_BYTES_PER_CHAR * max(limit, 1000):
        raise InvalidInputError(f"{part.name}: has more than {limit} characters")
    try:
        return decode_text(part.data, charset)
    except LookupError:
        raise InvalidInputError(f"{part.name}: its charset is not known") from None
    except ValueError:
        raise InvalidInputError(f"{part.name}: is not text in the charset that its part names") from None


def _text(value: bytes | None) -> str:
    """Bytes that are not UTF-8 become lone surrogates, which the validation refuses."""
    return (value or b"").decode("utf-8", "surrogateescape")
