"""The contact sheet of an image model: the pictures that it is wrong about, on one page."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from stages.evaluate.outputs.markdown import one_line
from stages.evaluate.outputs.mistakes import Mistake
from stages.features.schema import Array

MAX_PICTURES = 64
COLUMNS = 8
# Of a picture in its cell, in pixels: small ones grow, large ones shrink.
SIDE = 112
MARGIN, LINE, FONT_SIZE = 8, 15, 12
CELL = (SIDE + 2 * MARGIN, SIDE + 3 * LINE + 2 * MARGIN)
SHADE, INK = 255, 0
NO_IMAGES = "no pictures: the model sees no column of images"
NO_MISTAKES = "no mistakes among the test rows"


def write_sheet(path: Path, images: Array | None, mistakes: Sequence[Mistake]) -> None:
    """A PNG with the pictures of the first 64 of `mistakes`, eight a row, as they come.

    Under each stand its row's key, what it is and what it was taken for, and how sure that was
    (or how far off, of values). `images` are those of all test rows, (rows, channels, height,
    width); one scale of brightness, from the least to the largest number shown, is that of all.
    Without images, or without a mistake, a picture that says so.
    """
    shown = mistakes[:MAX_PICTURES]
    if images is None or not shown:
        sheet = _say(NO_IMAGES if images is None else NO_MISTAKES)
    else:
        sheet = _lay_out(_to_bytes(images[[m.row for m in shown]]), shown)
    # The bytes follow from the pixels: no time, no software's name.
    sheet.save(path, format="PNG", optimize=False)


def _say(text: str) -> Image.Image:
    font = ImageFont.load_default(FONT_SIZE)
    width = int(font.getlength(text)) + 2 * MARGIN
    sheet = Image.new("L", (width, LINE + 2 * MARGIN), SHADE)
    ImageDraw.Draw(sheet).text((MARGIN, MARGIN), text, INK, font)
    return sheet


def _lay_out(pictures: npt.NDArray[np.uint8], mistakes: Sequence[Mistake]) -> Image.Image:
    num_columns, num_rows = min(COLUMNS, len(mistakes)), -(-len(mistakes) // COLUMNS)
    sheet = Image.new("RGB", (num_columns * CELL[0], num_rows * CELL[1]), (SHADE,) * 3)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(FONT_SIZE)
    for number, (picture, mistake) in enumerate(zip(pictures, mistakes, strict=True)):
        left, top = number % COLUMNS * CELL[0] + MARGIN, number // COLUMNS * CELL[1] + MARGIN
        scaled = _scale(picture)
        # In the middle of its square.
        place = left + (SIDE - scaled.width) // 2, top + (SIDE - scaled.height) // 2
        sheet.paste(scaled, place)
        for line, text in enumerate(_label(mistake, font)):
            draw.text((left, top + SIDE + 2 + line * LINE), text, (INK,) * 3, font)
    return sheet


def _label(mistake: Mistake, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> list[str]:
    """Three lines: the key; the target -> the prediction; the probability or the residual."""
    if mistake.probability is not None:
        sure = f"{mistake.probability:.3f}"
        pair = one_line(mistake.target), one_line(mistake.prediction)
    else:
        sure = f"{mistake.residual:+.4g}"
        pair = f"{mistake.target:.4g}", f"{mistake.prediction:.4g}"
    # The font of the library has no arrow, nor any script but Latin.
    arrow = " -> "
    half = (SIDE - font.getlength(arrow)) / 2
    names = arrow.join(pair)
    if font.getlength(names) > SIDE:
        names = arrow.join(_cut(name, half, font) for name in pair)
    return [_cut(one_line(mistake.key), SIDE, font), names, sure]


def _cut(text: str, width: float, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    """`text`, its end left out where it is wider than `width` pixels."""
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "…") > width:
        text = text[:-1]
    return text + "…"


def _to_bytes(images: Array) -> npt.NDArray[np.uint8]:
    """(rows, height, width, 3): colours as they are, of any other number of channels the mean."""
    values = np.asarray(images).astype(np.float64)
    if values.shape[1] == 4:
        values = values[:, :3]  # the fourth says how opaque
    if values.shape[1] != 3:
        values = values.mean(axis=1, keepdims=True).repeat(3, axis=1)
    low, high = values.min(), values.max()
    scaled = (values - low) / (high - low if high > low else 1.0) * 255
    return np.asarray(scaled.round().transpose(0, 2, 3, 1), dtype=np.uint8)


def _scale(picture: npt.NDArray[np.uint8]) -> Image.Image:
    """Scale an image to the square; a small one in whole multiples, to show its pixels."""
    image = Image.fromarray(np.ascontiguousarray(picture))
    longest = max(image.size)
    if longest <= SIDE:
        times = SIDE // longest
        size = image.width * times, image.height * times
        return image.resize(size, Image.Resampling.NEAREST)
    size = max(1, image.width * SIDE // longest), max(1, image.height * SIDE // longest)
    return image.resize(size, Image.Resampling.LANCZOS)
