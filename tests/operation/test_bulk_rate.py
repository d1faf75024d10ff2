"""How fast: in one process against 16 clients over HTTP, and whether the window finds what a busy service can take.
`make prove-bulk`, which also draws docs/images/bulk-window.png anew."""

from __future__ import annotations

import asyncio
import statistics
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from app.bulk.failing import Listed
from app.bulk.jobs import CaptionJob
from app.bulk.plan import Picture, Plan
from app.bulk.progress import Progress
from app.bulk.session import Work, ask_all
from app.bulk.window import Window
from app.bulk.writers.lines import JsonLines
from app.start.bulk import Options
from bench.plots import plot_window
from bench.service import free_port, running, running_service
from blip_client import AsyncClient
from tests.operation.bulk.pictures import shapes
from tests.operation.test_bulk import begin

NUM_PICTURES, NUM_CLIENTS, NUM_PAIRS = 1000, 16, 3
PLACES, SECONDS_EACH = (
    (16, 6, 16),
    0.2,
)  # how many requests the busy service takes at a time in each phase, and how long
PHASE_SECONDS, LEARNING_SECONDS = 20.0, 5.0
SHORT_QUEUE, SHORT_RUN = 8, 800
FIXED = (4, 8, 16, 32)  # requests at a time, of a user who tries what is best
PLOT = Path("docs/images/bulk-window.png")
pytestmark = pytest.mark.timeout(1800)

Figure = Callable[[str], None]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, root: Path) -> Path:
    monkeypatch.setenv("PYTHONPATH", str(root))
    made = tmp_path / "p"
    made.mkdir()
    for number in range(NUM_PICTURES):
        shapes(number).save(made / f"{number:04}.png")
    return made


def test_in_one_process_it_is_as_fast_as_over_http(folder: Path, figure: Figure) -> None:
    """Each picture once, so that no features are cached; in turns, so that both have the same machine."""
    pairs = []
    for number in range(NUM_PAIRS):
        with running_service(profile="demo") as service:
            over_http = asyncio.run(rate_of_clients(service.url, sorted(folder.iterdir())))
        alone = rate_told(folder, folder.parent / f"{number}.jsonl")
        pairs.append((alone, over_http))
    ratio = statistics.median(alone / over_http for alone, over_http in pairs)
    told = ", ".join(f"{alone:.1f} / {over_http:.1f}" for alone, over_http in pairs)
    figure(f"in one process / {NUM_CLIENTS} clients over HTTP, captions/s: {told}; median ratio {ratio:.2f}")
    assert ratio >= 0.95


def rate_told(folder: Path, output: Path) -> float:
    process = begin(str(folder), "-o", str(output))
    _, err = process.communicate()
    assert process.returncode == 0, err
    return float(err.split(" img/s")[0].split()[-1])


async def rate_of_clients(url: str, pictures: Iterable[Path]) -> float:
    paths = iter(pictures)

    async def client() -> None:
        async with AsyncClient(url) as one:
            for path in paths:
                await one.caption(path)

    began = time.monotonic()
    await asyncio.gather(*(client() for _ in range(NUM_CLIENTS)))
    return NUM_PICTURES / (time.monotonic() - began)


# --- the window ---


class Seen(Window):
    def __init__(self, most: int, first: float = 4.0) -> None:
        super().__init__(most, first)
        self.began = time.monotonic()
        self.sizes: list[tuple[float, float]] = []
        self.answers: list[float] = []
        self.num_refused = 0

    def answered(self, ticket: int) -> None:
        super().answered(ticket)
        self._note()
        self.answers.append(self.sizes[-1][0])

    def refused(self, ticket: int) -> None:
        super().refused(ticket)
        self.num_refused += 1
        self._note()

    def _note(self) -> None:
        self.sizes.append((time.monotonic() - self.began, self.size))


class Fixed(Seen):
    """As many at a time as it is told: what a user would have to find by trying."""

    def __init__(self, most: int) -> None:
        super().__init__(most, first=most)

    def _shrink(self, ticket: int, size: float) -> None:  # noqa: ARG002
        self.in_flight -= 1


async def ask(url: str, paths: Iterable[str], window: Window, output: Path) -> float:
    """As the command does it, with this window. Returns captions a second."""
    options = Options("caption", (), url=url)
    with Plan() as plan:
        for path in paths:
            plan.add(Picture(path))
        writer, failures = JsonLines(str(output), overwrite=True), Listed(f"{output}.failures")
        writer.open()
        work = Work(options, CaptionJob(options), plan, writer, failures, Progress(quiet=True), window)
        began = time.monotonic()
        assert await ask_all(work) == 0
        writer.close()
        assert work.progress.num_written == plan.num_to_do
        return work.progress.num_written / (time.monotonic() - began)


def test_the_window_finds_what_a_busy_service_takes(folder: Path, figure: Figure, root: Path) -> None:
    """A service that takes so many requests at a time, then fewer, then more, and refuses the others."""
    places, port, window = folder.parent / "places", free_port(), Seen(64)
    places.write_text(f"{PLACES[0]}")
    links = [folder / f"link-{number:05}.png" for number in range(int(sum(PLACES) * PHASE_SECONDS / SECONDS_EACH))]
    for link in links:
        link.symlink_to("0000.png")

    async def change() -> None:
        for most in PLACES:
            places.write_text(f"{most}")
            await asyncio.sleep(PHASE_SECONDS)

    async def both(url: str) -> None:
        window.began = time.monotonic()
        changing = asyncio.create_task(change())
        await ask(url, map(str, links), window, folder.parent / "out.jsonl")
        changing.cancel()

    command = [
        sys.executable,
        "-m",
        "tests.operation.bulk.services",
        "narrow",
        str(port),
        str(places),
        str(SECONDS_EACH),
    ]
    with running(command, port, "/models") as narrow:
        asyncio.run(both(narrow.url))
    found = []
    for number, most in enumerate(PLACES):
        began, end = number * PHASE_SECONDS + LEARNING_SECONDS, (number + 1) * PHASE_SECONDS
        rate = sum(began <= when < end for when in window.answers) / (end - began)
        found.append((rate, most / SECONDS_EACH))
    told = ", ".join(f"{rate:.1f} of {most:.0f}" for rate, most in found)
    figure(f"answers/s that the window found, of what the service could take: {told}; {window.num_refused} refused")
    plot_window(window.sizes, window.answers, PLACES, PHASE_SECONDS, SECONDS_EACH, root / PLOT)
    assert all(rate >= 0.9 * most for rate, most in found)


def test_the_window_does_as_well_as_the_best_fixed_number(folder: Path, figure: Figure) -> None:
    """Of a real service with a short queue. It is new each time, as it keeps the features of what it has seen. Each is
    measured several times in turn, as the machine's own changes are as large as what is compared."""
    measured: dict[int, list[float]] = {most: [] for most in (*FIXED, 64)}
    for number, most in enumerate([*measured] * NUM_PAIRS):
        window = Fixed(most) if most in FIXED else Seen(most)
        with running_service(profile="demo", max_queue_items=SHORT_QUEUE) as service:
            paths = [str(path) for path in sorted(folder.iterdir())[:SHORT_RUN]]
            measured[most].append(asyncio.run(ask(service.url, paths, window, folder.parent / f"{number}.jsonl")))
    *fixed, found = map(statistics.median, measured.values())
    told = ", ".join(f"{rate:.1f} with {most}" for most, rate in zip(FIXED, fixed, strict=True))
    figure(f"captions/s of a service with a queue of {SHORT_QUEUE}: {told} at a time; {found:.1f} with the window")
    assert found >= 0.9 * max(fixed)
