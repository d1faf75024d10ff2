"""multipart/form-data (RFC 7578) as browsers, libraries, scripts and mail tools write it.

The whole body is there, so that its boundaries are found by a search; python-multipart reads streams, and refuses a
preamble, padding after the first boundary, bare line feeds, folded headers and a ninth header.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

from app.errors import InvalidInputError, MalformedError
from app.wire.coding import decode_text, decode_transfer

MAX_PARTS = 8192  # no request within the limits has more
MAX_HEAD_BYTES = 8192  # the headers of one part
MAX_BOUNDARY_CHARS = 256  # RFC 2046: 70
_AFTER_BOUNDARY = re.compile(rb"(--)|[ \t]{0,256}(\r?\n)")
_FOLD = re.compile(r"\r?\n[ \t]+")
# Browsers write \" or %22 for a quote, but a backslash as it is: a quote that ends the value closes it, escaped or not.
_OPTION = re.compile(
    r""";\s*([^\s=;"]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"(?=\s*(?:;|$))|"([^"]*)"|([^;]*))""", re.DOTALL | re.ASCII
)


@dataclass(frozen=True, slots=True)
class Part:
    name: str
    data: bytes  # without its transfer encoding
    charset: str | None
    has_filename: bool  # one that is not empty, as that of a file input without a file is


def read_parts(content_type: str, body: bytes) -> Iterator[Part]:
    """Raises MalformedError, InvalidInputError (too many parts, or something in one that is not known)."""
    boundary = options_of(content_type).get("boundary", "")
    if not boundary:
        raise MalformedError(
            "The boundary is missing: it belongs into the header, as Content-Type: multipart/form-data; boundary=... "
            "(most client libraries write that header themselves)."
        )
    if len(boundary) > MAX_BOUNDARY_CHARS:
        raise MalformedError(f"The boundary of a multipart body may have at most {MAX_BOUNDARY_CHARS} characters.")
    for number, (begin, end, line_break) in enumerate(_spans(body, boundary.encode("latin-1"))):
        yield _part(body, begin, end, line_break, number)


def _spans(body: bytes, boundary: bytes) -> list[tuple[int, int, bytes]]:
    """Begin and end of each part, headers and all, and its line break. What is before and behind them is no part."""
    line = b"--" + boundary
    first = 0 if body.startswith(line) else body.find(b"\n" + line) + 1
    after = _AFTER_BOUNDARY.match(body, first + len(line)) if first or body.startswith(line) else None
    if after is None:
        raise MalformedError("The multipart body does not begin with the boundary that the Content-Type names.")
    spans: list[tuple[int, int, bytes]] = []
    if after[1]:
        return spans
    line_break = after[2]
    begin = after.end()
    search_at = begin - len(line_break)  # it may end an empty part as well
    for _ in range(MAX_PARTS):
        end = body.find(line_break + line, search_at)
        if end < 0:
            raise MalformedError("The multipart body is cut off: its last boundary is missing.")
        search_at = end + len(line_break + line)
        if after := _AFTER_BOUNDARY.match(body, search_at):  # else data that begins like it
            spans.append((begin, end, line_break))
            if after[1]:
                return spans
            begin = after.end()
            search_at = begin - len(line_break)
    raise InvalidInputError(f"The body has more than {MAX_PARTS} fields.")


def _part(body: bytes, begin: int, end: int, line_break: bytes, number: int) -> Part:
    """`number`: from 0."""
    blank_line = 2 * line_break
    head_end = body.find(blank_line, begin - len(line_break), min(end + len(line_break), begin + MAX_HEAD_BYTES))
    if head_end < 0:
        raise MalformedError(
            f"The multipart body is malformed: part {number} has no empty line after its headers, or more than "
            f"{MAX_HEAD_BYTES} bytes of them."
        )
    headers = _headers(body[begin:head_end])
    disposition = options_of(headers.get("content-disposition", ""))
    if not (name := _name(disposition)):
        raise MalformedError(f"The multipart body is malformed: part {number} has no name in its Content-Disposition.")
    coding = headers.get("content-transfer-encoding", "")
    told = f"part {number} ({name[:64]!r})"
    try:
        data = decode_transfer(body[head_end + len(blank_line) : end], coding)
    except ValueError:
        raise MalformedError(f"The multipart body is malformed: {told} is not valid {coding[:40]}.") from None
    except LookupError:
        raise InvalidInputError(f"{told}: its Content-Transfer-Encoding is not known") from None
    charset = options_of(headers.get("content-type", "")).get("charset")
    return Part(name, data, charset, any(disposition[key] for key in disposition if key.startswith("filename")))


def _headers(head: bytes) -> dict[str, str]:
    lines = _FOLD.sub(" ", head.decode("utf-8", "surrogateescape")).split("\n")
    fields = [line.partition(":") for line in reversed(lines)]  # of a repeated one the first counts
    return {name.strip().lower(): value.strip() for name, _, value in fields}


def options_of(value: str) -> dict[str, str]:
    """What follows the first word of a header's value: `form-data; name="image"` -> name: image."""
    options: dict[str, str] = {}
    for name, quoted, open_quoted, plain in _OPTION.findall(value):
        text = quoted.replace('\\"', '"').replace("\\\\", "\\") or open_quoted or plain.strip()
        options.setdefault(name.lower(), text)
    return options


def _name(options: dict[str, str]) -> str:
    """Of a part; in pieces or with a charset (RFC 2231) too, as mail libraries write it."""
    if name := options.get("name"):
        return name
    if (whole := options.get("name*")) is not None:
        return _extended(whole)
    pieces: list[str] = []
    while key := next((key for key in (f"name*{len(pieces)}", f"name*{len(pieces)}*") if key in options), None):
        pieces.append(options[key])
    return _extended("".join(pieces)) if "name*0*" in options else "".join(pieces)


def _extended(value: str) -> str:
    """charset'language'text, with %XX for bytes."""
    charset, _, rest = value.partition("'")
    try:
        return decode_text(unquote_to_bytes(rest.partition("'")[2]), charset or "utf-8")
    except (LookupError, ValueError):
        return ""
