"""How much structure a JSON body has, counted before it is parsed: each value costs the parser and the validator far
more than the byte or two that it takes to send."""

from __future__ import annotations

import numpy as np

MAX_STRUCTURE = 2**16  # several times what the largest request that is allowed has
STRUCTURE = b",[{:"
CHUNK_BYTES = 2**18  # about a millisecond each: between chunks other threads get the interpreter
_QUOTE = ord('"')
_IS_STRUCTURE = np.zeros(256, dtype=bool)
_IS_STRUCTURE[list(STRUCTURE)] = True


def has_too_much_structure(body: bytes, limit: int = MAX_STRUCTURE) -> bool:
    """Whether there are more than `limit` of `, [ { :` outside of strings. `body`: UTF-8, valid JSON or not."""
    if not _may_have_too_much(body, limit):
        return False
    count, inside, is_escaped = 0, False, False  # the two carried over from chunk to chunk
    for start in range(0, len(body), CHUNK_BYTES):
        chunk = body[start : start + CHUNK_BYTES]
        if is_escaped:
            chunk = b"_" + chunk[1:]
        is_escaped = (len(chunk) - len(chunk.rstrip(b"\\"))) % 2 == 1
        if b"\\" in chunk:  # an escaped quote ends no string
            chunk = chunk.replace(b"\\\\", b"__").replace(b'\\"', b"__")
        values = np.frombuffer(chunk, np.uint8)
        is_inside = np.logical_xor.accumulate(values == _QUOTE)
        outside = is_inside if inside else ~is_inside
        count += int(np.count_nonzero(_IS_STRUCTURE[values] & outside))
        if count > limit:
            return True
        inside ^= bool(is_inside[-1])
    return False


def _may_have_too_much(body: bytes, limit: int) -> bool:
    """Counted inside of strings too, which is far quicker: a picture in base64 has none."""
    count = 0
    for start in range(0, len(body), CHUNK_BYTES):
        values = np.frombuffer(body, np.uint8, min(CHUNK_BYTES, len(body) - start), start)
        count += sum(int(np.count_nonzero(values == one)) for one in STRUCTURE)
        if count > limit:
            return True
    return False
