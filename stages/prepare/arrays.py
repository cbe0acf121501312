"""Arrays of a split on the disk, written part by part: the files that `numpy.save` would write."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np

from stages.features.schema import Array


@dataclass
class ArrayWriter:
    """Adds rows to the arrays of a folder, which have `num_rows` at the end."""

    folder: Path
    num_rows: int
    stack: ExitStack
    files: dict[str, BinaryIO] = field(default_factory=dict)

    def add(self, arrays: Mapping[str, Array]) -> None:
        """Write the next rows of each array, by its name."""
        for name, array in arrays.items():
            if name not in self.files:
                self.files[name] = self.stack.enter_context(
                    (self.folder / f"{name}.npy").open("wb")
                )
                header = {
                    "descr": np.lib.format.dtype_to_descr(array.dtype),
                    "fortran_order": False,
                    "shape": (self.num_rows, *array.shape[1:]),
                }
                np.lib.format.write_array_header_1_0(self.files[name], header)
            np.ascontiguousarray(array).tofile(self.files[name])


@contextmanager
def open_arrays(folder: Path, num_rows: int) -> Iterator[ArrayWriter]:
    """A writer into a new folder, of `num_rows` in all."""
    folder.mkdir()
    with ExitStack() as stack:
        yield ArrayWriter(folder, num_rows, stack)
