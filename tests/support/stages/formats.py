"""A table that each format writes and reads back."""

from pathlib import Path

import polars as pl
import pytest

from stages.features.schema import Feature, FeatureKind, Schema, Target
from stages.formats.format import find_format
from stages.formats.suffixes import WRITTEN

KEY = "prepare.source"
# In a file of one format, each column is read as the type that it has here.
TABLE = pl.DataFrame(
    {
        "id": [1, 2, 3, 4],
        "height": [1.5, None, -2e-3, 1e300],
        "smoker": [True, False, None, True],
        "town": ["Oslo", None, "Saint-Étienne, Loire", 'said "so",\n\ttwice'],
        "long": [2**53 + 1, 2**63 - 1, -(2**63), None],
        "zip": ["007", "01067", "10115", None],
    }
)
KINDS: dict[str, FeatureKind] = {
    "height": "numeric",
    "smoker": "boolean",
    "town": "categorical",
    "long": "categorical",
    "zip": "categorical",
}
every_suffix = pytest.mark.parametrize("suffix", WRITTEN)


def written(path: Path, *tables: pl.DataFrame) -> Path:
    """The tables one below the other in a file, as the format itself writes them."""
    with find_format(path).open_writer(path, {"model_md5": "0"}) as write:
        for table in tables:
            write(table)
    return path


def mixed_schema() -> Schema:
    """`id` is the key, and each other column of TABLE a feature."""
    features = [
        Feature(name=name, kind=kind, categories=[] if kind == "categorical" else None)
        for name, kind in KINDS.items()
    ]
    return Schema(key="id", features=features, target=Target(name="y", task="regression"))
