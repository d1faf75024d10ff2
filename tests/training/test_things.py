"""What things are called, their pictures, scenes of them, and what can be said and asked of these."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import tarfile
from dataclasses import replace
from pathlib import Path
from random import Random

import numpy as np
import pytest
from PIL import Image
from transformers import AutoTokenizer

from tests.training.things import FORMS, SHADES, made_looks, picture
from training import vocabulary
from training.captions import Caption
from training.scenes import Box
from training.things import names, pictures
from training.things.captions import Phrase, describe, random_caption, spoil
from training.things.colors import seen_color
from training.things.names import Noun, clean, clean_names, noun, table
from training.things.questions import random_question, topic_of
from training.things.scenes import SIZES, UNIT, Mix, Scene, Sprites, Thing, random_scene, sprites
from training.things.words import Words

MIX = Mix((0.3, 0.3, 0.4))
WORDS = Words(tuple(map(noun, FORMS)))
SPRITES = Sprites(sprites(made_looks(), ("google", "twitter"), list(FORMS)))
BALL = Thing(noun("ball"), "red", (Box(2, 2, 14, 14),))
BOXES = Thing(noun("box"), "blue", (Box(30, 30, 40, 40), Box(46, 46, 56, 56)))
PIZZA = Thing(noun("slice of pizza"), None, (Box(20, 40, 60, 62),))
BROCCOLI = Thing(noun("broccoli"), None, (Box(2, 40, 14, 52),))


@pytest.mark.parametrize(
    ("cldr", "name", "color"),
    [
        ("dog face", "dog", None),
        ("oncoming taxi", "taxi", None),
        ("automobile", "car", None),
        ("pizza", "slice of pizza", None),
        ("green apple", "apple", "green"),
        ("closed book", "book", None),
        ("black cat", "cat", "black"),
        ("polar bear", "polar bear", None),
        ("lady beetle", "ladybug", None),
        ("T-Rex", "dinosaur", None),
        ("woman’s boot", "boot", None),  # noqa: RUF001
        ("blowfish", "blowfish", None),
    ],
)
def test_names_as_people_say_them(cldr: str, name: str, color: str | None) -> None:
    assert clean(cldr) == (noun(name), color)


@pytest.mark.parametrize(
    "cldr",
    ["linked paperclips", "one o’clock", "sun behind cloud", "waxing crescent moon", "yen banknote", "e-mail", "moai"],  # noqa: RUF001
)
def test_what_is_no_thing(cldr: str) -> None:
    assert clean(cldr) is None


@pytest.mark.parametrize(
    ("name", "one", "many"),
    [
        ("dog", "a dog", "dogs"),
        ("owl", "an owl", "owls"),
        ("hourglass", "an hourglass", "hourglasses"),
        ("unicorn", "a unicorn", "unicorns"),
        ("umbrella", "an umbrella", "umbrellas"),
        ("slice of pizza", "a slice of pizza", "slices of pizza"),
        ("loaf of bread", "a loaf of bread", "loaves of bread"),
        ("box of fries", "a box of fries", "boxes of fries"),
        ("butterfly", "a butterfly", "butterflies"),
        ("key", "a key", "keys"),
        ("wolf", "a wolf", "wolves"),
        ("computer mouse", "a computer mouse", "computer mice"),
        ("fish", "a fish", "fish"),
        ("tomato", "a tomato", "tomatoes"),
        ("snowman", "a snowman", "snowmen"),
        ("die", "a die", "dice"),
        ("broccoli", "some broccoli", "broccoli"),
        ("chopsticks", "some chopsticks", "chopsticks"),
    ],
)
def test_articles_and_plurals(name: str, one: str, many: str) -> None:
    assert (noun(name).one(), noun(name).many) == (one, many)
    assert noun("apple").one("small", "orange") == "a small orange apple"


def test_two_hundred_clean_things_that_the_tables_know() -> None:
    assert len(clean_names()) == len(set(clean_names())) == 200
    said = {name for name, _ in (clean(one.replace("_", " ")) or (noun(""), None) for one in table()["spoken"])}
    assert {noun(name) for name in ("car", "slice of pizza", "padlock")} <= said
    assert not set(clean_names()) & set(table()["kinds"]["dropped"])


@pytest.mark.parametrize("color", SHADES)
def test_the_colour_of_a_picture(color: str) -> None:
    assert seen_color(picture("ellipse", SHADES[color], 0)) == color
    half = picture("rectangle", SHADES[color], 0)
    half[:, 32:, :3] = (250, 250, 250)
    assert seen_color(half) is None


def test_an_archive_that_is_another_one_is_refused(tmp_path: Path) -> None:
    archive = tmp_path / "a.tgz"
    archive.write_bytes(b"pictures")
    pictures.check(archive, base64.b64encode(hashlib.sha512(b"pictures").digest()).decode())
    with pytest.raises(pictures.PicturesError, match="SHA-512"):
        pictures.check(archive, base64.b64encode(hashlib.sha512(b"others").digest()).decode())
    assert not archive.exists()


def png_of(shade: tuple[int, int, int]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(picture("ellipse", shade, 0)).save(file, "PNG")
    return file.getvalue()


def pack(folder: Path, package: pictures.Package, files: dict[str, bytes]) -> pictures.Package:
    """An archive with `files` in the place of the package's, and the package with its digest."""
    with tarfile.open(folder / package.archive, "w:gz") as archive:
        for name, data in {**files, "package/LICENSE": b"as you like"}.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    digest = hashlib.sha512((folder / package.archive).read_bytes()).digest()
    return replace(package, integrity=base64.b64encode(digest).decode())


