"""Arrays of a split on the disk, written in any order: the files that `numpy.save` would write.

Several processes may write rows of one file, each into the rows' own place, and may do so twice.
"""

import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from stages.features.schema import Array

# Of an array: its type as the header has it, and the shape of one row.
Layout = tuple[Any, tuple[int, ...]]


def write_rows(
    folder: Path, arrays: Mapping[str, Array], start: int, num_rows: int
) -> dict[str, Layout]:
    """Write rows of each array, by its name, from row `start` on; the file has `num_rows` in all.

    Row 0 brings the header. Return what must be the same for all rows of a file.
    """
    layouts = {}
    for name, array in arrays.items():
        descr, row_shape = np.lib.format.dtype_to_descr(array.dtype), array.shape[1:]
        header = io.BytesIO()
        np.lib.format.write_array_header_1_0(
            header, {"descr": descr, "fortran_order": False, "shape": (num_rows, *row_shape)}
        )
        row_bytes = array.dtype.itemsize * int(np.prod(row_shape, dtype=np.int64))
        pieces = {len(header.getvalue()) + start * row_bytes: as_bytes(array)}
        if start == 0:
            pieces[0] = header.getbuffer()
        write_at(folder / f"{name}.npy", pieces)
        layouts[name] = descr, row_shape
    return layouts


def as_bytes(array: Array) -> memoryview:
    """The numbers of an array, one behind the other, as they lie in memory."""
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def write_at(path: Path, pieces: Mapping[int, memoryview]) -> None:
    """Write each piece into its place of a file, which may be there or not.

    For writing alone: a disk of a network then sends these bytes, and no others around them.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o666)
    try:
        for start, piece in pieces.items():
            left, place = piece, start
            while left:
                written = os.pwrite(descriptor, left, place)
                left, place = left[written:], place + written
    finally:
        os.close(descriptor)
