"""A file read whole and in chunks, as prepare and infer do, and what the two must agree on."""

from pathlib import Path

import polars as pl
import pytest

from stages.common.errors import UserError
from stages.features.schema import Feature, FeatureKind, Schema, Target
from stages.formats.read import read_chunks
from stages.formats.reading import Damage, Noticed
from tests.support.tables import read_table


def schema_of(names: list[str], kind: FeatureKind = "categorical") -> Schema:
    """All columns are of one kind with gaps in training, and none is the key."""
    categories: list[str] | None = [] if kind == "categorical" else None
    features = [
        Feature(name=name, kind=kind, categories=categories, missing=True) for name in names
    ]
    return Schema(key=None, features=features, target=Target(name="y", task="regression"))


def read_new_rows(
    path: Path, names: list[str], kind: FeatureKind = "categorical"
) -> tuple[pl.DataFrame, list[int], list[Damage], list[str]]:
    """The table of what infer and predict read, its rows' numbers, what is set aside, notes."""
    noticed = Noticed()
    parts = list(read_chunks(path, schema_of(names, kind), "infer.input", noticed))
    tables = [part.table.cast(pl.String) for part in parts if part.table.height]
    table = pl.concat(tables) if tables else pl.DataFrame(schema=names)
    rows = [int(row) for part in parts for row in part.rows]
    return table, rows, [each for part in parts for each in part.damaged], noticed.lines()


def stops(path: Path) -> str:
    """What prepare says of a file that it does not read."""
    with pytest.raises(UserError) as caught:
        read_table(path, "prepare.source")
    return caught.value.problems[0].message


def assert_one_reading(path: Path, names: list[str]) -> tuple[pl.DataFrame, list[Damage]]:
    """Prepare reads what infer reads, or stops at the first line that infer sets aside."""
    texts, rows, damaged, notes = read_new_rows(path, names)
    numbers = [*rows, *(each.row for each in damaged)]
    assert sorted(numbers) == list(range(len(numbers)))
    if damaged:
        assert damaged[0].reason in stops(path)
        return texts, damaged
    said: list[str] = []
    table = read_table(path, "prepare.source", said.append)
    # Of new rows alone is said which of them leave out a column.
    assert said == [note for note in notes if "is not named in" not in note]
    assert table.shape == texts.shape
    for name in names:
        assert table[name].is_null().equals(texts[name].is_null())
        if table[name].dtype.is_numeric():
            assert table[name].equals(texts[name].cast(table[name].dtype))
        else:
            assert (table[name].cast(pl.String) == texts[name]).all() or (
                table[name].dtype == pl.Boolean
            )
    return texts, damaged
