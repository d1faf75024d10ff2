"""Decoders' processes: what they answer, what they survive, and that they end."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from math import inf
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from app.decoding.drawing import cut_out
from app.decoding.drawings import Heat, Masks
from app.decoding.picture import finish, open_picture
from app.decoding.pool import Decoders, Patience
from app.decoding.process import MAPPED_BYTES, DecoderProcess
from app.decoding.protocol import HEAD, OPENED, Buffer, Decoded, Job, Kind, frame
from app.errors import BadImageError, BytesFullError, UnsupportedMediaError
from app.images import FORMATS
from app.metrics import Metrics
from models.framing import Fit, Framing
from tests.app.decoding import crafted
from tests.app.support import RED, encoded, picture, run, until

ROOT = Path(__file__).parents[3]
NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8))
PHOTO = encoded(NOISE.resize((640, 480)), "JPEG")
SLOW = crafted.bmp_runs(800, 800, b"\1\1\0\0" * 800)  # tens of milliseconds
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="signals and /proc")


def job(data: bytes, **options: Any) -> Job:
    usual: dict[str, Any] = {"framing": Framing(48), "max_pixels": 50_000_000, "max_side": 16_384}
    return Job(data, **(usual | options))


@dataclass(slots=True)
class Held:
    """The bytes that decodes hold; `begin` is called when one is about to."""

    begin: Callable[[], None] = lambda: None
    now: int = 0
    seen: list[int] = field(default_factory=list)
    room: float = inf  # for answers

    @contextmanager
    def __call__(self, num_bytes: int, answer_bytes: int) -> Iterator[None]:
        if answer_bytes > self.room:
            raise BytesFullError("Too many bytes are in flight.")
        num_bytes += answer_bytes
        self.seen.append(num_bytes)
        self.now += num_bytes
        self.begin()
        try:
            yield
        finally:
            self.now -= num_bytes


@dataclass(slots=True)
class Lab:
    decoders: Decoders
    metrics: Metrics
    held: Held

    async def decode(self, data: bytes, **options: Any) -> Decoded:
        return await self.decoders.decode(job(data, **options), self.held)

    async def outcome(self, data: bytes) -> Decoded | BaseException:
        return (await asyncio.gather(self.decode(data), return_exceptions=True))[0]

    def count(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(f"blip_{name}", labels) or 0.0

    async def stopped(self, data: bytes) -> asyncio.Task[Decoded]:
        """A decode whose process stops in the middle."""
        self.held.begin = lambda: os.kill(self.busy, signal.SIGSTOP)
        task = asyncio.create_task(self.decode(data))

        async def held() -> bool:
            return self.held.now > 0

        await until(held)
        self.held.begin = lambda: None
        return task

    async def until_free(self, number: int = 2) -> None:
        async def so_many() -> bool:
            return self.decoders.num_free == number

        await until(so_many)

    async def until_killed(self, reason: str) -> None:
        async def killed() -> bool:
            return self.count("decoders_killed_total", reason=reason) >= 1

        await until(killed)
        await self.until_free()

    @property
    def busy(self) -> int:
        """The process that has the picture, where there is one."""
        [pid] = self.decoders.busy_pids
        return pid


@asynccontextmanager
async def lab(**patience: float) -> AsyncIterator[Lab]:
    metrics = Metrics()
    # A busy machine may be late to say that it has a picture: only where that is tested does it matter.
    decoders = Decoders(2, metrics, Patience(**({"acknowledge_seconds": 10.0} | patience)))
    await decoders.start()
    our = Lab(decoders, metrics, Held())
    try:
        await our.until_free()
        yield our
    finally:
        await decoders.close()


# --- answers ---


def test_decoders_that_had_nothing_to_do_are_not_held() -> None:
    """All of them get a picture at once, after a minute without any."""

    async def test() -> None:
        async with lab() as our:
            our.decoders._freed_at -= 60
            tasks = [asyncio.create_task(our.decode(SLOW)) for _ in range(2)]
            await asyncio.sleep(0)
            assert our.decoders.num_free == 0
            assert our.decoders.sickness() is None
            await asyncio.gather(*tasks)

    run(test)


def test_pixels_are_those_of_this_process() -> None:
    async def test() -> None:
        async with lab() as our:
            for kind in (one for one in FORMATS if one != "HEIF"):  # which is only read
                data = encoded(NOISE, kind)
                expected = finish(open_picture(job(data)), job(data))
                decoded = await our.decode(data)
                assert decoded.image.tobytes() == expected.image.tobytes(), kind
                assert decoded.image.size == (48, 48)
                assert 0 <= decoded.decoded - decoded.began < 60
            assert our.held.seen[0] == 4 * 60 * 40
            assert our.held.now == 0

    run(test)


FRAMINGS = [Framing(33, Fit.SQUEEZE, 40, Image.Resampling.BILINEAR), Framing(48, Fit.CROP, 64), Framing(48, Fit.PAD)]


def test_every_framing_is_that_of_this_process() -> None:
    async def test() -> None:
        async with lab() as our:
            for how in FRAMINGS:
                decoded = await our.decode(PHOTO, framing=how)
                expected = finish(open_picture(job(PHOTO, framing=how)), job(PHOTO, framing=how))
                assert decoded.image.tobytes() == expected.image.tobytes(), how
                assert np.asarray(decoded.image).shape == (how.side, how.side, 3)

    run(test)


@pytest.mark.parametrize("size", [(16_000, 160), (160, 16_000)])
def test_a_long_picture_of_which_the_middle_is_taken_has_the_memory_for_it(size: tuple[int, int]) -> None:
    data, how = encoded(NOISE.resize(size), "PNG"), Framing(448, Fit.CROP)

    async def test() -> None:
        async with lab() as our:
            assert (await our.decode(data, framing=how)).image.size == (448, 448)
            assert our.held.seen[-1] > 4 * 44_800 * 448

    run(test)


@pytest.mark.parametrize("size", [(16_000, 160), (160, 16_000), (3000, 2000), (40, 40)])
def test_a_picture_that_is_padded_has_the_memory_for_it(size: tuple[int, int]) -> None:
    data, how = encoded(NOISE.resize(size), "PNG"), Framing(960, Fit.PAD)

    async def test() -> None:
        async with lab() as our:
            assert np.asarray((await our.decode(data, framing=how)).image).shape == (960, 960, 3)

    run(test)


def test_a_large_upload_and_the_setting_that_reduces() -> None:
    data = encoded(NOISE.resize((1600, 1200)), "BMP")

    async def test() -> None:
        async with lab() as our:
            assert (await our.decode(data)).image.size == (48, 48)
            large = encoded(NOISE.resize((1600, 1200)), "JPEG")
            await our.decode(large, enough_side=48)
            assert our.held.seen[-1] == 4 * 200 * 150

    run(test)


@pytest.mark.parametrize(
    ("data", "error", "told"),
    [
        (b"a text", UnsupportedMediaError, "Not an image"),
        (RED[:60], BadImageError, "cannot be decoded"),
        (crafted.png(crafted.chunk(b"abCd") * 1001), BadImageError, "1000 chunks"),
        (encoded(picture(size=(20, 30_000))), BadImageError, "20 x 30000"),
    ],
)
def test_refusals_are_those_of_the_picture(data: bytes, error: type[Exception], told: str) -> None:
    async def test() -> None:
        async with lab() as our:
            with pytest.raises(error, match=told):
                await our.decode(data)
            assert np.asarray((await our.decode(RED)).image)[5, 5].tolist() == [255, 0, 0]
            assert our.count("decoders_crashed_total") == 0

    run(test)


def test_many_at_once() -> None:
    async def test() -> None:
        async with lab() as our:
            results = await asyncio.gather(*(our.decode(PHOTO) for _ in range(30)))
            assert len({result.image.tobytes() for result in results}) == 1
            assert our.decoders.num_free == 2

    run(test)


@dataclass(slots=True)
class Listener:
    """In place of the pool."""

    said: list[tuple[Kind, bytes]] = field(default_factory=list)

    def heard(self, _: DecoderProcess, kind: Kind, payload: Buffer) -> None:
        self.said.append((kind, bytes(payload)))

    def lost(self, decoder: DecoderProcess) -> None:
        decoder.buried.set_result(None)


@pytest.mark.parametrize(
    ("garbage", "understood"),
    [
        (b"\x63\0\0\0\0", 0),
        (frame(Kind.TAKEN) + b"\x63\0\0\0\1x", 1),
        (HEAD.pack(Kind.REFUSED, 5000), 0),
        (frame(Kind.OPENED, bytes(16)) + HEAD.pack(Kind.DONE, 2**31), 1),
    ],
)
def test_what_cannot_be_read_ends_a_decoder(garbage: bytes, understood: int) -> None:
    async def test() -> None:
        listener = Listener()
        decoder = DecoderProcess(listener, log=2)
        await decoder.connect()
        for byte in garbage + RED:
            decoder.get_buffer(-1)[:1] = bytes([byte])
            decoder.buffer_updated(1)
        assert decoder.killed_because == "garbled"
        assert len(listener.said) == understood
        assert await decoder.end() == -signal.SIGKILL
        await decoder.buried

    run(test)


# --- memory ---


def test_a_frame_that_is_larger_than_the_header_says() -> None:
    async def test() -> None:
        async with lab() as our:
            with pytest.raises(BadImageError, match=r"broken|memory"):
                await our.decode(crafted.avif_with_inner_frame(6000))
            assert our.held.seen == [16 * 64 * 64]
            assert (await our.decode(RED)).image

    run(test)


# --- time ---


def test_dear_pictures_leave_a_decoder_to_the_others() -> None:
    """Two are dear: one of them waits, and a cheap one does not."""

    async def test() -> None:
        async with lab(dear_seconds=0.01) as our:
            dear = [await our.stopped(SLOW), asyncio.create_task(our.decode(SLOW))]

            async def one_waits() -> bool:
                return our.count("decodes_waiting") == our.decoders.num_free == 1

            await until(one_waits)
            assert our.count("decoders_dear") == 1
            assert (await our.decode(PHOTO)).image
            os.kill(our.busy, signal.SIGCONT)
            assert [one.image.size for one in await asyncio.gather(*dear)] == [(48, 48)] * 2
            assert our.held.now == 0

    run(test)


def test_what_takes_longer_than_it_seemed_begins_again_among_the_dear() -> None:
    async def test() -> None:
        async with lab(cheap_cpu_seconds=0.01) as our:
            assert (await our.decode(SLOW)).image
            assert len(our.held.seen) == 2
            await our.until_killed("overran")

    run(test)


def test_too_much_of_the_cpu() -> None:
    async def test() -> None:
        async with lab(dear_seconds=0.01, dear_cpu_seconds=0.01) as our:
            with pytest.raises(BadImageError, match="takes too long"):
                await our.decode(SLOW)
            await our.until_killed("overran")

    run(test)


def test_too_long_by_the_clock() -> None:
    async def test() -> None:
        async with lab(decode_seconds=0.05) as our:
            our.held.begin = lambda: os.kill(our.busy, signal.SIGSTOP)
            with pytest.raises(BadImageError, match="takes too long"):
                await our.decode(PHOTO)
            await our.until_killed("timeout")
            assert our.held.now == 0

    run(test)


# --- pictures that are drawn over ---

HEAT = Heat(2, 2, bytes([255, 0, 0, 0]))
SQUARE = bytes(3 * 8 * 8)
MASKS = Masks(32, 32, 2, 2, bytes(8))
CUT_OUT = cut_out(MASKS)


@pytest.mark.parametrize(
    ("answer", "fields"),
    [
        (b"", {}),
        (SQUARE[:-1], {}),
        (2 * SQUARE, {}),
        (4 * SQUARE, {"most_frames": 3}),
        (RED, {}),
        (SQUARE, {"drawing": HEAT}),
        (b"", {"drawing": HEAT}),
        (RED[:20], {"drawing": HEAT}),
        (RED[:-1], {"drawing": HEAT}),
        (RED + b"<script>", {"drawing": HEAT}),
        (b"<svg>" + RED, {"drawing": HEAT}),
        (encoded(NOISE.resize((31, 32))), {"drawing": HEAT}),
        (b"", {"drawing": MASKS}),
        (CUT_OUT.splitlines()[0], {"drawing": MASKS}),
        (2 * b"PHN2Zz4=\n", {"drawing": MASKS}),
        (CUT_OUT.replace(b"AAA", b"\xff\xff\xff"), {"drawing": MASKS}),
        (SQUARE, {"max_pixels": 1000}),
        (SQUARE, {"max_side": 31}),
        (SQUARE, {"framing": Framing(8, Fit.PAD)}),
        (np.full(3 * 8 * 8, np.nan, np.float32).tobytes(), {"framing": Framing(8, Fit.PAD)}),
        (np.full(3 * 8 * 8, 1.5, np.float32).tobytes(), {"framing": Framing(8, Fit.PAD)}),
    ],
)
def test_what_cannot_be_the_answer_to_a_job_is_not_believed(answer: bytes, fields: dict[str, Any]) -> None:
    """To one of a picture of 32 x 32 pixels."""
    limits = {"framing": Framing(8), "max_pixels": 32 * 32, "max_side": 32}
    for more, right in (
        ({}, SQUARE),
        ({"most_frames": 3}, 3 * SQUARE),
        ({"framing": Framing(8, Fit.PAD)}, np.ones(3 * 8 * 8, np.float32).tobytes()),
        ({"drawing": HEAT}, RED),
        ({"drawing": MASKS}, CUT_OUT),
    ):
        job(RED, **limits | more).check((32, 32), memoryview(right))
    with pytest.raises((ValueError, struct.error)):
        job(RED, **limits | fields).check((32, 32), memoryview(answer))


def test_a_picture_that_is_small_leaves_no_room_for_another() -> None:
    asked, one = job(RED, framing=Framing(8, Fit.WHOLE, 24)), bytes(3 * 32 * 8)
    asked.check((32, 8), memoryview(one))
    assert 2 * len(one) < asked.most_bytes
    with pytest.raises(ValueError, match="pixels"):
        asked.check((32, 8), memoryview(2 * one))


@pytest.mark.parametrize(("drawing", "answer_bytes"), [(None, 2**40), (HEAT, 0)])
def test_a_decoder_that_promises_what_nobody_wants_is_not_believed(drawing: Heat | None, answer_bytes: int) -> None:
    """It could answer as much, and the service would take it for frames."""

    async def test() -> None:
        async with lab() as our:
            for pid in our.decoders.pids:
                os.kill(pid, signal.SIGSTOP)
            asking = asyncio.create_task(our.decode(RED, drawing=drawing))
            await asyncio.sleep(0)
            [decoder] = [one for one in our.decoders._decoders if one.ticket is not None]
            with pytest.raises(ValueError, match="drawing"):
                our.decoders.heard(decoder, Kind.OPENED, OPENED.pack(1000, answer_bytes, 0.0))
            for pid in our.decoders.pids:
                os.kill(pid, signal.SIGCONT)
            assert (await asking).data  # of one that says what is right

    run(test)


def test_a_drawing_is_that_of_this_process() -> None:
    """Also one that is larger than the heap takes."""

    async def test() -> None:
        async with lab() as our:
            for data in (PHOTO, encoded(NOISE.resize((1200, 800)).effect_spread(3))):
                asked = job(data, framing=Framing(0), drawing=HEAT)
                opened = open_picture(asked)
                expected = finish(opened, asked).data
                drawn = await our.decoders.decode(asked, our.held)
                assert bytes(drawn.data) == expected
                assert our.held.seen[-1] == opened.num_bytes + opened.answer_bytes
                assert our.held.now == 0
            assert len(expected) > MAPPED_BYTES
            assert (await our.decode(RED)).image.size == (48, 48)

    run(test)


def test_a_drawing_for_which_there_is_no_room_costs_no_decoder() -> None:
    async def test() -> None:
        async with lab() as our:
            before = set(our.decoders.pids)
            our.held.room = 1000
            with pytest.raises(BytesFullError):
                await our.decode(PHOTO, drawing=HEAT)
            await our.until_free()
            assert (set(our.decoders.pids), our.held.now) == (before, 0)
            assert (await our.decode(PHOTO)).image  # which has no answer that is large

    run(test)


def test_a_drawing_is_as_dear_as_its_pixels() -> None:
    asked = job(encoded(picture("red", (2400, 2000))))
    plain, drawn = open_picture(asked), open_picture(replace(asked, drawing=HEAT))
    assert plain.seconds < Patience().dear_seconds < drawn.seconds
    assert plain.answer_bytes == 0
    assert drawn.num_bytes - drawn.answer_bytes >= plain.num_bytes


# --- who leaves ---


def test_killed_when_nobody_waits_any_more() -> None:
    async def test() -> None:
        async with lab(grace_seconds=0.01) as our:
            before = set(our.decoders.pids)
            task = await our.stopped(PHOTO)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await our.until_killed("cancelled")
            assert our.held.now == 0, "held until the process had ended"
            assert len(set(our.decoders.pids) & before) == 1

    run(test)


def test_who_leaves_while_it_finishes_costs_no_decoder() -> None:
    async def test() -> None:
        async with lab(grace_seconds=60.0) as our:
            before = set(our.decoders.pids)
            tasks = [asyncio.create_task(our.decode(PHOTO)) for _ in range(6)]
            await asyncio.sleep(0)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            assert our.count("decodes_waiting") == 0
            await our.until_free()
            assert (set(our.decoders.pids), our.held.now) == (before, 0)

    run(test)


# --- crashes ---


@pytest.mark.parametrize("kind", [signal.SIGSEGV, signal.SIGABRT, signal.SIGKILL])
def test_a_crash_is_its_picture_s(kind: signal.Signals) -> None:
    async def test() -> None:
        async with lab() as our:
            our.held.begin = lambda: os.kill(our.busy, kind)
            with pytest.raises(BadImageError, match="crashed"):
                await our.decode(PHOTO)
            our.held.begin = lambda: None
            assert our.held.now == 0
            assert (await our.decode(PHOTO)).image
            await our.until_free()
            assert our.count("decoders_crashed_total") == 1

    run(test)


def test_who_ends_without_a_picture_is_replaced_and_fails_nobody() -> None:
    async def test() -> None:
        async with lab() as our:
            for pid in our.decoders.pids:
                os.kill(pid, signal.SIGKILL)
            assert (await our.decode(PHOTO)).image
            await our.until_free()
            assert our.count("decoders_crashed_total") == 2

    run(test)


# --- silence ---


def test_one_that_is_stopped_holds_nobody_up() -> None:
    async def test() -> None:
        async with lab(acknowledge_seconds=0.025, silent_seconds=0.5) as our:
            os.kill(our.decoders.pids[0], signal.SIGSTOP)
            results = await asyncio.gather(*(our.outcome(PHOTO) for _ in range(20)))
            assert [type(result) for result in results] == [Decoded] * 20
            await our.until_killed("silent")
            assert our.held.now == 0

    run(test)


def test_one_that_was_silent_and_speaks_again_is_kept() -> None:
    async def test() -> None:
        async with lab(acknowledge_seconds=0.01, silent_seconds=60.0) as our:
            before = set(our.decoders.pids)
            for pid in before:
                os.kill(pid, signal.SIGSTOP)
            task = asyncio.create_task(our.decode(PHOTO))

            async def given_to_both() -> bool:
                return len(our.decoders.busy_pids) == 2

            await until(given_to_both)
            for pid in before:
                os.kill(pid, signal.SIGCONT)
            assert (await task).image
            await our.until_free()
            assert set(our.decoders.pids) == before
            assert len(our.held.seen) == 1, "one of them went on"

    run(test)


def test_sickness_when_all_are_held() -> None:
    async def test() -> None:
        async with lab(held_seconds=0.05, grace_seconds=0.0) as our:
            assert our.decoders.sickness() is None
            for pid in our.decoders.pids:
                os.kill(pid, signal.SIGSTOP)
            tasks = [asyncio.create_task(our.decode(PHOTO)) for _ in range(2)]

            async def sick() -> bool:
                return our.decoders.sickness() is not None

            await until(sick)
            assert our.count("decoders_busy") == 2
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await our.until_free()
            assert our.decoders.sickness() is None

    run(test)


# --- processes ---


def test_they_inherit_neither_listeners_nor_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BLIP_API_KEYS", "a-secret")
    monkeypatch.setenv("HF_TOKEN", "a-secret")

    async def test() -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            listener.set_inheritable(True)
            async with lab() as our:
                for pid in our.decoders.pids:
                    check(Path(f"/proc/{pid}"))

    def check(process: Path) -> None:
        opened = [str(one.readlink()) for one in (process / "fd").iterdir()]
        assert sum(name.startswith("socket:") for name in opened) == 1
        assert b"a-secret" not in (process / "environ").read_bytes()

    run(test)


def test_signals_to_all_do_not_end_them() -> None:
    async def test() -> None:
        async with lab() as our:
            before = set(our.decoders.pids)
            for pid in before:
                for kind in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                    os.kill(pid, kind)
            assert (await our.decode(PHOTO)).image
            assert set(our.decoders.pids) == before

    run(test)


def test_none_is_left_after_close() -> None:
    async def test() -> list[int]:
        async with lab() as our:
            task = await our.stopped(PHOTO)
            pids = our.decoders.pids
        assert task.cancelled()
        return pids

    assert not any(Path(f"/proc/{pid}").exists() for pid in run(test))


PARENT = """
import asyncio, os, signal, sys
from app.decoding.pool import Decoders
from app.metrics import Metrics

async def main():
    decoders = Decoders(2, Metrics())
    await decoders.start()
    while decoders.num_free < 2:
        await asyncio.sleep(0.002)
    print(*decoders.pids, flush=True)
    if sys.argv[1] == "exit":
        os._exit(0)
    os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""


@pytest.mark.parametrize("how", ["exit", "kill"])
def test_no_orphans(how: str) -> None:
    """However the service ends."""
    done = subprocess.run([sys.executable, "-c", PARENT, how], cwd=ROOT, capture_output=True, text=True, check=False)
    pids = done.stdout.split()
    assert len(pids) == 2, done.stderr
    while any(is_running(pid) for pid in pids):
        pass  # the suite's time limit bounds it


def is_running(pid: str) -> bool:
    """An orphan that nobody has waited for yet is not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_what_libtiff_complains_about_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    data = encoded(NOISE, "TIFF", compression="tiff_lzw")
    damaged = data[:200] + bytes(2000) + data[2200:]

    async def test() -> None:
        async with lab() as our:
            await our.outcome(damaged)

            async def told() -> bool:
                return bool(caplog.messages)

            await until(told)

    with caplog.at_level(logging.WARNING, "blip.decoding"):
        run(test)
    assert caplog.messages[0].startswith("a decoder says: ")
