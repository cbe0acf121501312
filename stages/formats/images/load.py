"""A column of image files, by path or as bytes, to arrays: the rows of a whole table."""

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import median
from typing import TypeVar

import numpy as np
import polars as pl

from stages.common.counts import counted, either
from stages.common.errors import Problem, UserError
from stages.features.pixels import (
    ImageError,
    Pixels,
    Seen,
    Size,
    deep_values,
    look,
    opened,
    size_of,
    to_pixels,
    wide,
)
from stages.features.schema import Decode
from stages.formats.reading import Damage
from stages.parallel.thread_map import map_in_order, num_threads

# A column of these holds image files, not arrays.
FILES = (pl.String, pl.Binary)
# So many images are decoded by a thread before it hands them on.
BATCH = 64
# Of images that differ in size so many say which one to propose, with a longer side of PROPOSED.
LOOKED_AT, PROPOSED, STEP = 200, 64, 8
FEW_BITS = 8
Source = Path | bytes | ImageError
Result = TypeVar("Result")


@dataclass
class Loaded:
    """A column as an array (rows, height, width[, channels]) uint8.

    `rejected` are the rows that hold no image, of which nothing is in `pixels`; `changes` counts
    what is not read of the others as it stands there.
    """

    pixels: Pixels
    decode: Decode
    rejected: list[Damage] = field(default_factory=list)
    changes: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class _Read:
    """An image that was decoded; of 16 bits in grey there is only `peak`, its largest number."""

    row: int
    seen: Seen | None = None
    pixels: Pixels | None = None
    peak: int = 0
    reason: str | None = None


class _Stack:
    """Images of one size in a growing order of rows: grey ones until the first in colour."""

    def __init__(self, num_rows: int) -> None:
        self._num_rows = num_rows
        self._pixels: Pixels | None = None

    def put(self, row: int, pixels: Pixels) -> None:
        if self._pixels is None:
            self._pixels = np.empty((self._num_rows, *pixels.shape), np.uint8)
        elif pixels.ndim == self._pixels.ndim:
            # The first one in colour: what is grey gets three equal channels.
            grey = self._pixels
            self._pixels = np.empty((self._num_rows, *pixels.shape), np.uint8)
            self._pixels[...] = grey[..., None]
        own = self._pixels[row]
        own[...] = pixels if own.ndim == pixels.ndim else pixels[..., None]

    def rows(self, rejected: list[Damage]) -> Pixels:
        assert self._pixels is not None
        if not rejected:
            return self._pixels
        return np.delete(self._pixels, [damage.row for damage in rejected], axis=0)


