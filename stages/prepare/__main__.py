"""From a raw table to split, encoded, memory-mapped arrays: `python -m stages.prepare`.

Reads `prepare.source`; writes `data/prepare/{train,validation,test}/*.npy`, `schema.json`,
`statistics.json`, `expectations.json` and `expectations.html`; `rejected.csv`, the rows left out
with the reason of each; and `test_rows.parquet`, the rows of the test split as they came, without
their target: what infer predicts when `infer.input` is null.
"""

from pathlib import Path

import numpy as np
import polars as pl

from stages.common.params import Params
from stages.features.columns import (
    as_category,
    as_numeric,
    encode_codes,
    fits_float32,
    too_large,
)
from stages.features.encode import encode, row_keys
from stages.features.schema import KINDS, Array, Schema, Statistics, write_record
from stages.features.spelling import as_line
from stages.formats.read import read_table
from stages.formats.reject import write_rejected
from stages.prepare.doubts import find_doubts, stop_at_total
from stages.prepare.expectations.run import check_expectations
from stages.prepare.fit import fit_schema, fit_statistics, tell
from stages.prepare.images import load_images
from stages.prepare.infer_schema import SOURCE, find_schema, names_rows
from stages.prepare.params import PrepareParams
from stages.prepare.split import Rows, split_rows
from stages.prepare.structure import find_structure
from stages.prepare.twins import Twins
from stages.prepare.written import read_written, with_written
from stages.runtime.stage import run_stage


def prepare(params: Params, out: Path) -> None:
    """Validate, describe, split, fit on train, encode, write."""
    section = params.section("prepare", PrepareParams)
    table = read_table(Path(section.source), SOURCE, expected=section.named)
    table, written, lines = read_written(table, section)
    for line in lines:
        print(line)
    stop_at_total(table, SOURCE)
    images = load_images(table, section)
    write_rejected(out / "rejected.csv", images.rejected)
    suite = None if section.expectations is None else Path(section.expectations)
    check_expectations(images.table, suite, section.source, out)

    there = _rows_with_target(images.table, section)
    whole, table, there = table, images.table[there], images.rows[there]
    schema = images.describe(with_written(find_schema(table, section), written))
    for line in (*_left_out(table, section), *find_doubts(table, schema, section.columns)):
        print(f"warning  {line}")
    keys = row_keys(whole, schema, "prepare.key")[there]
    classes = _classes(table, schema)
    rows = split_rows(keys, classes, section.split, find_structure(table, section))

    names = [] if schema.key is None else [schema.key]
    names += [feature.name for feature in schema.features]
    table[rows["test"]][names].write_parquet(out / "test_rows.parquet")

    train = table[rows["train"]]
    schema = fit_schema(schema, train)
    statistics = fit_statistics(schema, train)
    for line in _constant(schema, statistics):
        print(f"warning  {line}")
    for line in tell(schema, table):
        print(line)
    write_record(out / "schema.json", schema)
    write_record(out / "statistics.json", statistics)

    twins = Twins()
    for split, numbers in rows.items():
        part = table[numbers]
        arrays = encode(part, schema, statistics, SOURCE)
        arrays["target"] = _target(part, schema, statistics)
        arrays["key"] = keys[numbers]
        (out / split).mkdir()
        for name, array in arrays.items():
            np.save(out / split / f"{name}.npy", array)
        for line in twins.add(split, arrays):
            print(f"warning  {line}")
    print(_summary(section.source, table, schema, {name: len(n) for name, n in rows.items()}))


def _rows_with_target(table: pl.DataFrame, section: PrepareParams) -> Rows:
    """The numbers of the rows to learn from: all, unless those without a target are to go."""
    if not section.drop_missing_target or section.target not in table.columns:
        return np.arange(table.height)
    target = table[section.target]
    gaps = target.is_null() | (target.is_nan() if target.dtype.is_float() else False)
    if gaps.any():
        print(f"note: {gaps.sum()} of {table.height} rows have no '{target.name}': left out")
    return (~gaps).arg_true().to_numpy().astype(np.int64)


def _left_out(table: pl.DataFrame, section: PrepareParams) -> list[str]:
    """A line for each column of row labels that no parameter names."""
    named = {*section.columns, section.key, section.target}
    return [
        f"'{column.name}' is left out: it holds the row labels of a frame of pandas or R, such as "
        f"{column[0]!r}; to learn from it all the same, say what it is in prepare.columns"
        for column in table.iter_columns()
        if column.name not in named and names_rows(column)
    ]


def _constant(schema: Schema, statistics: Statistics) -> list[str]:
    """A line for each column of numbers that training can't tell rows apart by."""
    return [
        f"'{name}' is {moments.mean:.7g} in every training row that has a value: nothing can be "
        f"learnt from it; leave it out: {as_line(name, 'exclude')}"
        for feature in schema.of_kind("numeric")
        if (moments := statistics.numeric[(name := feature.name)]).constant
    ]


def _classes(table: pl.DataFrame, schema: Schema) -> Array | None:
    """Codes from 0 in the order of the schema's classes, (rows,) int64; None for regression."""
    if schema.target.classes is None:
        return None
    names = as_category(pl.Series("class", schema.target.classes)).to_list()
    codes = encode_codes(table[schema.target.name], names, SOURCE)
    assert codes.min() > 0
    return np.asarray(codes - 1)


def _target(table: pl.DataFrame, schema: Schema, statistics: Statistics) -> Array:
    """The target of the loss: class codes int64, or standardised values float32.
    (rows,).
    """
    classes = _classes(table, schema)
    if classes is not None:
        return classes
    assert statistics.target is not None
    values = as_numeric(table[schema.target.name], SOURCE)
    scaled = (values - statistics.target.mean) / statistics.target.deviation
    if not fits_float32(scaled):
        raise too_large(values, SOURCE)
    return scaled.to_numpy().astype(np.float32)


def _summary(source: str, table: pl.DataFrame, schema: Schema, sizes: dict[str, int]) -> str:
    kinds = ", ".join(
        f"{len(schema.of_kind(kind))} {kind}" for kind in KINDS if schema.of_kind(kind)
    )
    target = schema.target
    what = f"{len(target.classes)} classes" if target.classes is not None else "a value"
    rows = ", ".join(f"{name} {count}" for name, count in sizes.items())
    return (
        f"{source}: {table.height} rows; columns: {kinds}\n"
        f"{target.task} of '{target.name}' ({what})\n"
        f"rows: {rows}"
    )


if __name__ == "__main__":
    run_stage("prepare", prepare)
