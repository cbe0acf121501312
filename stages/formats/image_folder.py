"""Images from a folder: PNG and JPEG, however deep they lie, as arrays of bytes.

An image is turned as its EXIF data say. Transparency is laid over white, unless four channels are
wanted; of 16 bits the upper 8 are kept; palettes and CMYK become colours, and colours become grey
where one channel is wanted (the luma of ITU-R BT.601). Of several frames the first is read.
"""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import polars as pl

from stages.common.errors import Problem, UserError
from stages.features.schema import Feature, Schema
from stages.formats.chunk import Chunk, chunk_rows
from stages.formats.reading import Damage, Noticed
from stages.formats.suffixes import SUFFIXES as TABLES

if TYPE_CHECKING:
    from PIL import Image

SUFFIXES = (".png", ".jpg", ".jpeg")
# The columns of a folder that is read as a table.
PATH, IMAGE, LABEL = "path", "image", "label"
Pixels = npt.NDArray[np.uint8]
# (height, width)
Size = tuple[int, int]

# Names of folders that hold parts of a data set, and no class of it.
SPLITS = ("train", "training", "val", "valid", "validation", "dev", "test", "testing", "eval")
# Of the upper 8 bits: images that use no more of 16 are of a camera with fewer.
MIN_DEPTH = 16

_MODES = {1: "L", 3: "RGB", 4: "RGBA"}
_GREY = ("1", "L", "LA", "I", "I;16", "I;16B")
# EXIF's tag of the orientation, and its values in which height and width change places.
_ORIENTATION = 0x0112
_TURNED = (5, 6, 7, 8)


class ImageError(Exception):
    """A file that is no image that can be read; the text says why, to follow its name."""


def read(folder: Path, key: str, _noticed: Noticed) -> tuple[pl.DataFrame, list[Damage]]:
    """The whole table, as `read_folder` has it."""
    return read_folder(folder, key), []


def chunks(folder: Path, schema: Schema, key: str, _noticed: Noticed) -> Iterator[Chunk]:
    """The images of a folder, each named by its path there, as the schema's one column."""
    if [feature.is_array for feature in schema.features] != [True]:
        message = f"{folder} is a folder, and this model takes more than images: name one file"
        raise UserError(Problem(message, key, str(folder), allowed=TABLES))
    (feature,) = schema.features
    num_rows, names = chunk_rows(schema), find_files(folder, key)
    for start in range(0, len(names), num_rows):
        rows: list[int] = []
        images: list[Pixels] = []
        damaged: list[Damage] = []
        for row, name in enumerate(names[start : start + num_rows], start):
            try:
                images.append(_read_as(folder / name, feature))
                rows.append(row)
            except ImageError as error:
                damaged.append(Damage(row, str(error), feature.name, name))
        paths = pl.Series(schema.key or PATH, [names[row] for row in rows], pl.String)
        column = pl.Series(feature.name, np.stack(images) if images else [])
        yield Chunk(pl.DataFrame([paths, column]), np.array(rows, np.int64), damaged)


def _read_as(path: Path, feature: Feature) -> Pixels:
    """The pixels of a file as the rows of `feature` hold them. Raises ImageError."""
    channels, height, width = feature.shape or []
    pixels = read_image(path, channels, (height, width))
    if feature.layout == "HWC":
        return pixels.reshape(height, width, channels)
    if feature.layout == "CHW":
        return pixels.reshape(height, width, channels).transpose(2, 0, 1)
    return pixels


def find_files(folder: Path, key: str) -> list[str]:
    """The files under `folder` by their paths in it, sorted.

    Hidden ones are left aside, and folders such as `__MACOSX`. Raises UserError at a link to a
    folder, and at a name that is not UTF-8; `key` is the parameter that names `folder`.
    """
    found = []
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith((".", "__"))]
        for name in (*folders, *names):
            _check_name(Path(parent), name, key)
        for link in (Path(parent, name) for name in sorted(folders)):
            if link.is_symlink():
                message = f"{link} is a link to a folder, into which DVC does not look: "
                message += "put the folder itself there"
                raise UserError(Problem(message, key=key, value=str(folder)))
        inside = Path(parent).relative_to(folder)
        found += [(inside / name).as_posix() for name in names if not name.startswith(".")]
    return sorted(found)


