"""Rows as they come from a database, batch by batch."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from stages.tools.query.columns import Column


@dataclass(frozen=True)
class Rows:
    """The columns of a snapshot, and the batches of Arrow that its rows come in.

    `lost` counts, while they come, the values of each column that became gaps.
    """

    columns: Sequence[Column]
    batches: Iterable[Any]
    lost: dict[str, int]

    @property
    def schema(self) -> Any:
        """The names and types that the file is written with."""
        return pa.schema([(column.name, column.type) for column in self.columns])

    def converted(self) -> Iterator[Any]:
        """The batches, as the file holds them."""
        for batch in self.batches:
            arrays = [
                column.convert(array)
                for column, array in zip(self.columns, batch.columns, strict=True)
            ]
            yield pa.record_batch(arrays, schema=self.schema)
