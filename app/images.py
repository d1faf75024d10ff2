"""Uploaded bytes -> a decoded, upright RGB image, within limits."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from PIL.BmpImagePlugin import BmpImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.TiffImagePlugin import TiffImageFile

from app.errors import BadImageError, UnsupportedMediaError

try:  # the extra `heif`
    import pi_heif
except ImportError:
    pi_heif = None
else:
    pi_heif.register_heif_opener(thumbnails=False, depth_images=False, aux_images=False)
    pi_heif.options.DECODE_THREADS = 1  # there is a decoder for each CPU

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", *(("HEIF",) if pi_heif else ()))
HEIF_BRANDS = {
    b"heic",
    b"heix",
    b"heim",
    b"heis",
    b"hevc",
    b"hevx",
    b"hevm",
    b"hevs",
    b"mif1",
    b"mif2",
    b"msf1",
    b"miaf",
}
MAX_SIDE_RATIO = 100
MOST_RUN_LENGTH_PIXELS = 4_000_000
MOST_BMP_HEADER_BYTES = 2048  # with its palette
_EXIF_ORIENTATION = 0x0112
BYTES_PER_RGB_PIXEL = 4  # in Pillow; and of every mode that is not listed here:
_BYTES_PER_PIXEL = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16L": 2, "I;16B": 2, "I;16N": 2}
OWN_SIZE = "own_size"  # in an image's info: in pixels, however small it is decoded
LYING = (5, 6, 7, 8)  # orientations whose width is the height of what is shown
_PIXELS_PER_BAND = 2**16
# Magic number -> byte order, format of the number of entries, bytes of an entry.
TIFF_LAYOUTS = {b"II*\0": ("<", "H", 12), b"MM\0*": (">", "H", 12), b"II+\0": ("<", "Q", 20)}
_TIFF_SHORT, _TIFF_LONG, _TIFF_LONG8 = 3, 4, 16
_TIFF_BITS, _TIFF_PHOTOMETRIC, _TIFF_SAMPLES = 258, 262, 277
_TIFF_TILE_WIDTH, _TIFF_TILE_LENGTH = 322, 323
_TRANSPOSITIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def open_image(data: bytes, *, max_pixels: int, max_side: int, enough_side: int | None = None) -> Image.Image:
    """Read only the header and check the size. `enough_side`: a JPEG may be decoded at 1/2, 1/4 or 1/8 of its size, if
    both sides keep at least this many pixels. Raises UnsupportedMediaError (not one of FORMATS) and BadImageError.
    """
    with _broken_if_it_fails():
        try:
            image = _open(data)
        except UnidentifiedImageError:
            if "HEIF" not in FORMATS and _is_heif(data):
                raise UnsupportedMediaError(
                    "HEIC and HEIF images are not decoded here (that takes the extra `heif`): send it as JPEG or PNG."
                ) from None
            if _has_tiff_directory(data):
                raise BadImageError(
                    "This kind of TIFF is not supported; supported are gray of 1 to 32 bits, and RGB, RGBA, palette, "
                    "CMYK, YCbCr and Lab of 8 bits a channel."
                ) from None
            if _starts_like_an_image(data):
                raise
            raise UnsupportedMediaError(f"Not an image in one of the formats {', '.join(FORMATS)}.") from None
        except (Image.DecompressionBombError, Image.DecompressionBombWarning):
            raise BadImageError(f"The image has more than {max_pixels} pixels.") from None
        check_size(image.size, max_pixels, max_side)
        if isinstance(image, TiffImageFile):
            _check_tiles(image, data, max_pixels)
        if has_run_lengths(image):
            _check_run_lengths(image, data)
        image.info[OWN_SIZE] = image.size
        if enough_side is not None and isinstance(image, JpegImageFile):
            image.draft(None, (enough_side, enough_side))
        return image


def _open(data: bytes) -> Image.Image:
    """Pillow does not know every TIFF whose white is zero: it is told that black is, and `info` says what is so."""
    try:
        return Image.open(io.BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError:
        if (told := _with_black_as_zero(data)) is None:
            raise
    image = Image.open(io.BytesIO(told), formats=FORMATS)
    image.info["white_is_zero"] = True
    return image


def _with_black_as_zero(data: bytes) -> bytes | None:
    """None: it is no TIFF whose white is zero."""
    if data[:4] not in (b"II*\0", b"MM\0*"):
        return None
    order, count_format, entry_bytes = TIFF_LAYOUTS[data[:4]]
    (begin,) = struct.unpack_from(order + "I", data, 4)
    (number,) = struct.unpack_from(order + count_format, data, begin)
    for at in range(begin + 2, min(begin + 2 + number * entry_bytes, len(data) - entry_bytes + 1), entry_bytes):
        tag, kind = struct.unpack_from(order + "HH", data, at)
        value_format = order + {_TIFF_SHORT: "H", _TIFF_LONG: "I"}.get(kind, "I")
        if tag == _TIFF_PHOTOMETRIC and struct.unpack_from(value_format, data, at + 8) == (0,):
            value = struct.pack(value_format, 1)
            return data[: at + 8] + value + data[at + 8 + len(value) :]
    return None


def bitmap_bytes(image: Image.Image) -> int:
    """Peak bytes that `decode_image` needs for an image from `open_image`, its result included.

    Raises BadImageError.
    """
    with _broken_if_it_fails():
        pixels = image.width * image.height
        loaded = pixels * _BYTES_PER_PIXEL.get(image.mode, BYTES_PER_RGB_PIXEL)
        rgb = pixels * BYTES_PER_RGB_PIXEL
        turned = image.format == "PNG" or _orientation(image) in _TRANSPOSITIONS  # a PNG's EXIF may follow its pixels
        if image.format in ("WEBP", "AVIF", "HEIF"):  # planes or canvases, bytes and bitmap at once; planes are kept
            return 4 * rgb
        if isinstance(image, TiffImageFile):
            decoding = loaded + (loaded if turned else 0) + _tiff_unit_bytes(image)
        elif image.info.get("progressive"):
            decoding = loaded + 2 * pixels * _draft_scale(image) ** 2 * len(image.getbands())  # coefficients
        else:
            decoding = loaded
        if turned or image.has_transparency_data:
            return max(decoding, 2 * rgb)
        return decoding if image.mode == "RGB" else max(decoding, loaded + rgb)


def decode_image(image: Image.Image) -> Image.Image:
    """The first frame of an image from `open_image`: RGB, upright, transparency over white; with its OWN_SIZE, upright.

    Raises BadImageError.
    """
    with _broken_if_it_fails():
        with image:  # frees the decoder's bytes before copies are made
            image.load()
        orientation = _orientation(image)
        upright = _TRANSPOSITIONS.get(orientation)
        width, height = image.info[OWN_SIZE]
        rgb = _to_rgb(image)
        if rgb is not image:
            image.close()
        turned = rgb if upright is None else rgb.transpose(upright)
        turned.info[OWN_SIZE] = (height, width) if orientation in LYING else (width, height)
        return turned


def every_frame(image: Image.Image, places: Iterable[int]) -> Iterator[Image.Image]:
    """Frames of an animation from `open_image`, in ascending order, as `decode_image` makes the first.

    Raises BadImageError.
    """
    with _broken_if_it_fails(), image:
        upright = _TRANSPOSITIONS.get(_orientation(image))
        for place in places:
            image.seek(place)
            image.load()
            rgb = _to_rgb(image.copy())
            yield rgb if upright is None else rgb.transpose(upright)


@contextmanager
def _broken_if_it_fails() -> Iterator[None]:
    try:
        yield
    except (BadImageError, UnsupportedMediaError):
        raise
    except MemoryError:
        raise BadImageError("The image needs more memory than its header tells.") from None
    except Exception as error:  # decoders raise whatever they like on broken data
        raise BadImageError("The image is broken: it cannot be decoded.") from error


def check_size(size: tuple[int, int], max_pixels: int, max_side: int) -> None:
    """Raises BadImageError."""
    width, height = size
    if width * height > max_pixels:
        raise BadImageError(f"The image has {width} x {height} pixels; at most {max_pixels} are allowed.")
    if max(size) > max_side:
        raise BadImageError(f"The image has {width} x {height} pixels; a side may have at most {max_side}.")
    if max(size) > MAX_SIDE_RATIO * min(size):
        raise BadImageError(
            f"The image has {width} x {height} pixels; one side may be at most {MAX_SIDE_RATIO} times the other."
        )


def _check_tiles(image: TiffImageFile, data: bytes, max_pixels: int) -> None:
    """libtiff allocates whole tiles, however small the picture. (Strips are harmless: Pillow has it allocate no more
    rows than the picture has.) Tags that Pillow and libtiff could read differently, such as duplicates, are refused."""
    order, count_format, entry_bytes = TIFF_LAYOUTS[data[:4]]
    (num_entries,) = struct.unpack_from(order + count_format, data, image.tag_v2.offset)
    begin = image.tag_v2.offset + struct.calcsize(order + count_format)
    end = min(begin + num_entries * entry_bytes, len(data) - entry_bytes + 1)
    entries = (struct.unpack_from(order + "HH", data, at) for at in range(begin, end, entry_bytes))
    tiling = [(tag, kind) for tag, kind in entries if tag in (_TIFF_TILE_WIDTH, _TIFF_TILE_LENGTH)]
    if not tiling:
        return
    width, height = image.tag_v2.get(_TIFF_TILE_WIDTH), image.tag_v2.get(_TIFF_TILE_LENGTH)
    known = all(kind in (_TIFF_SHORT, _TIFF_LONG, _TIFF_LONG8) for _, kind in tiling)
    if len(tiling) != 2 or not known or not isinstance(width, int) or not isinstance(height, int):
        raise BadImageError("The image is broken: the size of its tiles is not clear.")
    if width * height > max_pixels:
        raise BadImageError(f"The image has tiles of {width} x {height} pixels; at most {max_pixels} are allowed.")


def has_run_lengths(image: Image.Image) -> bool:
    """Whether it is a BMP that Pillow decodes in Python."""
    return isinstance(image, BmpImageFile) and bool(image.tile) and image.tile[0].codec_name == "bmp_rle"


def _check_run_lengths(image: Image.Image, data: bytes) -> None:
    """Two bytes a pixel at most, and two for the end of each row: what says nothing would cost time, too."""
    num_pixels = image.width * image.height
    if num_pixels > MOST_RUN_LENGTH_PIXELS:
        raise BadImageError(
            f"The image has {num_pixels} pixels in run lengths; at most {MOST_RUN_LENGTH_PIXELS} are allowed."
        )
    if len(data) > MOST_BMP_HEADER_BYTES + 2 * num_pixels + 2 * image.height:
        raise BadImageError("The image has more run lengths than pixels.")


def _tiff_unit_bytes(image: TiffImageFile) -> int:
    """Upper bound on the tile or strip that libtiff decodes at a time; doubled where it converts YCbCr."""
    tags = image.tag_v2
    if not image.use_load_libtiff:
        return 0
    num_pixels = tags.get(_TIFF_TILE_WIDTH, image.width) * tags.get(_TIFF_TILE_LENGTH, image.height)
    num_bytes = max(4, tags.get(_TIFF_SAMPLES, 1) * max(tags.get(_TIFF_BITS, (1,))) // 8)
    return int(num_pixels * num_bytes * (2 if tags.get(_TIFF_PHOTOMETRIC) == 6 else 1))


def _draft_scale(image: Image.Image) -> int:
    """The factor by which each side of a JPEG is reduced while decoding."""
    return image.decoderconfig[0] if isinstance(image, JpegImageFile) and image.decoderconfig else 1


def _is_heif(data: bytes) -> bool:
    """By the brands of its first box: ISO/IEC 23008-12, annex B."""
    if data[4:8] != b"ftyp":
        return False
    brands = data[8 : min(64, int.from_bytes(data[:4], "big"))]
    named = {brands[at : at + 4] for at in range(0, len(brands), 4)}
    return bool(named & HEIF_BRANDS) and not named & {b"avif", b"avis"}


def _has_tiff_directory(data: bytes) -> bool:
    """Whether there is one where its header says: then Pillow knows the file, but not its kind."""
    if data[:4] not in TIFF_LAYOUTS:
        return False
    order = "<" if data[:2] == b"II" else ">"
    width = 8 if data[2:3] == b"+" or data[3:4] == b"+" else 4
    at = int.from_bytes(data[width : 2 * width], "little" if order == "<" else "big")
    if not 8 <= at < len(data) - 2:
        return False
    number = int.from_bytes(data[at : at + 2], "little" if order == "<" else "big")
    return number > 0 and at + 12 * number <= len(data)


def _starts_like_an_image(data: bytes) -> bool:
    plugins = (Image.OPEN[name] for name in FORMATS if name in Image.OPEN)
    return any(accept is not None and accept(data[:16]) for _, accept in plugins)


def _orientation(image: Image.Image) -> int:
    with suppress(Exception):  # unreadable metadata does not make a picture unreadable
        return int(image.getexif().get(_EXIF_ORIENTATION, 1))
    return 1


def _to_rgb(image: Image.Image) -> Image.Image:
    """May return the image itself, or close it."""
    if image.mode.startswith(("I", "F")):
        return _deep_gray_to_rgb(image)
    if not image.has_transparency_data or _is_opaque_bmp(image):
        return image if image.mode == "RGB" else image.convert("RGB")
    rgba = image if image.mode == "RGBA" else image.convert("RGBA")
    if rgba is not image:
        image.close()
    white = Image.new("RGB", rgba.size, "white")
    white.paste(rgba, mask=rgba)
    return white


def _is_opaque_bmp(image: Image.Image) -> bool:
    """Windows writes the alpha of opaque pictures as zeros."""
    return image.format == "BMP" and image.mode == "RGBA" and image.getchannel("A").getextrema() == (0, 0)


def _deep_gray_to_rgb(image: Image.Image) -> Image.Image:
    """16-bit, 32-bit and float gray, scaled to 8 bits (Pillow would clip them): from 0..65535, floats from 0..1, 32-bit
    integers that are all within 0..255 from these; or from their own range if any value lies outside."""
    extremes = np.array([(values.min(), values.max()) for _, values in _bands(image)])  # (bands, 2)
    if not np.isfinite(extremes).all():
        raise BadImageError("The image is broken: it has values that are not finite.")
    low, high = 0.0, 1.0 if image.mode == "F" else 65535.0
    if image.mode == "I" and extremes.min() >= 0 and extremes.max() <= 255:
        high = 255.0  # an array of integers, as it is often saved
    if extremes.min() < low or extremes.max() > high:
        low, high = float(extremes.min()), float(extremes.max())
    scale = 255 / max(high - low, 1.0)
    transparent = float(image.info.get("transparency", np.nan))
    # Pillow inverts 8 bits and less by itself.
    white_is_zero = image.info.get("white_is_zero") or (
        isinstance(image, TiffImageFile) and image.tag_v2.get(_TIFF_PHOTOMETRIC) == 0
    )
    rgb = Image.new("RGB", image.size)
    for top, values in _bands(image):
        scaled = np.rint((values - low) * scale)
        gray = np.where(values == transparent, 255, 255 - scaled if white_is_zero else scaled).astype(np.uint8)
        rgb.paste(Image.fromarray(gray), (0, top))
    return rgb


def _bands(image: Image.Image) -> Iterator[tuple[int, NDArray[np.float64]]]:
    """Top row and values (rows, width), a few rows at a time: eight bytes a pixel are too much for the whole image."""
    num_rows = max(1, _PIXELS_PER_BAND // image.width)
    for top in range(0, image.height, num_rows):
        band = image.crop((0, top, image.width, min(top + num_rows, image.height)))
        yield top, np.array(band, dtype=np.float64)
