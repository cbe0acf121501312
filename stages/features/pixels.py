"""An image's bytes as an array of pixels: the one decoder of prepare, infer, predict and serve.

PNG, JPEG, WebP, GIF, BMP and TIFF are known by their first bytes, whatever the file is called.
An image is turned as its EXIF data say. Transparency is laid over white, unless four channels are
wanted; palettes, CMYK and YCCK become colours, and colours become grey where one channel is wanted
(the luma of ITU-R BT.601). CMYK in a JPEG is inverted where its Adobe marker says so. Of 16 bits
the upper 8 of the data set's depth are kept. Of several frames the first is read. To be resized,
an image is cut to the wanted shape around its middle and scaled by a bicubic filter with
antialiasing. Colour profiles are not looked at.
"""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from stages.features.schema import Decode

if TYPE_CHECKING:
    from PIL import Image

Pixels = npt.NDArray[np.uint8]
# (height, width)
Size = tuple[int, int]
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
KNOWN = "PNG, JPEG, WebP, GIF, BMP or TIFF"
# Decoded it takes four bytes a pixel; a few kilobytes can claim any number of them.
MAX_PIXELS = 1 << 26
GREY = ("1", "L", "LA", "La", "I", "I;16", "I;16B", "I;16L", "I;16N")

_MODES = {1: "L", 3: "RGB", 4: "RGBA"}
# EXIF's tag of the orientation, and its values in which height and width change places.
_ORIENTATION = 0x0112
_TURNED = (5, 6, 7, 8)
# Where Pillow keeps EXIF data, or XMP, of PNG and JPEG: to parse none takes as long as a digit.
_EXIF = {"exif", "xmp", "XML:com.adobe.xmp", "Raw profile type exif"}
# A JPEG is decoded at a half, a quarter or an eighth where twice the wanted size remains.
_SPARE = 2


class ImageError(ValueError):
    """Bytes that are no image that can be read; the text says why, to follow a file's name."""


@dataclass(frozen=True)
class Form:
    """The form of every image of a column: its array's `shape`, which has its channels last or
    first where it has any.
    """

    shape: tuple[int, ...]
    how: Decode

    @property
    def is_channels_last(self) -> bool:
        """Check whether the array is (height, width, channels)."""
        return len(self.shape) == 3 and self.shape[2] in _MODES

    @property
    def size(self) -> Size:
        """Height and width."""
        height, width = self.shape[:2] if self.is_channels_last else self.shape[-2:]
        return height, width

    @property
    def mode(self) -> str:
        """Pillow's name for the channels."""
        num = self.shape[2 if self.is_channels_last else 0] if len(self.shape) == 3 else 1
        return _MODES[num]


@dataclass(frozen=True)
class Seen:
    """An image before it is changed; `size` is that of the turned image.

    `changes`: phrases that say what is not read as it stands there.
    """

    size: Size
    grey: bool
    deep: bool
    changes: tuple[str, ...]


def decode(source: Path | bytes, form: Form) -> Pixels:
    """The pixels of a file, or of its bytes, in a form: `form.shape`. Raises ImageError."""
    with opened(source) as image:
        size = size_of(image)
        if size != form.size and not form.how.resize:
            raise ImageError(f"it is {wide(size)} pixels, not {wide(form.size)}")
        pixels = to_pixels(image, form.mode, form.size, form.how.depth)
    if pixels.ndim == 3 and not form.is_channels_last:
        return pixels.transpose(2, 0, 1)
    return pixels.reshape(form.shape)


