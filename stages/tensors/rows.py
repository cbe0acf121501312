"""Rows for a dataset of one's own: those of a split as prepare has written them."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from stages.features.schema import (
    Array,
    Schema,
    Statistics,
    load_arrays,
    read_schema,
    read_statistics,
)
from stages.tensors.batch import Batch, to_batch, to_target


@dataclass(frozen=True)
class Rows:
    """A split on disk. `arrays` are memory-mapped, by kind, rows first; images are as stored.

    `keys` (rows,) name the rows. `weight` (rows,) is that of each as the source has it; None: all
    count the same. `statistics` are those that images are standardised by, with
    `stages.tensors.batch.standardise`; numbers are standardised already.
    """

    folder: Path
    arrays: dict[str, Array]
    target: Array
    keys: Array
    schema: Schema
    statistics: Statistics
    weight: Array | None = None

    def __len__(self) -> int:
        return len(self.target)

    def __reduce__(self) -> tuple[Callable[[Path], "Rows"], tuple[Path]]:
        # Another process opens the files, where it isn't a copy of this one anyway.
        return open_rows, (self.folder,)

    def take(self, row: int) -> tuple[Batch, Tensor]:
        """A row as it is trained on without a dataset: features by kind, and target (scalar)."""
        one = slice(row, row + 1)
        arrays = {kind: array[one] for kind, array in self.arrays.items()}
        features = to_batch(arrays, self.statistics)
        target = to_target({"target": self.target[one]})
        return {kind: tensor[0] for kind, tensor in features.items()}, target[0]


def open_rows(folder: Path) -> Rows:
    """The split in `folder`, below the schema and the statistics."""
    arrays = load_arrays(folder)
    keys, target, weight = arrays.pop("key"), arrays.pop("target"), arrays.pop("weight", None)
    arrays.pop("group", None)
    schema, statistics = read_schema(folder.parent), read_statistics(folder.parent)
    return Rows(folder, arrays, target, keys, schema, statistics, weight)
