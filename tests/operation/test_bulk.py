"""Folders in, captions out, whatever happens meanwhile: runs that are killed, a service that is full and dies, a
hundred thousand paths. `make prove-bulk`."""

from __future__ import annotations

import csv
import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from bench.service import RunningService, free_port, running, running_service
from tests.operation.bulk.pictures import make_folder, make_links

NUM_PICTURES, NUM_BROKEN = 500, 10
NUM_PATHS, NUM_FEW_PATHS = 100_000, 1_000
KILLS = (0.3, 0.6)  # of the pictures are done
SECONDS = 600.0
pytestmark = pytest.mark.timeout(1800)

Figure = Callable[[str], None]


@pytest.fixture(scope="module")
def service() -> Iterator[RunningService]:
    with running_service(profile="demo", dtype="fp32") as found:
        yield found


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    folder = tmp_path_factory.mktemp("made") / "p"
    kinds = make_folder(folder, NUM_PICTURES, NUM_BROKEN)
    return folder, {str(Path(path).relative_to(folder)): kind for path, kind in kinds.items()}


@pytest.fixture
def folder(made: tuple[Path, dict[str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, root: Path) -> Path:
    """A copy to write to, `p`, in the present folder."""
    monkeypatch.setenv("PYTHONPATH", str(root))
    monkeypatch.chdir(tmp_path)
    shutil.copytree(made[0], "p")
    return tmp_path


def begin(*words: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "app", "caption", *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def run(*words: str) -> tuple[int, str, str]:
    process = begin(*words)
    out, err = process.communicate(timeout=SECONDS)
    return process.returncode, out, err


def run_killed(words: tuple[str, ...], num_done: Callable[[], int]) -> list[int]:
    """Killed at each of KILLS, and then left alone. Returns how many were done when."""
    done = []
    for part in KILLS:
        process = begin(*words)
        while num_done() < part * NUM_PICTURES and process.poll() is None:
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL, "it ended before it was killed"
        done.append(num_done())
    code, _, err = run(*words)
    assert code == 1, err  # some are broken
    return done


def texts() -> dict[str, str]:
    return {str(path): path.read_text() for path in Path("p").rglob("*.txt")}


def records() -> dict[str, dict[str, Any]]:
    rows = [json.loads(line) for line in Path("out.jsonl").read_text().splitlines()]
    assert len({row["path"] for row in rows}) == len(rows)
    return {row["path"]: row for row in rows}


def table() -> dict[str, list[str]]:
    with Path("out.csv").open(newline="") as file:
        _, *rows = csv.reader(file)
    assert len({row[0] for row in rows}) == len(rows)
    return {row[0]: row[1:] for row in rows}


def image_folder() -> dict[str, str]:
    rows = [json.loads(line) for line in Path("p/metadata.jsonl").read_text().splitlines()]
    assert len({row["file_name"] for row in rows}) == len(rows)
    return {row["file_name"]: row["text"] for row in rows}


def lines(path: str) -> int:
    with suppress(FileNotFoundError):
        return Path(path).read_bytes().count(b"\n")
    return 0


FORMATS: dict[str, tuple[tuple[str, ...], Callable[[], int], Callable[[], dict[str, Any]], tuple[str, ...]]] = {
    "txt": ((), lambda: len(texts()), texts, ()),
    "jsonl": (("-o", "out.jsonl"), lambda: lines("out.jsonl"), records, ("out.jsonl",)),
    "csv": (("-o", "out.csv"), lambda: lines("out.csv"), table, ("out.csv",)),
    "imagefolder": (
        ("--output-format", "imagefolder"),
        lambda: lines("p/metadata.jsonl"),
        image_folder,
        ("p/metadata.jsonl",),
    ),
}


@pytest.mark.parametrize("kind", FORMATS)
def test_a_run_that_is_killed_twice_equals_an_unbroken_one(
    folder: Path, made: tuple[Path, dict[str, str]], service: RunningService, figure: Figure, kind: str
) -> None:
    flags, num_done, read, outputs = FORMATS[kind]
    words = ("-r", "p", "--url", service.url, *flags)
    code, _, err = run(*words)
    assert code == 1, err
    unbroken, failures, tree = read(), Path("failures.jsonl").read_text(), files(folder)
    for path in (*outputs, "failures.jsonl", *texts()):
        Path(path).unlink()
    done = run_killed(words, num_done)
    assert without_confidence(read()) == without_confidence(unbroken)
    assert files(folder) == tree
    broken = {f"p/{path}" for path, kind in made[1].items() if kind == "broken"}
    assert {json.loads(line)["path"] for line in failures.splitlines()} == broken
    assert {json.loads(line)["path"] for line in Path("failures.jsonl").read_text().splitlines()} == broken
    assert len(unbroken) == len(made[1]) - NUM_BROKEN
    kinds = len(set(made[1].values())) - 1
    figure(
        f"{kind}: {len(made[1])} pictures of {kinds} formats, {len(broken)} broken; killed at {done}; equal, none twice"
    )


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def without_confidence(found: dict[str, Any]) -> dict[str, Any]:
    """Which batches a picture shares changes the last digits."""

    def rounded(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: rounded(one) for name, one in value.items()}
        if isinstance(value, list):
            return [rounded(one) for one in value]
        try:
            return round(float(value), 3)
        except ValueError:
            return value

    return rounded(found)


@pytest.mark.usefixtures("folder")
def test_a_run_in_its_own_process_that_is_killed_twice(service: RunningService, figure: Figure) -> None:
    assert run("-r", "p", "--url", service.url)[0] == 1
    over_http = texts()
    for path in over_http:
        Path(path).unlink()
    done = run_killed(("-r", "p", "--dtype", "fp32"), lambda: len(texts()))
    assert texts() == over_http
    figure(f"in one process: killed at {done}; the texts equal those over HTTP")


@pytest.mark.usefixtures("folder")
def test_a_service_that_is_full_and_dies(service: RunningService, figure: Figure, tmp_path: Path) -> None:
    assert run("-r", "p", "--url", service.url)[0] == 1
    unbroken = texts()
    port = free_port()
    command = [sys.executable, "-m", "tests.operation.bulk.services", "flaky", str(port), str(tmp_path / "died"), "200"]
    process = None
    with running(command, port, "/health/ready", {"BLIP_DTYPE": "fp32"}) as first:
        process = begin("-r", "p", "--url", first.url, "-o", "out.jsonl")
        first.process.wait(SECONDS)
    assert process.poll() is None
    with running(command, port, "/health/ready", {"BLIP_DTYPE": "fp32"}):
        _, err = process.communicate(timeout=SECONDS)
    assert process.returncode == 1, err
    found = {str(Path(path).with_suffix(".txt")): f"{row['caption']}\n" for path, row in records().items()}
    assert found == unbroken
    assert lines("failures.jsonl") == NUM_BROKEN
    figure(f"a third answered 429, the service killed at its 200th request: {len(found)} captions, none lost or twice")


def test_memory_is_flat(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, root: Path, figure: Figure) -> None:
    monkeypatch.setenv("PYTHONPATH", str(root))
    monkeypatch.chdir(tmp_path)
    port = free_port()
    peaks = {}
    command = [sys.executable, "-m", "tests.operation.bulk.services", "quick", str(port)]
    with running(command, port, "/models") as quick:
        for number in (NUM_FEW_PATHS, NUM_PATHS):
            make_links(tmp_path / f"{number}", number)
            for name in ("new", "resumed"):
                peaks[number, name] = peak_bytes(f"{number}", "--url", quick.url, "-o", f"{number}.jsonl")
                assert lines(f"{number}.jsonl") == number
    for name in ("new", "resumed"):
        few, many = peaks[NUM_FEW_PATHS, name], peaks[NUM_PATHS, name]
        figure(f"memory, {name}: {few / 1e6:.1f} MB for {NUM_FEW_PATHS} paths, {many / 1e6:.1f} MB for {NUM_PATHS}")
        assert many < 1.1 * few


def peak_bytes(*words: str) -> int:
    """The peak of its resident memory, as it was told last."""
    process, peak = begin(*words), 0
    status = Path(f"/proc/{process.pid}/status")
    while process.poll() is None:
        with suppress(OSError):
            told = [line for line in status.read_text().splitlines() if line.startswith("VmHWM")]
            peak = int(told[0].split()[1]) * 1024 if told else peak
        time.sleep(0.02)
    assert process.returncode == 0, process.communicate()[1]
    process.communicate()
    return peak


# --- what others read ---


@pytest.mark.usefixtures("folder")
def test_datasets_loads_the_image_folder(
    service: RunningService, figure: Figure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    assert run("-r", "p", "--url", service.url, "--output-format", "imagefolder")[0] == 1
    script = (
        "from datasets import Image, load_dataset\n"
        "rows = load_dataset('imagefolder', data_dir='p', split='train').cast_column('image', Image(decode=False))\n"
        "print(len(rows), sorted(rows.column_names), sum(bool(row['text']) for row in rows))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    number = lines("p/metadata.jsonl")
    assert done.stdout.split("\n")[-2] == f"{number} ['image', 'text'] {number}"
    figure(f"datasets' imagefolder: {number} rows with image and text")


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("extension", [".txt", ".caption"])
def test_kohyas_trainers_read_the_texts(
    made: tuple[Path, dict[str, str]], service: RunningService, extension: str
) -> None:
    """As read_caption of sd-scripts' library/train_util.py does: the picture's path with the extension in place of its
    own, UTF-8, the first line without the white space around it."""
    assert run("-r", "p", "--url", service.url, "--caption-extension", extension, "--prefix", "photo of ö, ")[0] == 1
    for path, kind in made[1].items():
        text = Path("p", path).with_suffix(extension)
        assert text.is_file() == (kind != "broken"), path
        if kind != "broken":
            first, *others = text.read_text(encoding="utf-8").splitlines()
            assert first.strip().startswith("photo of ö, ")
            assert not others