@contextmanager
def opened(source: Path | bytes) -> "Iterator[Image.Image]":
    """An image of which the header alone is read so far.

    Raises ImageError, also for what its decoder raises in the block.
    """
    pillow = _pillow()
    if isinstance(source, Path) and not source.is_file():
        # To open a FIFO would wait for somebody who writes into it.
        there = source.is_symlink() or source.exists()
        what = "no file, but a link to nothing, a FIFO, a socket or a device"
        raise ImageError(f"it is {what}" if there else f"there is no file '{source}'")
    file = io.BytesIO(source) if isinstance(source, bytes) else source
    try:
        with pillow.open(file, formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                shown = wide((image.height, image.width))
                raise ImageError(f"it has {shown} pixels, more than {MAX_PIXELS:,}")
            yield image
    except ImageError:
        raise
    except Exception as error:  # a damaged file makes a decoder raise whatever there is
        reason = str(error).split("\n")[0][:100] or type(error).__name__
        if isinstance(error, pillow.UnidentifiedImageError):
            reason = f"it is no {KNOWN}"
        raise ImageError(f"it can't be read: {reason}") from None


@cache
def _pillow() -> ModuleType:
    """Pillow's module, which `reprise serve` of tables does without."""
    import warnings

    from PIL import Image

    # Of a file's oddities, one by one; those that matter raise.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    return Image


def look(image: "Image.Image") -> Seen:
    """Describe an image that is opened."""
    changes = []
    deep_colour = image.mode in ("RGB", "RGBA", "LA") and ";16" in str(getattr(image, "tile", ""))
    deep = image.mode.startswith("I")
    if image.has_transparency_data:
        changes.append("are transparent: laid over white")
    if image.mode == "CMYK":
        changes.append("are in CMYK: converted to RGB")
    if deep or deep_colour:
        changes.append("are of 16 bits: the upper 8 are kept")
    if getattr(image, "is_animated", False):
        changes.append("have several frames: the first is read")
    if orientation_of(image) != 1:
        changes.append("are turned as their EXIF data say")
    return Seen(size_of(image), image.mode in GREY, deep or deep_colour, tuple(changes))


def orientation_of(image: "Image.Image") -> int:
    """EXIF's number from 1 to 8; 1 where there is none, or another one."""
    if image.format in ("PNG", "JPEG"):
        if image.format == "PNG":
            # The chunk may stand behind the pixels.
            image.load()
        if _EXIF.isdisjoint(image.info):
            return 1
    found = image.getexif().get(_ORIENTATION, 1)
    return found if found in range(1, 9) else 1


def size_of(image: "Image.Image") -> Size:
    """Height and width, once it is turned as it should be."""
    width, height = image.size
    return (width, height) if orientation_of(image) in _TURNED else (height, width)


def wide(size: Size) -> str:
    """A size as people write it: width before height."""
    return f"{size[1]}×{size[0]}"


def to_pixels(image: "Image.Image", mode: str | None, size: Size | None, depth: int = 16) -> Pixels:
    """The pixels in a mode; None: L for grey, RGB for colours. Of `size`; None: as it is."""
    orientation, whole = orientation_of(image), size_of(image)
    if size is not None and size != whole:
        height, width = size[::-1] if orientation in _TURNED else size
        image.draft(None, (_SPARE * width, _SPARE * height))
    if image.mode == "CMYK" and image.format in ("JPEG", "MPO") and "adobe" not in image.info:
        from PIL import ImageChops

        # Pillow takes every CMYK in a JPEG for Adobe's, who invert it.
        image = ImageChops.invert(image)
    if orientation != 1:
        from PIL import ImageOps

        image = ImageOps.exif_transpose(image)
    grey = image.mode in GREY
    image = _plain(image, "RGBA" if mode == "RGBA" else "L" if grey else "RGB", depth)
    if size is not None and size != whole:
        image = _resized(image, size)
    return np.asarray(image if mode in (None, image.mode) else image.convert(mode))


def _plain(image: "Image.Image", mode: str, depth: int) -> "Image.Image":
    """The image in a mode of 8 bits, transparency laid over white unless RGBA is wanted."""
    pillow = _pillow()
    if image.mode == "F":
        raise ImageError("it holds floating-point numbers: write it in 8 or 16 bits")
    if image.mode.startswith("I"):
        image = pillow.fromarray((deep_values(image, depth) >> (depth - 8)).astype(np.uint8))
    if mode != "RGBA" and image.has_transparency_data:
        over = image.convert("RGBA")
        image = pillow.alpha_composite(pillow.new("RGBA", over.size, "white"), over).convert("RGB")
    return image if image.mode == mode else image.convert(mode)


def deep_values(image: "Image.Image", depth: int = 16) -> npt.NDArray[np.int64]:
    """The numbers of a grey image of 16 bits. Raises ImageError where one is beyond `depth`."""
    values = np.asarray(image).astype(np.int64)
    if values.min() < 0 or values.max() >= 1 << depth:
        held = f"it holds numbers from {values.min()} to {values.max()}"
        raise ImageError(f"{held}, and what can be read is 0 to {(1 << depth) - 1}")
    return values


def _resized(image: "Image.Image", size: Size) -> "Image.Image":
    """The middle of an image that has the shape of `size`, scaled to it."""
    height, width = size
    scale = min(image.width / width, image.height / height)
    across, tall = max(1, round(scale * width)), max(1, round(scale * height))
    if (across, tall) != image.size:
        left, top = (image.width - across) // 2, (image.height - tall) // 2
        # Before it is scaled: a filter would else mix in what lies beyond the edge.
        image = image.crop((left, top, left + across, top + tall))
    return image.resize((width, height), _pillow().Resampling.BICUBIC, reducing_gap=3.0)