def _check_name(parent: Path, name: str, key: str) -> None:
    """Raise UserError at bytes that are no text: neither JSON nor DVC could name the file."""
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        message = f"the name {os.fsencode(name)!r} in {parent} is not UTF-8: rename it"
        raise UserError(Problem(message, key=key)) from None


def read_folder(folder: Path, key: str) -> pl.DataFrame:
    """A folder with a folder for each class, `cat/tom.png`, as a table; `key` names the folder.

    Columns: `path` in the folder, `image` uint8 of (height, width), or (height, width, 3) when
    one of them is in colour, `label`: the name of the class. Raises UserError with the first
    image that can't be read, has no class, or is of another size than the one before it.
    """
    names = find_files(folder, key)
    images = [name for name in names if Path(name).suffix.lower() in SUFFIXES]
    _check_classes(folder, images, key)
    if others := len(names) - len(images):
        print(f"note: {others} files in {folder} are no {', '.join(SUFFIXES)}: left aside")
    channels, size, deep = _common_form(folder, images, key)
    pixels = np.empty((len(images), *size, *([] if channels == 1 else [channels])), np.uint8)
    for row, name in enumerate(images):
        try:
            pixels[row] = read_image(folder / name, channels, size)
        except ImageError as error:
            raise UserError(Problem(f"{folder / name}: {error}; remove it", key=key)) from None
    _check_depth(folder, [images[row] for row in deep], pixels[deep], key)
    labels = [name.split("/")[0] for name in images]
    return pl.DataFrame({PATH: images, IMAGE: pl.Series(pixels), LABEL: labels})


def _check_depth(folder: Path, names: Sequence[str], pixels: Pixels, key: str) -> None:
    """Stop where images of 16 bits use so few of them that their upper 8 hold next to nothing."""
    if len(names) and pixels.max() < MIN_DEPTH:
        message = (
            f"the {len(names)} images of 16 bits in {folder}, such as {names[0]}, reach no more "
            f"than {int(pixels.max()) * 256 + 255} of 65535, and the upper 8 bits are kept: write "
            "them over the whole range, or in 8 bits"
        )
        raise UserError(Problem(message, key=key, value=str(folder)))


def _check_splits(folder: Path, images: Sequence[str], key: str) -> None:
    """Stop where the folders are the parts of a data set: a model would learn to tell these."""
    named = {name.split("/")[0] for name in images if name.split("/")[0].lower() in SPLITS}
    deep = {name.split("/")[0] for name in images if name.count("/") > 1}
    if len(named) > 1 or named & deep:
        shown = ", ".join(f"{name}/" for name in sorted(named))
        message = (
            f"{folder} holds {shown}: these name parts of a data set, and here each folder is a "
            "class. prepare.split divides the rows: put the images of a class together, whichever "
            "part they are of (cat/, dog/), or name one part; a class of such a name needs "
            "another one"
        )
        raise UserError(Problem(message, key=key, value=str(folder)))


def _check_classes(folder: Path, images: Sequence[str], key: str) -> None:
    _check_splits(folder, images, key)
    problems = []
    bare = [name for name in images if "/" not in name]
    if bare:
        message = f"{folder / bare[0]} lies in no class: each class is a folder of its images"
        problems.append(f"{message} ({len(bare)} such files)")
    filled = {name.split("/")[0] for name in images}
    for each in sorted(folder.iterdir()):
        hidden = each.name.startswith((".", "__"))
        if each.is_dir() and not hidden and each.name not in filled:
            problems.append(f"the class {each} has no {', '.join(SUFFIXES)}: fill or remove it")
    if not images and not problems:
        problems = [f"{folder} has no images: each class is a folder of {', '.join(SUFFIXES)}"]
    if problems:
        raise UserError(*(Problem(text, key=key, value=str(folder)) for text in problems[:5]))


