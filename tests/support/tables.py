"""A table as prepare reads it, in one frame."""

from collections.abc import Callable, Collection
from pathlib import Path
from tempfile import TemporaryDirectory

import polars as pl

from stages.prepare.table.table import open_table


def read_table(
    path: Path,
    key: str,
    say: Callable[[str], None] = print,
    expected: Collection[str] = (),
) -> pl.DataFrame:
    """All rows and columns of a source, by the way that prepare and `reprise init` take."""
    with TemporaryDirectory() as folder:
        return open_table(path, key, Path(folder), say, expected).frame().rechunk()
