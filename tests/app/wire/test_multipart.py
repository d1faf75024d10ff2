"""multipart/form-data as browsers, libraries, scripts and mail tools write it."""

from __future__ import annotations

import base64
import quopri
from collections.abc import Callable

import httpx
import pytest

from app.errors import InvalidInputError, MalformedError
from app.wire.multipart import MAX_BOUNDARY_CHARS, MAX_HEAD_BYTES, MAX_PARTS, Part, options_of, read_parts
from tests.app.conftest import Shared
from tests.app.support import RED, encoded, kind, picture

TYPE = "multipart/form-data; boundary=x"
PICTURE = 'form-data; name="image"; filename="a.png"'
QUESTION = 'form-data; name="question"'


def part(disposition: str, data: bytes, *headers: str) -> bytes:
    lines = (f"Content-Disposition: {disposition}", *headers, "")
    return b"--x\r\n" + "".join(f"{line}\r\n" for line in lines).encode() + data + b"\r\n"


def body(*parts: bytes) -> bytes:
    return b"".join((*parts, b"--x--\r\n"))


def read(content: bytes, content_type: str = TYPE) -> list[Part]:
    return list(read_parts(content_type, content))


def ask(shared: Shared, content: bytes, content_type: str = TYPE, path: str = "/vqa") -> httpx.Response:
    return shared.post(path, content=content, headers={"content-type": content_type})


def asked(shared: Shared, content: bytes, content_type: str = TYPE) -> str:
    """The question that comes back."""
    answer = ask(shared, content, content_type)
    assert answer.status_code == 200, answer.text
    question: str = answer.json()["answers"][0]["question"]
    return question


PLAIN = body(part(PICTURE, RED, "Content-Type: image/png"), part(QUESTION, b"what?"))


# --- the name decides ---


@pytest.mark.parametrize(
    "disposition",
    [
        'form-data; name="image"',
        "form-data; name=image",
        "form-data;name=image;filename=a.png",
        "Form-Data; NAME=image ; FileName=a.png",
        "form-data ; name = \"image\" ; filename = 'a.png'",
        'form-data; filename="a.png"; name="image"',
        'form-data; name="image"; filename=""',
        'form-data; name="image"; filename="a;b; name=text.png"',
        r'form-data; name="image"; filename="a\"b; name=\"text\".png"',
        r'form-data; name="image"; filename="C:\photos\new.png"',
        'form-data; filename="C:\\photos\\"; name="image"',
        'form-data; name="image"; filename="a%22b.png"',
        "form-data; name=\"image\"; filename*=utf-8''%E5%9B%BE%E7%89%87.png",
        'form-data; name="image"; filename="a.png"; filename*=UTF-8\'\'b.png',
        "form-data; name=\"image\"; filename*0*=utf-8''%E5%9B%BE; filename*1=.png",
        'form-data; name="image"; filename="图片.png"',
        'form-data; name="image"; filename="=?utf-8?B?5Zu+54mHLnBuZw==?="',
        "form-data; name*=utf-8''image",
        "form-data; name*=us-ascii'en'im%61ge",
        'form-data; name*0=im; name*1="age"; filename=a.png',
        "form-data; name*0*=utf-8''im; name*1*=%61ge",
        'form-data;\r\n\tname="image";\r\n filename="a.png"',
        'attachment; name="image"; filename="a.png"',
        'file; name="image"',
    ],
)
def test_a_part_named_image_is_a_picture(shared: Shared, disposition: str) -> None:
    assert asked(shared, body(part(disposition, RED), part(QUESTION, b"what?"))) == "what?"


@pytest.mark.parametrize("header", ["content-disposition: ", "CONTENT-DISPOSITION:", "Content-Disposition :  "])
def test_the_case_of_headers_does_not_matter(shared: Shared, header: str) -> None:
    assert asked(shared, PLAIN.replace(b"Content-Disposition: ", header.encode())) == "what?"


@pytest.mark.parametrize("headers", [(), ("Content-Type: text/plain",), ("Content-Type: application/octet-stream",)])
@pytest.mark.parametrize("filename", ["", '; filename="blob"', '; filename="q.txt"', '; filename=""'])
def test_a_text_may_come_as_a_file(shared: Shared, filename: str, headers: tuple[str, ...]) -> None:
    content = body(part(PICTURE, RED), part(QUESTION + filename, b"what?", *headers))
    assert asked(shared, content) == "what?"


