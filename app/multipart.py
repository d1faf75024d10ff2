"""A multipart/form-data body (RFC 7578) that is there in whole: its parts, split where the boundary stands."""

from __future__ import annotations

import binascii
import re
from collections.abc import Iterator
from typing import NamedTuple

from python_multipart.multipart import parse_options_header

from app.errors import InvalidInputError, MalformedError

MAX_PARTS = 8192  # of a body; more than any request that is in the limits has
MAX_BOUNDARY_BYTES = 256  # RFC 2046 has 70
_HEADER = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):([^\r\n]*)")


class Part(NamedTuple):
    name: bytes
    is_file: bool  # sent with a filename
    data: bytes


def read_parts(content_type: str, body: bytes) -> Iterator[Part]:
    """Raises MalformedError, InvalidInputError."""
    boundary = parse_options_header(content_type)[1].get(b"boundary", b"")
    if not 0 < len(boundary) <= MAX_BOUNDARY_BYTES:
        raise _malformed("The multipart body has no boundary that can be used.")
    delimiter = b"\r\n--" + boundary
    preamble, *pieces = (b"\r\n" + body).split(delimiter, MAX_PARTS + 2)  # the last boundary, and one too many
    if preamble.strip(b"\r\n"):
        raise _malformed()
    if len(pieces) > MAX_PARTS + 1:
        raise InvalidInputError(f"More than {MAX_PARTS} fields.")
    for piece in pieces:
        if piece.startswith(b"--"):
            return  # what follows the last boundary counts for nothing
        yield _read_part(piece)
    raise _malformed("The multipart body is cut off: its last boundary is missing.")


def _read_part(piece: bytes) -> Part:
    """What stands between two boundaries: the end of the first one's line, headers, an empty line, data."""
    head, blank, data = piece.partition(b"\r\n\r\n")
    padding, *lines = head.split(b"\r\n")
    if padding.strip(b" \t") or not blank:
        raise _malformed()
    headers = {}
    for line in lines:
        header = _HEADER.fullmatch(line)
        if header is None:
            raise _malformed()
        headers[header[1].lower()] = header[2].strip(b" \t")
    options = parse_options_header(headers.get(b"content-disposition"))[1]
    if b"name" not in options:
        raise _malformed()
    data = _decoded(data, headers.get(b"content-transfer-encoding", b"binary").lower())
    return Part(options[b"name"], b"filename" in options, data)


def _decoded(data: bytes, encoding: bytes) -> bytes:
    """RFC 7578 has no use for transfer encodings, but some clients have."""
    if encoding == b"quoted-printable":
        return binascii.a2b_qp(data)
    if encoding != b"base64":
        return data
    try:
        return binascii.a2b_base64(data)
    except ValueError:
        raise _malformed("A part of the multipart body is not the base64 that it says.") from None


def _malformed(detail: str = "The body is not valid multipart/form-data.") -> MalformedError:
    return MalformedError(detail)
