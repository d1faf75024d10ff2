"""Which pictures are found, and what is passed over."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from app.bulk.finding import Finder, MissingError
from app.bulk.plan import ClashError, Picture, Plan


@pytest.fixture
def told() -> list[str]:
    return []


@pytest.fixture
def finder(told: list[str]) -> Finder:
    return Finder(told.append, recursive=True)


def touch(*names: str) -> None:
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()


def test_a_link_to_a_folder_is_followed(finder: Finder, told: list[str]) -> None:
    touch("elsewhere/b.png", "p/a.png")
    Path("p/link").symlink_to("../elsewhere")
    assert sorted(finder.find("p")) == ["p/a.png", "p/link/b.png"]
    assert told == []


@pytest.mark.parametrize("target", ["..", ".", "../.."])
def test_a_loop_is_told_and_passed_over(finder: Finder, told: list[str], target: str) -> None:
    touch("p/q/a.png")
    Path("p/q/loop").symlink_to(target)
    found = list(finder.find("p"))
    assert "p/q/a.png" in found
    assert len(found) <= 2
    assert len(told) == 1
    assert "passed over: " in told[0]


def test_links_to_each_other_end(finder: Finder, told: list[str]) -> None:
    names = [f"p/{letter}" for letter in "abcdef"]
    for name in names:
        touch(f"{name}/x.png")
    for name in names:
        for other in names:
            Path(name, f"to-{other[2:]}").symlink_to(f"../{other[2:]}")
    assert len(list(finder.find("p"))) < 100
    assert told


def test_what_cannot_be_read_is_told_and_passed_over(
    finder: Finder, told: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    touch("p/a.png", "p/locked/b.png", "p/z/c.png")
    scandir = os.scandir

    def refusing(path: str) -> object:
        if path == "p/locked":
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    assert sorted(finder.find("p")) == ["p/a.png", "p/z/c.png"]
    assert told == ["p/locked is passed over: Permission denied"]


def test_what_is_no_file(finder: Finder, told: list[str]) -> None:
    touch("p/a.png")
    Path("p/nowhere.png").symlink_to("none.png")
    Path("p/itself.png").symlink_to("itself.png")
    os.mkfifo("p/pipe.png")
    os.mkfifo("p/pipe")
    assert list(finder.find("p")) == ["p/a.png"]
    assert sorted(line.split()[0] for line in told) == ["p/itself.png", "p/nowhere.png", "p/pipe.png"]


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("p/*.png", ["p/a.png"]),
        ("p/*/*.png", ["p/x/b.png"]),
        ("p/**", ["p/a.png", "p/x/b.png", "p/x/y/c.png"]),
        ("p/**/*.png", ["p/a.png", "p/x/b.png", "p/x/y/c.png"]),
        ("**/y/*", ["p/x/y/c.png"]),
        ("p/x/?.png", ["p/x/b.png"]),
        ("p/[ax]*", ["p/a.png", "p/x/b.png", "p/x/y/c.png"]),  # as a shell gives folders, too
    ],
)
def test_patterns(finder: Finder, pattern: str, found: list[str]) -> None:
    touch("p/a.png", "p/a.txt", "p/.hidden.png", "p/x/b.png", "p/x/y/c.png")
    assert sorted(finder.find(pattern)) == found
    root = Path.cwd()
    assert sorted(finder.find(f"{root}/{pattern}")) == [f"{root}/{one}" for one in found]


def test_a_file_whose_name_is_a_pattern(finder: Finder) -> None:
    touch("a[1].png", "a1.png")
    assert list(finder.find("a[1].png")) == ["a[1].png"]
    with pytest.raises(MissingError, match=r"no picture matches b\*"):
        list(finder.find("b*"))


def test_a_name_that_is_no_unicode(finder: Finder) -> None:
    touch("p/\udcff.png")
    (path,) = finder.find("p")
    with Plan() as plan:
        plan.add(Picture(path))
        assert list(plan) == [Picture(path)]
        assert os.fsencode(path) == b"p/\xff.png"


# --- the plan ---


def test_a_plan_has_each_picture_once_in_order() -> None:
    with Plan() as plan:
        plan.mark_done(["p/done.png"])
        for place, path in enumerate(["p/b.png", "p/a.png", "./p/b.png", "p/x/../done.png", "p/there.png"]):
            plan.add(Picture(path), 0 if place < 3 else 1, done="there" in path)
        assert [one.path for one in plan] == ["p/a.png", "p/b.png"]
        assert (plan.num_to_do, plan.num_done) == (2, 2)


def test_pictures_that_would_share_a_caption() -> None:
    with Plan() as plan:
        plan.add(Picture("p/a.jpg"), target="p/a.txt", done=True)
        with pytest.raises(ClashError, match=r"p/a\.jpg and p/a\.png would both have their caption in p/a\.txt"):
            plan.add(Picture("p/a.png"), target="p/a.txt")


def test_texts_of_one_picture_are_joined() -> None:
    with Plan() as plan:
        plan.add(Picture("a.png", ("one", "two")))
        plan.add(Picture("a.png", ("two", "three")))
        plan.add(Picture("a.png"))
        assert list(plan) == [Picture("a.png", ("one", "two", "three"))]