def test_several_pictures_keep_their_order(shared: Shared) -> None:
    images = [encoded(picture(colour)) for colour in ("red", "green", "blue")]
    content = body(*(part(f'form-data; name="image"; filename="{n}"', image) for n, image in enumerate(images)))
    texts = [one["text"] for one in ask(shared, content, path="/caption").json()["captions"]]
    alone = [shared.ask("/caption", image).json()["captions"][0]["text"] for image in images]
    assert texts == alone
    assert len(set(texts)) == 3


def test_a_file_input_without_a_file_is_absent(shared: Shared) -> None:
    empty = part('form-data; name="image"; filename=""', b"", "Content-Type: application/octet-stream")
    assert asked(shared, body(empty, part(PICTURE, RED), part(QUESTION, b"what?"), empty)) == "what?"
    for nothing in (empty, part('form-data; name="image"', b"")):
        refused = ask(shared, body(nothing, part(QUESTION, b"what?")))
        assert (kind(refused), refused.json()["detail"]) == ((422, "invalid-input"), "image: is missing")
    refused = ask(shared, body(part(PICTURE, b""), part(QUESTION, b"what?")))
    assert (kind(refused), refused.json()["detail"]) == ((422, "invalid-input"), "image: is empty")


def test_a_misnamed_picture_is_told_with_the_names_that_there_are(shared: Shared) -> None:
    refused = ask(shared, body(part('form-data; name="file"; filename="a.png"', RED), part(QUESTION, b"what?")))
    assert kind(refused) == (422, "invalid-input")
    assert refused.json()["detail"].startswith("unknown field 'file'; there are: image, ")


# --- charsets ---

TEXT = "où est le café ?"


@pytest.mark.parametrize(
    ("text", "charset", "codec"),
    [
        (TEXT, "ISO-8859-1", "latin-1"),
        (TEXT, "latin1", "latin-1"),
        (TEXT, '"utf-8"', "utf-8"),
        (TEXT, "UTF8", "utf-8"),
        (TEXT, "us-ascii", "utf-8"),
        (TEXT, "windows-1252", "cp1252"),
        ("“café”", "ISO-8859-1", "cp1252"),
        (TEXT, "iso-8859-15", "iso8859-15"),
        (TEXT, "UTF-16", "utf-16"),
        (TEXT, "utf-16le", "utf-16-le"),
        (TEXT, "utf-8", "utf-8-sig"),
        (TEXT, "macintosh", "mac-roman"),
        ("这是什么颜色吗", "GBK", "gbk"),
        ("这是什么颜色吗", "gb18030", "gb18030"),
        ("這是什麼顏色", "Big5", "big5"),
        ("何色ですか", "Shift_JIS", "shift-jis"),
        ("何色ですか", "euc-jp", "euc-jp"),
        ("何色ですか", "ISO-2022-JP", "iso2022-jp"),
        ("무슨 색", "euc-kr", "euc-kr"),
        ("какой цвет", "windows-1251", "cp1251"),
        ("какой цвет", "KOI8-R", "koi8-r"),
    ],
)
def test_a_text_has_the_charset_that_its_part_says(shared: Shared, text: str, charset: str, codec: str) -> None:
    said = part(QUESTION, text.encode(codec), f"Content-Type: text/plain; charset={charset}")
    assert asked(shared, body(part(PICTURE, RED), said)) == text


def test_a_form_may_say_the_charset_of_all_its_texts(shared: Shared) -> None:
    charset = part('form-data; name="_charset_"', b"windows-1252")
    texts = part(QUESTION, TEXT.encode("cp1252")), part('form-data; name="template"', b"")
    assert asked(shared, body(part(PICTURE, RED), *texts, charset)) == TEXT
    own = part(QUESTION, TEXT.encode(), "Content-Type: text/plain; charset=utf-8")
    assert asked(shared, body(charset, part(PICTURE, RED), own)) == TEXT
    assert asked(shared, body(part('form-data; name="_charset_"', b""), part(PICTURE, RED), own)) == TEXT


@pytest.mark.parametrize(
    ("charset", "text", "word"),
    [
        ("", b"caf\xe9", "Unicode"),
        ("utf-8", b"\xed\xa0\x80", "Unicode"),
        ("gbk", b"\xff\xff", "charset that its part names"),
        ("klingon", b"what?", "charset is not known"),
        ("punycode", b"what?", "charset is not known"),
        ("unicode_escape", b"what?", "charset is not known"),
        ("base64", b"what?", "charset is not known"),
        ("../x", b"what?", "charset is not known"),
    ],
)
def test_what_is_no_text(shared: Shared, charset: str, text: bytes, word: str) -> None:
    headers = (f"Content-Type: text/plain; charset={charset}",) if charset else ()
    refused = ask(shared, body(part(PICTURE, RED), part(QUESTION, text, *headers)))
    assert kind(refused) == (422, "invalid-input")
    assert refused.json()["detail"].startswith("question: ")
    assert word in refused.json()["detail"]


