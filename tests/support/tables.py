"""A table as prepare reads it, in one frame; tables that are hard to learn."""

from collections.abc import Callable, Collection
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import polars as pl

from stages.prepare.table.open_table import open_table


def read_table(
    path: Path,
    key: str,
    say: Callable[[str], None] = print,
    expected: Collection[str] = (),
) -> pl.DataFrame:
    """All rows and columns of a source, by the way that prepare and `reprise init` take."""
    with TemporaryDirectory() as folder:
        return open_table(path, key, Path(folder), say, expected).frame().rechunk()


def rare_table(num_rows: int) -> pl.DataFrame:
    """One row in fifty is of the other class, by a column that tells it well and not surely."""
    random = np.random.default_rng(5)
    rare = random.random(num_rows) < 0.02
    return pl.DataFrame(
        {
            "id": np.arange(num_rows),
            "size": random.normal(size=num_rows) + 2.0 * rare,
            "heavy": random.choice([0.5, 1.0, 4.0], num_rows),
            "y": np.where(rare, "ill", "well"),
        }
    )


def faint_table(num_rows: int) -> pl.DataFrame:
    """Values of which a column explains three hundredths."""
    random = np.random.default_rng(6)
    size = random.normal(size=num_rows)
    noise = random.normal(0, 1.4, num_rows)
    return pl.DataFrame({"id": np.arange(num_rows), "size": size, "y": 0.25 * size + noise})
