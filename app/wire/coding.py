"""Bytes as clients write them: base64 in its variants, and the charsets of texts."""

from __future__ import annotations

import binascii
import re
from contextlib import suppress
from encodings.aliases import aliases

import pybase64  # thirty times as fast as the standard library's, which took most of a request's time

_SPACES = b" \t\r\n\v\f"
_ONE_ALPHABET = bytes.maketrans(b"-_", b"+/")
_AS_THEY_ARE = ("", "7bit", "8bit", "binary", "identity")
# Those of browsers. Others of Python's are left out: some take time that grows with the square of the length.
_CHARSETS = (
    "utf_8",
    "utf_16",
    "utf_16_le",
    "utf_16_be",
    "ascii",
    "latin_1",
    *(f"iso8859_{number}" for number in (2, 3, 4, 5, 6, 7, 8, 10, 13, 14, 15, 16)),
    *(f"cp{number}" for number in (437, 850, 866, 874, 932, 949, *range(1250, 1259))),
    "koi8_r",
    "koi8_u",
    "mac_roman",
    "mac_cyrillic",
    "gb2312",
    "gbk",
    "gb18030",
    "big5",
    "big5hkscs",
    "euc_jp",
    "iso2022_jp",
    "shift_jis",
    "euc_kr",
)
# A byte order mark is no text. Who says ASCII and sends more sends UTF-8; what is called Latin-1 is Windows' (WHATWG).
_MEANT = {"utf_8": "utf_8_sig", "ascii": "utf_8_sig", "latin_1": "cp1252"}
_CODECS = {alias: name for alias, name in aliases.items() if name in _CHARSETS} | {name: name for name in _CHARSETS}


def decode_base64(data: bytes) -> bytes:
    """In either alphabet, with or without padding or white space. Raises ValueError."""
    with suppress(ValueError):  # as most write it, which takes a tenth of the time
        return pybase64.b64decode(data, validate=True)
    data = data.translate(_ONE_ALPHABET, _SPACES)
    if len(data) % 4:  # no padding, or too much or little of it
        if data.endswith(b"="):
            raise ValueError("wrong padding")
        data += b"=" * (-len(data) % 4)
    return pybase64.b64decode(data, validate=True)


def decode_transfer(data: bytes, coding: str) -> bytes:
    """Undo a Content-Transfer-Encoding. Raises ValueError, LookupError (not known)."""
    coding = coding.strip().lower()
    if coding in _AS_THEY_ARE:
        return data
    if coding == "base64":
        return decode_base64(data)
    if coding == "quoted-printable":
        return binascii.a2b_qp(data)
    raise LookupError(coding)


def decode_text(data: bytes, charset: str) -> str:
    """In UTF-8, wrong bytes become lone surrogates, which the validation refuses. Raises ValueError, LookupError."""
    label = re.sub("[^a-z0-9]+", "_", charset[:40].strip().lower())
    codec = _CODECS[label]
    return data.decode(_MEANT.get(codec, codec), "surrogateescape" if codec in ("utf_8", "ascii") else "strict")
