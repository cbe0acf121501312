"""Columns of a table: their kinds with what is said of them, or the mistake that stops."""

from collections.abc import Sequence
from pathlib import Path

import polars as pl
import pytest

from stages.common.errors import Problem, UserError
from stages.features.schema import Schema
from stages.prepare.columns.doubts import find_doubts
from stages.prepare.columns.infer_schema import find_schema
from stages.prepare.columns.written import read_written, with_written
from tests.support.samples import prepare_params
from tests.support.stages.columns import KEY
from tests.support.tables import read_table

NUMBERS = [str(n * 7 % 211) for n in range(300)]


def table_of(folder: Path, values: Sequence[object], name: str = "x") -> pl.DataFrame:
    """The values as a column of a CSV file, each quoted, beside a target."""
    path = folder / "table.csv"
    lines = [f'"{value}",{"ab"[n % 2]}\n' for n, value in enumerate(values)]
    path.write_text(f"{name},y\n{''.join(lines)}", encoding="utf-8")
    return read_table(path, KEY)


def found(table: pl.DataFrame, **changes: object) -> tuple[Schema, list[str]]:
    params = prepare_params(**changes)
    table, written, _ = read_written(table, params)
    schema = with_written(find_schema(table, params), written)
    return schema, list(find_doubts(table, schema, params.columns))


def stopped(table: pl.DataFrame, **changes: object) -> Problem:
    params = prepare_params(**changes)
    with pytest.raises(UserError) as caught:
        find_schema(read_written(table, params)[0], params)
    (problem,) = caught.value.problems
    return problem