def test_a_text_that_is_far_too_long_is_not_decoded(shared: Shared) -> None:
    refused = ask(shared, body(part(PICTURE, RED), part(QUESTION, b"\xff" * 10_000_000)))
    assert kind(refused) == (422, "invalid-input")
    assert refused.json()["detail"] == "question: has more than 10000 characters"


# --- transfer encodings ---


@pytest.mark.parametrize("extra", range(9))
@pytest.mark.parametrize("line", [b"\r\n", b"\n"])
def test_base64_in_lines(shared: Shared, extra: int, line: bytes) -> None:
    """Of every length: whole groups of lines are the exception."""
    image = RED + bytes(extra)
    lines = base64.encodebytes(image).replace(b"\n", line)
    content = body(part(PICTURE, lines, "Content-Transfer-Encoding: base64"), part(QUESTION, b"what?"))
    assert read(content)[0].data == image
    assert asked(shared, content) == "what?"


@pytest.mark.parametrize("coding", ["BASE64", " base64 ", "Base64"])
@pytest.mark.parametrize("padding", [b"", b"=="])
def test_base64_in_its_variants(coding: str, padding: bytes) -> None:
    data = bytes(range(256))
    encoded = base64.urlsafe_b64encode(data).rstrip(b"=") + padding
    assert read(body(part(PICTURE, encoded, f"content-transfer-encoding: {coding}")))[0].data == data


@pytest.mark.parametrize("coding", ["7bit", "8bit", "8BIT", "binary", "Identity", ""])
def test_no_transfer_encoding(shared: Shared, coding: str) -> None:
    header = f"Content-Transfer-Encoding: {coding}"
    assert asked(shared, body(part(PICTURE, RED, header), part(QUESTION, b"what?", header))) == "what?"


def test_quoted_printable(shared: Shared) -> None:
    text = "où est le café = bleu ? " + "é" * 80
    said = part(
        QUESTION,
        quopri.encodestring(text.encode("latin-1")).replace(b"\n", b"\r\n"),
        "Content-Type: text/plain; charset=ISO-8859-1",
        "Content-Transfer-Encoding: Quoted-Printable",
    )
    assert asked(shared, body(part(PICTURE, RED), said)) == text


# --- what is around the parts ---


@pytest.mark.parametrize(
    "content",
    [
        b"This is a multi-part message in MIME format.\r\n" + PLAIN,
        b"\r\n" + PLAIN,
        b"a -- dash\r\n\r\n" + PLAIN,
        PLAIN + b"epilogue\r\n--x\r\nmore",
        PLAIN.removesuffix(b"\r\n"),
        PLAIN.replace(b"--x\r\n", b"--x \t \r\n"),
        PLAIN.replace(b"\r\n\r\n", b"\r\nX-A: b" * 12 + b"\r\n\r\n"),
        PLAIN.replace(b"--x--", part('form-data; name="model"', b"") + b"--x--"),
        PLAIN.replace(b"what?", b"what?\r\n--xy\r\n-x\r\n--"),
    ],
)
def test_preamble_epilogue_padding_and_more_headers(shared: Shared, content: bytes) -> None:
    assert asked(shared, content).startswith("what?")


def test_lines_that_end_in_a_line_feed_alone(shared: Shared) -> None:
    image = encoded(picture("red"), "GIF")
    content = body(part(PICTURE, b"%", "Content-Type: image/gif"), part(QUESTION, b"what?")).replace(b"\r\n", b"\n")
    assert asked(shared, content.replace(b"%", image)) == "what?"
    assert read(content.replace(b"%", b"a\r"))[0].data == b"a\r"


@pytest.mark.parametrize(
    "content_type",
    [
        'multipart/form-data; boundary="x"',
        "Multipart/Form-Data;Boundary=x",
        "multipart/form-data; charset=utf-8; boundary=x",
        "multipart/form-data ; boundary=x; charset=utf-8",
    ],
)
def test_how_the_boundary_is_named(shared: Shared, content_type: str) -> None:
    assert asked(shared, PLAIN, content_type) == "what?"


@pytest.mark.parametrize("boundary", ["a b:c", "'()+_,-./:=?", "=_x;y", "----WebKitFormBoundary7MA4YWxkTrZu0gW"])
def test_boundaries_of_every_character(shared: Shared, boundary: str) -> None:
    content = PLAIN.replace(b"--x", b"--" + boundary.encode())
    assert asked(shared, content, f'multipart/form-data; boundary="{boundary}"') == "what?"


