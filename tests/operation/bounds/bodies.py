"""Bodies and queries that cost whoever counts late: as large as the limits let in, full of small parts."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from PIL import Image

NUM_BYTES = 19 * 2**20  # near BLIP_MAX_BODY_BYTES
FEW = 30_000  # parts, which the count before the parser lets in
JSON = "application/json"
FORM = "multipart/form-data; boundary=b"
PNG = "image/png"


@dataclass(frozen=True, slots=True)
class Body:
    """`is_legal`: it is to be answered with 200."""

    name: str
    path: str
    kind: str
    make: Callable[[], bytes]
    is_legal: bool = False


def png(size: tuple[int, int] = (64, 64), colour: str | tuple[int, int, int] = "red") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, "PNG")
    return buffer.getvalue()


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


IMAGE = b'"image":"' + base64.b64encode(png()) + b'"'
PART = b'--b\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n'


def repeated(piece: bytes, num_bytes: int = NUM_BYTES) -> bytes:
    return piece * (num_bytes // len(piece))


def field(value: bytes) -> bytes:
    return b"{" + IMAGE + b',"question":' + value + b"}"


def listed(piece: bytes, num_bytes: int = NUM_BYTES) -> bytes:
    return field(b'"a","candidates":[' + repeated(piece + b",", num_bytes) + piece + b"]")


def keys(number: int, name: str = "{}") -> bytes:
    return b"{" + IMAGE + b"," + b",".join(b'"%s":1' % name.format(i).encode() for i in range(number)) + b"}"


def written(**fields: Any) -> bytes:
    return json.dumps({"image": b64(png())} | fields).encode()


def upload(content: bytes, headers: bytes = b"") -> bytes:
    return PART + headers + b"\r\n" + content + b"\r\n--b--\r\n"


JSON_BODIES = (
    Body("lists", "/vqa", JSON, lambda: listed(b"[]")),
    Body("objects", "/vqa", JSON, lambda: listed(b"{}")),
    Body("strings", "/vqa", JSON, lambda: listed(b'"a"')),
    Body("empty strings, few", "/vqa", JSON, lambda: listed(b'""', 3 * FEW)),
    Body("lists, few", "/vqa", JSON, lambda: listed(b"[]", 3 * FEW)),
    Body("numbers", "/vqa", JSON, lambda: listed(b"1e9")),
    Body("unknown keys", "/caption", JSON, lambda: keys(1_500_000)),
    Body("unknown keys, few", "/caption", JSON, lambda: keys(FEW)),
    Body("one key again and again", "/caption", JSON, lambda: keys(1_500_000, "a")),
    Body("one key again and again, few", "/caption", JSON, lambda: keys(FEW, "a")),
    Body("empty images", "/caption", JSON, lambda: b'{"images":[' + repeated(b'"",') + b'""]}'),
    Body("empty images, few", "/caption", JSON, lambda: b'{"images":[' + repeated(b'"",', 3 * FEW) + b'""]}'),
    Body("lists in lists", "/vqa", JSON, lambda: field(repeated(b"["))),
    Body("lists in lists, few", "/vqa", JSON, lambda: field(b"[" * FEW + b"]" * FEW)),
    Body("objects in objects, few", "/vqa", JSON, lambda: field(b'{"a":' * FEW + b"1" + b"}" * FEW)),
    Body("escapes", "/vqa", JSON, lambda: field(b'"' + repeated(rb"\u0041") + b'"')),
    Body("surrogates", "/vqa", JSON, lambda: field(b'"' + repeated(rb"\ud800") + b'"')),
    Body("backslashes", "/vqa", JSON, lambda: field(b'"' + repeated(rb"\\") + b'"')),
    Body("escaped quotes", "/vqa", JSON, lambda: field(b'"' + repeated(rb"\"") + b'"')),
    Body("quotes", "/vqa", JSON, lambda: field(repeated(b'"'))),
    Body("a whole number", "/vqa", JSON, lambda: field(repeated(b"1"))),
    Body("a fraction", "/vqa", JSON, lambda: field(b"0." + repeated(b"1"))),
    Body("an exponent", "/vqa", JSON, lambda: field(b"1e" + repeated(b"9"))),
    Body("white space", "/vqa", JSON, lambda: repeated(b" ") + b"{}"),
    Body("lines", "/vqa", JSON, lambda: b"{" + repeated(b"\r\n") + b"}"),
    Body("UTF-16", "/vqa", JSON, lambda: listed(b"[]", NUM_BYTES // 2).decode().encode("utf-16")),
    Body("not UTF-8", "/vqa", JSON, lambda: field(b'"' + repeated(b"\xff") + b'"')),
    Body("base64 in lines", "/caption", JSON, lambda: b'{"image":"' + repeated(rb"A\n") + b'"}'),
    Body("base64 of nothing known", "/caption", JSON, lambda: b'{"image":"' + repeated(b"AAAA") + b'"}'),
    Body("a data URI", "/caption", JSON, lambda: b'{"image":"data:image/png;base64' + repeated(b",AAA") + b'"}'),
    Body("candidates of 4,600 characters", "/vqa", JSON, lambda: listed(b'"' + b"red " * 1150 + b'"')),
    Body("64 texts of commas", "/match", JSON, lambda: written(text=["," * (9_000 + i) for i in range(64)]), True),
    Body("64 texts of words", "/match", JSON, lambda: written(text=["a " * 4_900 + str(i) for i in range(64)]), True),
)
FORM_BODIES = (
    Body("parts", "/caption", FORM, lambda: repeated(b'--b\r\nContent-Disposition: form-data; name="a"\r\n\r\n\r\n')),
    Body(
        "parts, few",
        "/caption",
        FORM,
        lambda: b"".join(b'--b\r\nContent-Disposition: form-data; name="%d"\r\n\r\n\r\n' % i for i in range(8000)),
    ),
    Body("files", "/caption", FORM, lambda: repeated(PART + b"\r\n\r\n")),
    Body("headers of a part", "/caption", FORM, lambda: upload(png(), repeated(b"X: y\r\n"))),
    Body("a header of a part", "/caption", FORM, lambda: upload(png(), b"X: " + repeated(b"y") + b"\r\n")),
    Body("the name of a header", "/caption", FORM, lambda: upload(png(), repeated(b"y") + b": x\r\n")),
    Body("the parameters of a header", "/caption", FORM, lambda: upload(png(), b"X: a" + repeated(b";a=b") + b"\r\n")),
    Body("line ends", "/caption", FORM, lambda: upload(repeated(b"\r\n"))),
    Body("carriage returns", "/caption", FORM, lambda: upload(repeated(b"\r"))),
    Body("nearly boundaries", "/caption", FORM, lambda: upload(repeated(b"\r\n--"))),
    Body("boundaries that go on", "/caption", FORM, lambda: upload(repeated(b"\r\n--a"))),
    Body("dashes", "/caption", FORM.replace("=b", "=" + 70 * "-"), lambda: repeated(b"-")),
    Body("a preamble", "/caption", FORM, lambda: repeated(b"a\r\n") + upload(png()), is_legal=True),
    Body("a long boundary", "/caption", FORM.replace("=b", "=" + 40_000 * "a"), lambda: repeated(b"a")),
    Body("a value", "/vqa", FORM, lambda: PART.replace(b"image", b"x") + b"\r\n" + repeated(b"%41") + b"\r\n--b--\r\n"),
)
QUERY_BODIES = (
    Body("parameters of a query", "/caption?" + "a=1&" * 15_000, PNG, png),
    Body("names of a query", "/caption?" + "&".join(str(i) for i in range(10_000)), PNG, png),
    Body("escapes of a query", "/caption?prompt=" + "%41" * 20_000, PNG, png),
    Body("ands of a query", "/caption?" + "&" * 60_000, PNG, png, is_legal=True),
    Body("a query", "/caption?prompt=" + "a" * 9_000, PNG, png, is_legal=True),  # one word, unknown
)
BODIES = JSON_BODIES + FORM_BODIES + QUERY_BODIES
