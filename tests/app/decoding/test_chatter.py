"""What decoders write to stderr: few lines, and nothing of a client's."""

from __future__ import annotations

import logging
import os

import pytest

from app.decoding.chatter import Allowance, Chatter, cleaned
from tests.app.support import run, until


def test_so_many_lines_in_each_period() -> None:
    allowance = Allowance(most=2, period_seconds=60)
    assert [allowance.take(now) for now in (5, 6, 7, 8, 64)] == [0, 0, None, None, None]
    assert [allowance.take(now) for now in (65, 66, 67)] == [3, 0, None]
    assert allowance.take(1000) == 1


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (
            b"TIFFReadDirectory: Warning, Unknown field with tag 37724.",
            "TIFFReadDirectory: Warning, Unknown field with tag 37724.",
        ),
        (b"cannot open /home/someone/picture.tif here", "cannot open (path) here"),
        (b"a\x1b[31mred\x07 \xc3\xa9", "a?[31mred? ??"),
        (b"x" * 1000, "x" * 200),
    ],
)
def test_a_line_is_cleaned(line: bytes, expected: str) -> None:
    assert cleaned(line) == expected


def test_lines_of_the_pipe_are_logged_one_by_one(caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        chatter = Chatter()
        await chatter.start()
        os.write(chatter.descriptor, b"first\nsecond\n\nthi")
        os.write(chatter.descriptor, b"rd\n" + b"more\n" * 20 + b"y" * 5000)

        async def all_read() -> bool:
            return len(caplog.messages) == 10

        await until(all_read)
        chatter.close()

    with caplog.at_level(logging.WARNING, "blip.decoding"):
        run(test)
    assert caplog.messages == [f"a decoder says: {word}" for word in ("first", "second", "third", *["more"] * 7)]
    assert {record.name for record in caplog.records} == {"blip.decoding"}