def test_data_of_every_kind_comes_through() -> None:
    for data in (b"", b"\r\n", b"\r\n\r\n", b"\n--x--", b"\r\n--", b"\r\n--y", bytes(range(256)), b"a\r\n\r"):
        one, other = read(body(part(PICTURE, data), part(QUESTION, data)))
        assert (one.data, other.data) == (data, data), data
    without_end_of_headers = b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n--x--'
    assert [(one.name, one.data) for one in read(without_end_of_headers)] == [("a", b"")]
    assert read(b"--x--\r\n") == []


# --- reasons ---


@pytest.mark.parametrize(
    ("content_type", "content", "reason"),
    [
        ("multipart/form-data", PLAIN, "boundary is missing"),
        ("multipart/form-data; boundary=", PLAIN, "boundary is missing"),
        ('multipart/form-data; boundary=""', PLAIN, "boundary is missing"),
        ("multipart/form-data; boundary=" + "x" * (MAX_BOUNDARY_CHARS + 1), PLAIN, "256 characters"),
        (TYPE, b"", "does not begin with the boundary"),
        (TYPE, b"nonsense", "does not begin with the boundary"),
        (TYPE + "y", PLAIN, "does not begin with the boundary"),
        (TYPE, PLAIN.removesuffix(b"--x--\r\n"), "last boundary is missing"),
        (TYPE, PLAIN.replace(b"--x--", b"--x"), "last boundary is missing"),
        (TYPE, body(part(PICTURE, RED), b"--x\r\nhello\r\n"), "part 1 has no empty line after its headers"),
        (TYPE, body(part(PICTURE, RED), part("form-data", b"a")), "part 1 has no name"),
        (TYPE, body(part(PICTURE, RED), part('form-data; name=""', b"a")), "part 1 has no name"),
        (TYPE, body(b"--x\r\n\r\nhello\r\n"), "part 0 has no name"),
        (TYPE, body(part(PICTURE, RED, "X: " + "y" * MAX_HEAD_BYTES)), "part 0 has no empty line"),
        (TYPE, body(part(PICTURE, b"a", "Content-Transfer-Encoding: base64")), "part 0 ('image') is not valid base64"),
    ],
)
def test_the_reason_is_told(shared: Shared, content_type: str, content: bytes, reason: str) -> None:
    refused = ask(shared, content, content_type)
    assert kind(refused) == (400, "malformed")
    assert reason in refused.json()["detail"]


def test_a_transfer_encoding_that_is_not_known(shared: Shared) -> None:
    refused = ask(shared, body(part(PICTURE, RED, "Content-Transfer-Encoding: x-uuencode")))
    assert kind(refused) == (422, "invalid-input")
    assert refused.json()["detail"] == "part 0 ('image'): its Content-Transfer-Encoding is not known"


# --- bounds ---


def test_the_number_of_parts_is_bounded() -> None:
    one = part(QUESTION, b"a")
    assert len(read(body(one * MAX_PARTS))) == MAX_PARTS
    with pytest.raises(InvalidInputError, match="8192 fields"):
        read(body(one * (MAX_PARTS + 1)))


def heads(option: bytes) -> bytes:
    """Parts whose headers are as large as they may be."""
    head = b"--x\r\nContent-Disposition: form-data; name=a" + option * ((MAX_HEAD_BYTES - 100) // len(option))
    return body((head + b"\r\n\r\n\r\n") * 2000)


@pytest.mark.timeout(30)  # of what takes a second when each byte is read once
@pytest.mark.parametrize(
    ("piece", "make"),
    [
        (b"--x\r\n", bytes),
        (b"\r\n--xy", lambda piece: b"--x\r\n\r\n" + piece),
        (b" ", lambda piece: b"--x" + piece),
        (b"\n--xy", bytes),
        (b"\r\n", bytes),
        (b"A: b\r\n", lambda piece: b"--x\r\n" + piece),
    ],
)
def test_each_byte_is_read_once(piece: bytes, make: Callable[[bytes], bytes]) -> None:
    with pytest.raises((MalformedError, InvalidInputError)):
        read(make(piece * (20_000_000 // len(piece))))


@pytest.mark.timeout(30)
@pytest.mark.parametrize("option", [b';a="\\', b';a="b"x', b"; \t", b";name*0", b';a=\\"'])
def test_each_byte_of_a_head_is_read_once(option: bytes) -> None:
    assert len(read(heads(option))) == 2000
    with pytest.raises(MalformedError):
        read(b"", "multipart/form-data" + option.decode() * (60_000 // len(option)))


def test_options_of_a_header() -> None:
    assert options_of('form-data; name="a\\\\b"; x=y; X=z; flag') == {"name": "a\\b", "x": "y"}
    assert options_of("form-data") == {}
