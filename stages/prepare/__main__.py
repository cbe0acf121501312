"""From a raw table to split, encoded, memory-mapped arrays: `python -m stages.prepare`.

Reads `prepare.source`; writes `data/prepare/{train,validation,test}/*.npy`, `schema.json`,
`statistics.json`, `expectations.json` and `expectations.html`; `rejected.csv`, the rows left out
with the reason of each; and `test_rows.parquet`, the rows of the test split as they came, without
their target: what infer predicts when `infer.input` is null.
"""

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import polars as pl

from stages.common.addresses import local_path, name_objects
from stages.common.counts import either
from stages.common.params import Params
from stages.features.schema import KINDS, Schema, Statistics, TargetTransform, write_record
from stages.features.spelling import as_line
from stages.formats.parquet import open_writer
from stages.formats.reject import write_rejected
from stages.parallel.mapper import Mapper
from stages.parallel.open_mapper import open_mapper
from stages.prepare.columns.doubts import find_doubts
from stages.prepare.columns.infer_schema import SOURCE, check_names, find_schema, names_rows
from stages.prepare.columns.looks import has_target
from stages.prepare.columns.parts import say_files
from stages.prepare.columns.pretrained import with_pretrained
from stages.prepare.columns.target import check_transform, find_target
from stages.prepare.columns.variants import find_variants
from stages.prepare.columns.written import gap_words, with_written
from stages.prepare.encode_parts import input_columns, write_arrays
from stages.prepare.expectations.run import check_expectations, check_files
from stages.prepare.fit import fit_schema, fit_statistics, tell
from stages.prepare.images import load_images
from stages.prepare.params import PrepareParams
from stages.prepare.rows.assign import LEFT_OUT, assign_rows
from stages.prepare.rows.keys import find_keys
from stages.prepare.rows.split import SPLITS, Codes
from stages.prepare.rows.twins import say_remedy
from stages.prepare.table.dots import signed_columns
from stages.prepare.table.long_table import apply_writing
from stages.prepare.table.open_table import open_table
from stages.prepare.table.sample import take_sample
from stages.prepare.table.table import Mask, Table
from stages.prepare.table.total import stop_at_total
from stages.runtime.stage import run_stage


def prepare(params: Params, out: Path) -> None:
    """Validate, describe, split, fit on train, encode, write."""
    section = params.section("prepare", PrepareParams)
    source = local_path("prepare", section.source)
    section = section.model_copy(update={"source": str(source)})
    # Of a table that memory does not hold, the parts lie here as long as the stage runs.
    folder = (out / "parts").resolve()
    try:
        with open_mapper("prepare", folder) as mapper:
            _prepare(section, out, folder, mapper)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _prepare(section: PrepareParams, out: Path, folder: Path, mapper: Mapper) -> None:
    source, named = Path(section.source), name_objects(section.source)
    signed = signed_columns(section.columns)
    raw = open_table(source, SOURCE, folder, _say, section.named, mapper, signed)
    check_names(raw.columns, section)
    sample = take_sample(raw, section.words, mapper)
    raw, sample, written, lines = apply_writing(raw, sample, section)
    for line in lines:
        print(line)
    stop_at_total(raw, SOURCE)
    suite = None if section.expectations is None else Path(section.expectations)
    of_files = check_files(raw, suite, source)
    images = load_images(raw, sample.table, section)
    table = images.table
    check_expectations(table, suite, named, out, of_files, mapper=mapper)

    usable = _rows_with_target(table, section)
    labelled = table if usable is None else table.where(usable)
    rows = None if usable is None else images.in_source(np.flatnonzero(usable))
    target = find_target(
        labelled.column_parts(section.target),
        section.task,
        rows,
        gap_words(section.target, section),
    )
    check_transform(labelled.column_parts(section.target), target, section.target_transform)
    sample = sample if labelled is raw else take_sample(labelled, section.words, mapper)
    found = find_schema(sample.table, section, target, sample.rows)
    schema = with_pretrained(images.describe(with_written(found, written)), section)
    for line in (
        *([] if section.split.column else say_files(source)),
        *_row_label_warnings(sample.table, section),
        *find_doubts(sample.table, schema, section.columns, sample.rows),
        *find_variants(sample.table, schema, section),
    ):
        print(f"warning  {line}")

    keys = find_keys(raw, schema.key)
    assigned = assign_rows(images, usable, schema, keys, section, mapper)
    for line in assigned.lines:
        print(line)
    write_rejected(out / "rejected.csv", [*images.rejected, *assigned.copies])
    chosen, train = table.where(assigned.codes < LEFT_OUT), table.where(assigned.of("train"))
    if table.is_on_disk and mapper.is_remote:
        chosen = chosen.with_mask_on_disk(folder / "chosen.npy")
        train = train.with_mask_on_disk(folder / "train.npy")

    schema = fit_schema(schema, train, mapper)
    statistics = fit_statistics(schema, train, mapper, section.target_transform)
    for line in _constant(schema, statistics):
        print(f"warning  {line}")
    for line in tell(schema, chosen, mapper):
        print(line)
    write_record(out / "schema.json", schema)
    write_record(out / "statistics.json", statistics)
    test = table.where(assigned.of("test"))
    with ThreadPoolExecutor(1) as pool:
        # One file, that one process writes: while others encode.
        written_rows = pool.submit(_write_test_rows, out / "test_rows.parquet", test, schema)
        repeats = write_arrays(images, assigned, keys, schema, statistics, out, folder, mapper)
        written_rows.result()
    for twins in repeats:
        print(f"warning  {twins.line}{say_remedy(section, twins)}")
    print(_summary(named, chosen.height, schema, assigned.codes, section.target_transform))


def _say(line: str) -> None:
    print(name_objects(line))


def _write_test_rows(path: Path, table: Table, schema: Schema) -> None:
    """The rows of the test split as they came, without their target."""
    names = input_columns(schema)
    if table.is_whole:
        table.frame()[names].write_parquet(path)
        return
    with open_writer(path, {}) as write:
        for part in table.parts(names):
            write(part[names])


def _rows_with_target(table: Table, section: PrepareParams) -> Mask | None:
    """The rows to learn from (rows,); None: all, unless those without a target are to go."""
    if not section.drop_missing_target or section.target not in table.columns:
        return None
    has = [has_target(part).to_numpy() for part in table.column_parts(section.target)]
    missing = ~np.concatenate(has)
    if not missing.any():
        return None
    have = either(missing.sum(), "has", "have")
    print(f"note: {missing.sum()} of {table.height} rows {have} no '{section.target}': left out")
    return np.asarray(~missing)


def _row_label_warnings(table: pl.DataFrame, section: PrepareParams) -> list[str]:
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


def _summary(
    source: str, num_rows: int, schema: Schema, codes: Codes, transform: TargetTransform | None
) -> str:
    kinds = ", ".join(
        f"{len(schema.of_kind(kind))} {kind}" for kind in KINDS if schema.of_kind(kind)
    )
    target = schema.target
    what = "a value" if transform is None else f"a value, learned as its {transform}"
    what = f"{len(target.classes)} classes" if target.classes is not None else what
    rows = ", ".join(f"{name} {(codes == code).sum()}" for code, name in enumerate(SPLITS))
    return (
        f"{source}: {num_rows} rows; columns: {kinds}\n"
        f"{target.task} of '{target.name}' ({what})\n"
        f"rows: {rows}"
    )


if __name__ == "__main__":
    run_stage("prepare", prepare)
