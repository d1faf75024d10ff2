"""Maps and boxes over a picture, as PNG; and maps alone, as masks of its size."""

from __future__ import annotations

import io
from binascii import b2a_base64
from collections.abc import Iterator

from PIL import Image, ImageChops, ImageDraw, ImageFont

from app.decoding.drawings import Boxes, Drawing, Heat, Masks, Segments, maps_of
from app.decoding.turbo import TURBO

COMPRESSION = 1  # of zlib: a photo becomes a tenth larger than with 6, in two thirds of the time
PIXELS_AT_ONCE = 2**20
LEVELS = range(256)
# How much of a colour covers the picture. LAVIS common/gradcam.py, getAttMap.
OPACITY = [round(255 * (level / 255) ** 0.7) for level in LEVELS]
SEGMENT_OPACITY = [round(0.75 * opacity) for opacity in OPACITY]
IS_HIGHER = [255 * (level > 0) for level in LEVELS]
MOST_CHARS = 80  # of a text that is written: the font's are half as wide as they are high
INK, PAPER = (0, 0, 0), (255, 255, 255)
GOLDEN_DEGREES = 137.508  # between one hue and the next: no two of a few are alike


def draw(image: Image.Image, drawing: Drawing) -> bytes:
    """`image`, RGB, is drawn on."""
    image.info.clear()  # or the profile and the transparency of the upload would be written
    match drawing:
        case Heat():
            _draw_heat(image, drawing)
        case Segments():
            image = _draw_segments(image, drawing)
        case Boxes():
            _draw_boxes(image, drawing)
        case Masks():
            raise TypeError("masks are not drawn on a picture")
    return _png(image)


def cut_out(masks: Masks) -> bytes:
    """Each mask as PNG in base64, on a line: gray, 0 to 255, interpolated between the middles of the map's parts."""
    size = masks.width, masks.height
    maps = (Image.frombytes("L", (masks.columns, masks.rows), levels) for levels in maps_of(masks))
    return b"".join(b2a_base64(_png(one.resize(size, Image.Resampling.BILINEAR))) for one in maps)


def most_bytes(drawing: Drawing, size: tuple[int, int]) -> int:
    """Of what `draw` or `cut_out` returns, of a picture of this size."""
    width, height = size
    match drawing:
        case Masks():
            return len(maps_of(drawing)) * (4 * _most_png_bytes(width, height) // 3 + 4)
        case Segments():
            height += room_below(drawing, size)
    return _most_png_bytes(3 * width, height)


def _most_png_bytes(row_bytes: int, rows: int) -> int:
    """What cannot be compressed is stored, with a few bytes for each 16 KiB."""
    raw = rows * (1 + row_bytes)
    return raw + raw // 100 + 4096


def colour(kind: int) -> tuple[int, int, int]:
    """Strong enough for any picture."""
    shade = Image.new("HSV", (1, 1), (round(255 * (kind * GOLDEN_DEGREES % 360) / 360), 230, 230)).convert("RGB")
    red, green, blue = shade.tobytes()
    return red, green, blue


def _png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG", compress_level=COMPRESSION)
    return file.getvalue()


def _draw_heat(image: Image.Image, heat: Heat) -> None:
    """The heat between the middles of patches is interpolated, by cubes as in LAVIS."""
    for top, [levels] in _bands(image.size, heat, [heat.levels], Image.Resampling.BICUBIC):
        opacity = levels.point(OPACITY)
        levels.putpalette(TURBO)
        image.paste(levels.convert("RGB"), (0, top), opacity)


def _draw_segments(image: Image.Image, segments: Segments) -> Image.Image:
    """Where several are, the one that is likeliest there. The legend is below: nothing of the picture is hidden."""
    width, height = image.size
    drawn = Image.new("RGB", (width, height + room_below(segments, image.size)), PAPER)
    drawn.paste(image)
    colours = [colour(kind) for kind in range(len(segments.names))]
    for top, maps in _bands(image.size, segments, maps_of(segments), Image.Resampling.BILINEAR):
        paint = highest = None
        for levels, shade in zip(maps, colours, strict=True):
            if paint is None or highest is None:
                paint, highest = Image.new("RGB", levels.size, shade), levels
                continue
            paint.paste(shade, mask=ImageChops.subtract(levels, highest).point(IS_HIGHER))
            highest = ImageChops.lighter(highest, levels)
        if paint is not None and highest is not None:
            drawn.paste(paint, (0, top), highest.point(SEGMENT_OPACITY))
    pen, side = ImageDraw.Draw(drawn), _letters(image.size)
    font = _font(side)
    for row, (name, shade) in enumerate(zip(segments.names, colours, strict=True)):
        top = height + row * _line(side) + (_line(side) - side) // 2
        pen.rectangle((side // 2, top, side // 2 + side - 1, top + side - 1), fill=shade, outline=INK)
        pen.text((2 * side, top), _written(name), INK, font)
    return drawn


def room_below(segments: Segments, size: tuple[int, int]) -> int:
    """Rows of the legend."""
    return len(segments.names) * _line(_letters(size))


def _draw_boxes(image: Image.Image, boxes: Boxes) -> None:
    """The first is drawn last, above the others."""
    pen, side = ImageDraw.Draw(image), _letters(image.size)
    width, line, font = max(1, side // 6), _line(side), _font(side)
    for (left, top, right, bottom), name, kind in reversed([*zip(boxes.boxes, boxes.names, boxes.kinds, strict=True)]):
        left, right = sorted(min(max(x, 0.0), image.width - 1.0) for x in (left, right))
        top, bottom = sorted(min(max(y, 0.0), image.height - 1.0) for y in (top, bottom))
        shade, words = colour(kind), _written(name)
        pen.rectangle((left, top, right, bottom), outline=shade, width=width)
        above = top - line if top >= line else top  # the plate of its words: inside, where there is no room above
        pen.rectangle((left, above, left + font.getlength(words) + side, above + line - 1), PAPER, shade, 1)
        pen.text((left + side // 2, above + (line - side) // 2), words, INK, font)


def _bands(
    size: tuple[int, int], grid: Heat | Segments, maps: list[bytes], how: Image.Resampling
) -> Iterator[tuple[int, list[Image.Image]]]:
    """A few rows of the picture at a time: their top, and the levels there of each map."""
    width, height = size
    rows = min(height, grid.rows)
    patches = [Image.frombytes("L", (grid.columns, grid.rows), levels) for levels in maps]
    wide = [one.resize((width, rows), how) for one in patches]  # first, or Pillow chooses band by band
    num_rows = max(1, PIXELS_AT_ONCE // width)
    for top in range(0, height, num_rows):
        bottom = min(top + num_rows, height)
        part = (0, top * rows / height, width, bottom * rows / height)
        yield top, [one.resize((width, bottom - top), how, part) for one in wide]


def _letters(size: tuple[int, int]) -> int:
    """Their height in pixels."""
    return min(28, max(12, min(size) // 30))


def _line(letters: int) -> int:
    return 3 * letters // 2


def _font(letters: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Pillow's own: letters of Latin scripts; what it lacks becomes a box."""
    return ImageFont.load_default(letters)


def _written(text: str) -> str:
    """As one line that is not too long."""
    line = " ".join(text[: 2 * MOST_CHARS].split())
    return line if len(line) <= MOST_CHARS and len(text) <= 2 * MOST_CHARS else f"{line[:MOST_CHARS]}..."