def load_column(column: pl.Series, folder: Path, size: Size | None, key: str) -> Loaded:
    """The images of a column: paths below `folder`, or bytes.

    With `size` each is resized to it, else all must be of one. Raises UserError where they are
    not, and where none can be read; `key` is the parameter that names the table.
    """
    sources = [source_of(value, folder) for value in column]
    stack, deep, loaded = (
        _Stack(len(sources)),
        dict[int, int](),
        Loaded(np.empty(0, np.uint8), Decode()),
    )
    first: tuple[int, Size] | None = None
    # Of the upper 8 bits.
    colour_peaks: list[int] = []
    for read in map_sources(partial(_read_one, size=size), sources):
        if read.seen is None:
            loaded.rejected.append(Damage(read.row, read.reason or "", column.name))
            continue
        first = first or (read.row, read.seen.size)
        if size is None and read.seen.size != first[1]:
            raise _sizes_differ(sources, first, (read.row, read.seen.size))
        loaded.changes.update(read.seen.changes)
        if read.pixels is None:
            deep[read.row] = read.peak
        else:
            stack.put(read.row, read.pixels)
            colour_peaks += [int(read.pixels.max())] if read.seen.deep else []
    if first is None:
        message = f"no image of the column '{column.name}' can be read: {loaded.rejected[0].reason}"
        raise UserError(Problem(message, key))
    if colour_peaks and max(colour_peaks) < 1 << (FEW_BITS // 2):
        images = f"the {counted(len(colour_peaks), 'image')}"
        reach = either(len(colour_peaks), "reaches", "reach")
        message = (
            f"{images} of 16 bits in colour in '{column.name}' {reach} no more than "
            f"{max(colour_peaks) * 256 + 255} of 65535, and the upper 8 bits are kept: write "
            "them over the whole range, or in 8 bits"
        )
        raise UserError(Problem(message, key))
    depth = max(FEW_BITS, max(deep.values()).bit_length()) if deep else 16
    loaded.decode = Decode(resize=size is not None, depth=depth)
    for row in deep:
        stack.put(row, _deep_pixels(sources[row], size, depth))
    loaded.pixels = stack.rows(loaded.rejected)
    return loaded


def source_of(value: object, folder: Path) -> Source:
    """The file that a value names, or its bytes; an ImageError where it can be neither."""
    if isinstance(value, bytes):
        return value
    if not isinstance(value, str):
        return ImageError("there is no image")
    path = Path(value)
    # Cheap for the millions of rows whose paths are right: the disk is asked of the others alone.
    if path.is_absolute() or path.parts[:1] == folder.parts[:1]:
        inner = _inside(Path.cwd() / path, Path.cwd() / folder)
        if inner is not None and (path.is_absolute() or not (folder / path).exists()):
            where = f"the table's folder, {folder}: write '{inner.as_posix()}'"
            return ImageError(f"'{value}' is no path from {where}")
    if path.is_absolute() or ".." in path.parts:
        return ImageError(f"'{value}' does not lie in {folder}, where DVC would see it")
    return folder / path


def _inside(path: Path, folder: Path) -> Path | None:
    """The path of a file from `folder` on; None where it lies elsewhere, or there is none."""
    if ".." in path.parts or not path.is_relative_to(folder):
        return None
    # Not Path.is_file, which a name that is too long makes raise.
    return path.relative_to(folder) if os.path.isfile(path) else None  # noqa: PTH113


def map_sources(
    function: Callable[[int, Source], Result], sources: Sequence[Source]
) -> Iterator[Result]:
    """`function` of each number and source, in their order, on as many threads as there are cores.

    A few batches are held at a time.
    """
    batches = (range(at, min(at + BATCH, len(sources))) for at in range(0, len(sources), BATCH))

    def work(rows: range) -> list[Result]:
        return [function(row, sources[row]) for row in rows]

    for batch in map_in_order(work, batches, num_threads()):
        yield from batch


def find_sizes(sources: Sequence[Source]) -> list[Size]:
    """The sizes of the images that can be opened, from their headers."""
    return [size for size in map_sources(_find_size, sources) if size is not None]


def _find_size(_row: int, source: Source) -> Size | None:
    try:
        if isinstance(source, ImageError):
            return None
        with opened(source) as image:
            return size_of(image)
    except ImageError:
        return None


def propose_size(sizes: Sequence[Size]) -> Size:
    """A size to bring images to that is small enough to learn from on one machine.

    It has the shape of their median, or is a square where that nearly is one; its sides are
    multiples of STEP, and the longer one is PROPOSED at most.
    """
    height, width = (median(sides) for sides in zip(*sizes, strict=True))
    if 0.8 <= height / width <= 1.25:
        height = width = max(height, width)
    scale = min(1.0, PROPOSED / max(height, width))
    tall, across = (max(STEP, STEP * round(scale * side / STEP)) for side in (height, width))
    return tall, across


def _read_one(row: int, source: Source, *, size: Size | None) -> _Read:
    if isinstance(source, ImageError):
        return _Read(row, reason=str(source))
    try:
        with opened(source) as image:
            seen = look(image)
            if image.mode.startswith("I"):
                return _Read(row, seen, peak=int(deep_values(image).max()))
            return _Read(row, seen, to_pixels(image, None, size))
    except ImageError as error:
        return _Read(row, reason=str(error))


def _deep_pixels(source: Source, size: Size | None, depth: int) -> Pixels:
    assert not isinstance(source, ImageError)
    with opened(source) as image:
        return to_pixels(image, None, size, depth)


def _sizes_differ(
    sources: list[Source], first: tuple[int, Size], other: tuple[int, Size]
) -> UserError:
    """The mistake of images of several sizes, with the line to write."""
    shown = []
    for row, size in (first, other):
        source = sources[row]
        shown.append(f"{source if isinstance(source, Path) else f'row {row}'} is {wide(size)}")
    height, width = propose_size(find_sizes(sources[:: max(1, len(sources) // LOOKED_AT)]))
    message = (
        f"all images must be of one size: {shown[0]}, and {shown[1]}; to bring them to one, write "
        f"image: {{height: {height}, width: {width}}}"
    )
    return UserError(Problem(message, key="prepare.image", value="null"))