def _common_form(folder: Path, images: Sequence[str], key: str) -> tuple[int, Size, list[int]]:
    """The number of channels that holds all images, their one size, and which are of 16 bits."""
    first: Size | None = None
    grey, deep, changed = True, [], Counter[str]()
    for row, name in enumerate(images):
        try:
            with _opened(folder / name) as image:
                size, grey = _size(image), grey and image.mode in _GREY
                deep += [row] if image.mode.startswith("I") else []
                changed.update(_changes(image))
        except ImageError as error:
            raise UserError(Problem(f"{folder / name}: {error}; remove it", key=key)) from None
        first = first or size
        if size != first:
            message = (
                f"all images must be of one size: {folder / images[0]} is {_wide(first)}, and "
                f"{folder / name} is {_wide(size)}; write them in one size into another folder, "
                "and name that"
            )
            raise UserError(Problem(message, key=key, value=str(folder)))
    assert first is not None
    for what, count in sorted(changed.items()):
        print(f"note: {count} of {len(images)} images in {folder} {what}")
    return (1 if grey else 3), first, deep


def _changes(image: "Image.Image") -> Iterator[str]:
    """Yield what is not read of an image as it stands there."""
    if image.has_transparency_data:
        yield "are transparent: laid over white"
    if image.mode == "CMYK":
        yield "are in CMYK: converted to RGB"
    if image.mode.startswith("I"):
        yield "are of 16 bits: the upper 8 are kept"
    if getattr(image, "n_frames", 1) > 1:
        yield "have several frames: the first is read"


def read_image(path: Path, channels: int, size: Size) -> Pixels:
    """The pixels of a file: (height, width) for one channel, else (height, width, channels).

    Raises ImageError when it can't be read, or is not of `size`; it is then not even decoded.
    """
    from PIL import ImageOps

    if path.suffix.lower() not in SUFFIXES:
        raise ImageError(f"it is no {', '.join(SUFFIXES)}")
    with _opened(path) as image:
        if _size(image) != size:
            raise ImageError(f"it is {_wide(_size(image))} pixels, not {_wide(size)}")
        return np.asarray(_converted(ImageOps.exif_transpose(image), _MODES[channels]))


def _converted(image: "Image.Image", mode: str) -> "Image.Image":
    from PIL import Image

    if image.mode.startswith("I"):
        image = Image.fromarray((np.asarray(image).astype(np.uint32) >> 8).astype(np.uint8))
    if mode != "RGBA" and image.has_transparency_data:
        over = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", over.size, "white"), over).convert("RGB")
    return image.convert(mode)


@contextmanager
def _opened(path: Path) -> "Iterator[Image.Image]":
    """An image of which the header alone is read so far. Raises ImageError."""
    from PIL import Image

    if not path.is_file():
        # To open a FIFO would wait for somebody who writes into it.
        raise ImageError("it is no file, but a link to nothing, a FIFO, a socket or a device")
    with _readable(), Image.open(path, formats=("PNG", "JPEG")) as image:
        yield image


@contextmanager
def _readable() -> Iterator[None]:
    """Whatever a damaged file makes the decoder raise becomes an ImageError."""
    try:
        yield
    except ImageError:
        raise
    except Exception as error:
        from PIL import UnidentifiedImageError

        is_none = isinstance(error, UnidentifiedImageError)
        reason = "it is no PNG or JPEG" if is_none else str(error).split("\n")[0][:100]
        raise ImageError(f"it can't be read: {reason}") from None


def _size(image: "Image.Image") -> Size:
    """Height and width, once it is turned as it should be."""
    width, height = image.size
    turned = image.getexif().get(_ORIENTATION) in _TURNED
    return (width, height) if turned else (height, width)


def _wide(size: Size) -> str:
    """As people write it: width before height."""
    return f"{size[1]}×{size[0]}"