def test_things_that_all_styles_have_are_unpacked_with_their_licences(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = {
        "\U0001f436": {"name": "dog face", "group": "Animals & Nature"},
        "\U0001f697": {"name": "automobile", "group": "Travel & Places"},
        "\U0001f600": {"name": "grinning face", "group": "Smileys & Emotion"},
        "\u2600\ufe0f": {"name": "sun", "group": "Travel & Places"},
    }
    red, blue = png_of(SHADES["red"]), png_of(SHADES["blue"])
    of_style = {
        "google": {"1f436.png": red, "1f697.png": red, "1f600.png": red, "2600-fe0f.png": red},
        "twitter": {"1f436.png": red, "1f697.png": blue, "1f600.png": red, "2600.png": red},
        "fluent": {"1f697.png": red, "1f600.png": red, "2600.png": red},  # no dog
    }
    known = {
        style: pack(tmp_path, package, {package.folder + name: data for name, data in of_style[style].items()})
        for style, package in pictures.PACKAGES.items()
        if style in of_style
    }
    names_package = pictures.PACKAGES["names"]
    known["names"] = pack(tmp_path, names_package, {names_package.folder: json.dumps(told).encode()})
    monkeypatch.setattr(pictures, "PACKAGES", known)
    for _ in range(2):  # packed, and unpacked already
        car, sun = pictures.looks(tmp_path)
        assert (car.noun, sun.noun) == (noun("car"), noun("sun"))
        assert car.colors == {"google": "red", "twitter": "blue", "fluent": "red"}
        assert set(sun.colors.values()) == {None}  # nobody says its colour
    assert (tmp_path / "licences" / "google" / "LICENSE").read_bytes() == b"as you like"


def test_without_npm_it_says_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(pictures.PicturesError, match=r"npm could not download emoji-datasource-google 16\.0\.0"):
        pictures.fetch(tmp_path)


def test_a_picture_fills_its_longer_side() -> None:
    image = Image.new("RGBA", (256, 256))
    image.paste((200, 0, 0, 255), (100, 60, 140, 160))
    file = io.BytesIO()
    image.save(file, "PNG")
    seen = pictures.read(file.getvalue())[..., 3] >= 128
    assert seen.any(1).all()
    assert abs(int(seen.any(0).sum()) - 26) <= 1


def test_a_scene_depends_on_its_seed_alone() -> None:
    first, second, other = (random_scene(Random(seed), SPRITES, MIX, 64) for seed in (1, 1, 2))
    assert first.scene == second.scene
    assert np.array_equal(first.pixels, second.pixels)
    assert not np.array_equal(first.pixels, other.pixels)


@pytest.mark.parametrize("side", [64, 96])
def test_masks_and_boxes_are_right_by_the_pixels(side: int) -> None:
    rng = Random(side)
    for _ in range(40):
        drawn = random_scene(rng, SPRITES, MIX, side)
        assert drawn.pixels.shape == (side, side, 3)
        number = 0
        for thing in drawn.scene.shapes:
            for box in thing.boxes:
                number += 1
                rows, columns = np.nonzero(drawn.owners == number)
                found = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
                told = (box.left, box.top, box.right, box.bottom)
                assert np.allclose(np.array(told) * side / UNIT, found)
                assert thing.color
                seen = drawn.pixels[drawn.owners == number].astype(int)
                assert np.abs(np.median(seen, axis=0) - SHADES[thing.color]).max() <= 2
        assert drawn.owners.max() == number


def test_things_stand_from_left_to_right_and_have_different_names() -> None:
    rng = Random(3)
    counts = set()
    for _ in range(60):
        scene = random_scene(rng, SPRITES, MIX, 64).scene
        centers = [thing.box.center[0] for thing in scene.shapes]
        assert centers == sorted(centers)
        assert len({thing.noun.name for thing in scene.shapes}) == len(scene.shapes)
        counts.add(tuple(sorted(thing.count for thing in scene.shapes)))
    assert counts == {(1,), (2,), (3,), (1, 1), (1, 2), (1, 1, 1)}


@pytest.mark.parametrize(
    ("text", "truth"),
    [
        ("a red ball", True),
        ("a blue ball", False),
        ("a small red ball at the top left", True),
        ("a ball on the left", True),
        ("a ball in the middle", False),
        ("two boxes", True),
        ("two blue boxes and a ball", True),
        ("three boxes", False),
        ("a box", True),  # there are two
        ("a slice of pizza below a ball", True),
        ("a ball below a slice of pizza", False),
        ("a ball, two boxes and a slice of pizza", True),
        ("a ball, a ball and a slice of pizza", False),
        ("an owl", False),
        ("a photo of my cat", False),
    ],
)
def test_entails(text: str, truth: bool) -> None:
    assert WORDS.parser.entails(text, Scene((BALL, PIZZA, BOXES))) is truth


def test_one_caption_describes_a_scene() -> None:
    assert str(describe(Scene((BALL,)))) == "a small red ball at the top left"
    assert str(describe(Scene((PIZZA,)))) == "a slice of pizza"
    assert str(describe(Scene((BOXES,)))) == "two blue boxes"
    assert str(describe(Scene((BALL, PIZZA)))) == "a ball above a slice of pizza"
    assert str(describe(Scene((BALL, BOXES)))) == "a ball and two boxes"


def test_captions_are_true_and_spoilt_ones_false() -> None:
    rng = Random(5)
    for _ in range(150):
        scene = random_scene(rng, SPRITES, MIX, 64).scene
        for caption in (describe(scene), random_caption(rng, scene)):
            assert WORDS.parser.parse(str(caption)) == caption
            assert WORDS.parser.entails(str(caption), scene)
            assert not WORDS.parser.entails(str(spoil(rng, caption, scene, WORDS.nouns)), scene)


ALL = Scene((BALL, BOXES, PIZZA, BROCCOLI))


def spoilt_ways(caption: Caption) -> set[str]:
    assert caption.true_of(ALL)
    return {str(spoil(Random(seed), caption, ALL, WORDS.nouns, keeps_names=True)) for seed in range(60)}


@pytest.mark.parametrize(
    ("caption", "spoilt"),
    [
        (Caption((Phrase(BALL.noun),)), {"two balls", "three balls"}),
        (Caption((Phrase(BOXES.noun, count=2),)), {"three boxes"}),  # where there are two, there is a box
        (Caption((Phrase(BALL.noun, size=BALL.size),)), {f"a {size} ball" for size in SIZES if size != BALL.size}),
        (
            Caption((Phrase(BALL.noun), Phrase(PIZZA.noun))),
            {"two balls and a slice of pizza", "a ball and two slices of pizza"},
        ),
        (
            Caption((Phrase(BALL.noun), Phrase(PIZZA.noun)), "above"),
            {
                "a ball below a slice of pizza",
                "a ball to the right of a slice of pizza",
                "a slice of pizza above a ball",
            },
        ),
        (Caption((Phrase(BROCCOLI.noun), Phrase(BALL.noun))), {"some broccoli and two balls"}),
    ],
    ids=str,
)
def test_a_spoilt_caption_can_keep_its_names(caption: Caption, spoilt: set[str]) -> None:
    assert spoilt_ways(caption) == spoilt


def test_where_nothing_else_can_be_changed_it_names_another_thing() -> None:
    assert spoilt_ways(Caption((Phrase(BROCCOLI.noun),))) == {"an owl"}  # which is all that is not there
    ways = spoilt_ways(Caption((Phrase(BALL.noun), Phrase(BOXES.noun, count=2))))  # no scene has four things
    assert {"a ball and two owls", "an owl and two boxes"} <= ways
    assert not {way for way in ways if "three" in way or "broccoli" in way.partition("two")[2]}


def test_questions_of_every_topic_have_answers_that_are_true() -> None:
    rng, topics = Random(6), set()
    for _ in range(400):
        scene = random_scene(rng, SPRITES, MIX, 64).scene
        question, answer = random_question(rng, scene, WORDS.nouns)
        topics.add(topic_of(question))
        by_name = {thing.noun.name: thing for thing in scene.shapes}
        if question.startswith("how many ") and " things " not in question:
            name = next(one.name for one in WORDS.nouns if f"many {one.many} " in question)
            count = by_name[name].count if name in by_name else 0
            assert answer == names.NUMBERS[count]
        if question.startswith("what color is the ") and "of" not in question:
            assert answer == by_name[question.removeprefix("what color is the ").rstrip("?")].color
    assert topics == {"what", "where", "how many", "color", "yes/no"}


@pytest.mark.parametrize("known", [WORDS.vocabulary, WORDS.pooled])
def test_texts_are_tokenised_as_the_real_tokenizer_does(known: vocabulary.Vocabulary, tmp_path: Path) -> None:
    vocabulary.save(known, tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    rng = Random(1)
    for _ in range(60):
        scene = random_scene(rng, SPRITES, MIX, 64).scene
        for text in (str(random_caption(rng, scene)), *random_question(rng, scene, WORDS.nouns)):
            assert tokenizer(text).input_ids == known.encode(text, vocabulary.CLS)


def test_every_clean_thing_can_be_said() -> None:
    words = Words(tuple(map(noun, clean_names())))
    for one in words.nouns:
        for count in (1, 2) if one.kind == "count" else (1,):
            caption = Caption((Phrase(one, "red", "small", "middle", count),))
            assert words.parser.parse(str(caption)) == caption
            assert words.vocabulary.encode(str(caption), vocabulary.CLS)
    assert Noun("dog") in words.nouns
