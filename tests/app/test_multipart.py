"""The parts of a multipart body."""

from __future__ import annotations

import base64

import pytest

from app.errors import InvalidInputError, MalformedError
from app.multipart import MAX_BOUNDARY_BYTES, MAX_PARTS, Part, read_parts

TYPE = "multipart/form-data; boundary=x"
HEAD = b'--x\r\nContent-Disposition: form-data; name="a"'
END = b"\r\n--x--\r\n"


def parts(body: bytes, content_type: str = TYPE) -> list[Part]:
    return list(read_parts(content_type, body))


def test_fields_and_files() -> None:
    body = b'--x\r\ncontent-disposition:form-data;NAME=b; filename=""\r\nContent-Type: image/png\r\n\r\n\r\n\r\n'
    assert parts(HEAD + b"\r\n\r\nvalue\r\n" + body + END) == [
        Part(b"a", False, b"value"),
        Part(b"b", True, b"\r\n\r\n"),
    ]


@pytest.mark.parametrize("data", [b"", b"\r\n", b"--", b"-x\r\n-", b"\r\n--\r\nx", b"\r--x", b"\n--x--", bytes(9)])
def test_data_is_taken_as_it_is(data: bytes) -> None:
    assert parts(HEAD + b"\r\n\r\n" + data + END) == [Part(b"a", False, data)]


@pytest.mark.parametrize(
    ("before", "after"),
    [(b"\r\n\r\n", b""), (b"", b"what follows counts for nothing\r\n--x\r\n\r\n"), (b"\r\n", b"\r\n--x")],
)
def test_around_the_parts(before: bytes, after: bytes) -> None:
    assert parts(before + HEAD + b"\r\n\r\nb" + END + after) == [Part(b"a", False, b"b")]


def test_blanks_after_a_boundary() -> None:
    assert parts(HEAD.replace(b"--x", b"--x \t") + b"\r\n\r\nb\r\n--x-- \r\n") == [Part(b"a", False, b"b")]


def test_no_part() -> None:
    assert parts(b"--x--\r\n") == []


def test_quoted_boundary_and_name() -> None:
    body = b'--a b\r\nContent-Disposition: form-data; name="a;\\"b"\r\n\r\nc\r\n--a b--'
    assert parts(body, 'multipart/form-data; charset=utf-8; boundary="a b"') == [Part(b'a;"b', False, b"c")]


@pytest.mark.parametrize(
    ("encoding", "data"),
    [
        (b"binary", b"caf\xc3\xa9="),
        (b"8BIT", b"caf\xc3\xa9="),
        (b"base64", base64.encodebytes(b"caf\xc3\xa9=")),
        (b"Quoted-Printable", b"caf=C3=A9=3D"),
    ],
)
def test_transfer_encodings(encoding: bytes, data: bytes) -> None:
    [part] = parts(HEAD + b"\r\nContent-Transfer-Encoding: " + encoding + b"\r\n\r\n" + data + END)
    assert part.data == b"caf\xc3\xa9="


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"--",
        b"text before" + HEAD + b"\r\n\r\nb" + END,
        b"text\r\n" + HEAD + b"\r\n\r\nb" + END,
        HEAD + b"\r\n\r\nb",
        HEAD + b"\r\n\r\nb\r\n--x\r\n",
        HEAD + b"\r\n\r\nb\r\n--y--\r\n",
        HEAD + b"\r\n\r\nb\r\n--xx" + END,
        HEAD + END,
        b"--x\r\n\r\nb" + END,
        b'--x\r\nContent-Type: text/plain; name="a"\r\n\r\nb' + END,
        b"--x\r\nContent-Disposition: form-data\r\n\r\nb" + END,
        b"--x\r\nContent-Disposition: form-data; name*=utf-8''a\r\n\r\nb" + END,
        HEAD + b"\r\nno header\r\n\r\nb" + END,
        HEAD + b"\r\n folded: line\r\n\r\nb" + END,
        HEAD + b"\r\n: empty\r\n\r\nb" + END,
        HEAD + b"\r\nsp ace: b\r\n\r\nb" + END,
        HEAD + b"\r\nbare: line\nfeed\r\n\r\nb" + END,
        HEAD + b"\r\nContent-Transfer-Encoding: base64\r\n\r\nabcde" + END,
    ],
)
def test_malformed(body: bytes) -> None:
    with pytest.raises(MalformedError, match="multipart"):
        parts(body)


@pytest.mark.parametrize("boundary", ["", "; boundary=", "; boundary=" + "x" * (MAX_BOUNDARY_BYTES + 1)])
def test_boundary_that_cannot_be_used(boundary: str) -> None:
    with pytest.raises(MalformedError, match="boundary"):
        parts(b"--x--\r\n", "multipart/form-data" + boundary)


def test_too_many_parts() -> None:
    part = HEAD + b"\r\n\r\n\r\n"
    assert len(parts(part * MAX_PARTS + b"--x--")) == MAX_PARTS
    with pytest.raises(InvalidInputError, match="fields"):
        parts(part * (MAX_PARTS + 1) + b"--x--")
