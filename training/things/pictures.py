"""The pictures of things: emoji in three styles, from four npm packages, which `fetch` downloads, checks and unpacks.

    google    Noto Emoji, Apache License 2.0          (npm emoji-datasource-google)
    twitter   Twemoji, CC BY 4.0                      (npm emoji-datasource-twitter)
    fluent    Fluent Emoji 3D, MIT License            (npm @lobehub/fluent-emoji-3d)

What each package says of its licence stays beside the pictures, in licences/."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import shutil
import subprocess
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from training.things.colors import seen_color
from training.things.names import GROUPS, Noun, clean, table

WORK = Path("build/things")  # where they are downloaded to, and trained with
STYLES = ("google", "twitter", "fluent")
UNSEEN = "fluent"  # no phase of training draws from it
SIDE = 64  # pixels of a picture, square

Picture = NDArray[np.uint8]  # (64, 64, 4): RGBA, not premultiplied


@dataclass(frozen=True, slots=True)
class Package:
    """`folder`: of its pictures. `integrity`: as npm writes it, the SHA-512 of its archive."""

    name: str
    version: str
    folder: str
    integrity: str

    @property
    def archive(self) -> str:
        """As `npm pack` names it."""
        return f"{self.name.lstrip('@').replace('/', '-')}-{self.version}.tgz"


PACKAGES = {
    "google": Package(
        "emoji-datasource-google",
        "16.0.0",
        "package/img/google/64/",
        "ZRexfzs7MVoLnmzZmNsO4TKhnAJp5D++Vm6PpUpH/jEQQlemp3l88CjZ+DoZ2faM9R4QxZkOPJCoT8DlPhfQ3A==",
    ),
    "twitter": Package(
        "emoji-datasource-twitter",
        "16.0.0",
        "package/img/twitter/64/",
        "7F+uCuHH+7Qnrc15P5tnbvKkg9E6tlzi4MnT2uW1RlN4pLYTza6cP/dstIfSDMtpjFLWuZewWg8jBbuL2eyELQ==",
    ),
    "fluent": Package(
        "@lobehub/fluent-emoji-3d",
        "1.1.0",
        "package/assets/",
        "Wlq2lVStTnr8BDpIJ0pEnTKO4LuDxxqTEhTvRtD1DLRF0me7ogeRQjKoehDHXuVJ2Qaecgl5wRBv60lUAG3h7g==",
    ),
    "names": Package(
        "unicode-emoji-json",
        "0.9.0",
        "package/data-by-emoji.json",
        "HdrQW/7SdbXUsTd8uTATv7LvQJkCSgbAgRCDCtOhQ6xn3EAx+xZHQtRniOXWJK3ywIqPegkNhP4U4EbuFsiQng==",
    ),
}
_LICENCES = ("package/LICENSE", "package/README.md", "package/package.json")


@dataclass(frozen=True, slots=True)
class Look:
    """One emoji: what it shows; its picture in each style, and the colour to say of that (None: not one)."""

    noun: Noun
    pictures: Mapping[str, Picture]
    colors: Mapping[str, str | None]


class PicturesError(Exception):
    """A package cannot be had, or is not the one that is meant."""


def fetch(folder: Path) -> None:
    """Download what `folder` lacks. Raises PicturesError."""
    folder.mkdir(parents=True, exist_ok=True)
    for package in PACKAGES.values():
        if not (folder / package.archive).exists():
            _pack(folder, package)
        check(folder / package.archive, package.integrity)


def _pack(folder: Path, package: Package) -> None:
    command = ["npm", "pack", "--silent", f"{package.name}@{package.version}"]
    try:
        subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
    except (OSError, subprocess.CalledProcessError) as error:
        raise PicturesError(f"npm could not download {package.name} {package.version}: {error}") from error


def check(archive: Path, integrity: str) -> None:
    """Remove an archive that is not the one that is meant. Raises PicturesError."""
    with archive.open("rb") as file:
        digest = hashlib.file_digest(file, "sha512").digest()
    if base64.b64encode(digest).decode() != integrity:
        archive.unlink()
        raise PicturesError(f"{archive.name} is not what it was: its SHA-512 differs")


def looks(folder: Path) -> Sequence[Look]:
    """Every thing that all styles have, in Unicode's order. Fetches the packages, unpacks the pictures once.

    Raises PicturesError."""
    unpacked = folder / "unpacked"
    if not unpacked.exists():
        fetch(folder)
        _unpack(folder, folder / "unpacking")
        (folder / "unpacking").rename(unpacked)
    names = json.loads((unpacked / "names" / "data-by-emoji.json").read_text())
    return [look for emoji, told in names.items() if (look := _look(unpacked, emoji, told)) is not None]


def _unpack(folder: Path, to: Path) -> None:
    """The pictures of each style and the names, each in a folder, and the licences."""
    shutil.rmtree(to, ignore_errors=True)
    for key, package in tqdm(PACKAGES.items(), desc="unpack", unit="package"):
        licences = folder / "licences" / key
        for place in (to / key, licences):
            place.mkdir(parents=True, exist_ok=True)
        with tarfile.open(folder / package.archive) as archive:
            for member in archive:
                wanted = member.name.startswith(package.folder)
                if (wanted or member.name in _LICENCES) and (file := archive.extractfile(member)):
                    (to / key if wanted else licences).joinpath(Path(member.name).name).write_bytes(file.read())


def _look(unpacked: Path, emoji: str, told: Mapping[str, str]) -> Look | None:
    said = clean(told["name"]) if told["group"] in GROUPS else None
    files = [_file(unpacked / style, emoji) for style in STYLES]
    if said is None or None in files:
        return None
    noun, color = said
    pictures = {style: read(file.read_bytes()) for style, file in zip(STYLES, files, strict=True) if file}
    colored = noun.name not in table()["kinds"]["uncolored"]
    colors = {style: color or (seen_color(picture) if colored else None) for style, picture in pictures.items()}
    return Look(noun, pictures, colors)


def _file(folder: Path, emoji: str) -> Path | None:
    """Packages differ in whether the variation selector is part of the file's name."""
    codes = "-".join(f"{ord(character):04x}" for character in emoji)
    for stem in (codes, codes.replace("-fe0f", "")):
        for file in (folder / f"{stem}.png", folder / f"{stem}.webp"):
            if file.exists():
                return file
    return None


def read(data: bytes) -> Picture:
    """Scaled to 64 pixels and cut to what can be seen of it, which fills the longer side."""
    with Image.open(io.BytesIO(data)) as file:
        image = file.convert("RGBA")
    box = image.getchannel("A").point(lambda alpha: 255 * (alpha >= 128)).getbbox()
    image = image.crop(box)
    scale = SIDE / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    square = Image.new("RGBA", (SIDE, SIDE))
    square.paste(image.resize(size, Image.Resampling.BICUBIC), ((SIDE - size[0]) // 2, (SIDE - size[1]) // 2))
    return np.asarray(square).copy()
