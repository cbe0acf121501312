"""Columns that are not what they look like: said with values and rows, or stopped for."""

from pathlib import Path

import numpy as np
import pandas
import polars as pl
import pytest

from stages.common.errors import UserError
from stages.features.encode import encode
from stages.features.schema import read_schema, read_statistics
from stages.features.spelling import as_line
from stages.formats.read import read_chunks
from stages.infer.rejected import encode_whole
from stages.prepare.columns.infer_schema import find_schema
from stages.prepare.table.table import in_memory
from stages.prepare.table.total import stop_at_total
from tests.support.samples import prepare_params, run_stages, small_project
from tests.support.stages.columns import KEY
from tests.support.stages.doubts import found, stopped, table_of
from tests.support.tables import read_table


@pytest.mark.parametrize(
    ("values", "says"),
    [
        (
            [f"{1 + n % 12}:{30 + n % 7}" for n in range(300)],
            "'x' holds times of day, durations or ratios, taken as 84 categories: '1:30' (row 0), ",
        ),
        ([f"({n})" for n in range(300)], "'x' holds numbers as texts, taken as 300 categories: "),
        (
            [f"${n}" for n in range(300)],
            "measure something, columns: {x: {kind: numeric, unit: '$'}}",
        ),
        (
            [f"{n} %" for n in range(300)],
            "'x' holds numbers with the unit '%', taken as 300 categor",
        ),
        (
            [f"seat {n}" if n < 100 else n for n in range(300)],
            "and 100 others: 'seat 0' (row 0), 'seat 1' (row 1), 'seat 2' (row 2); ",
        ),
        (
            [f"Braund, Mr. {n}" for n in range(300)],
            "'x' has 300 different texts in 300 rows: 'Braund, Mr. 0' (row 0), ",
        ),
    ],
)
def test_texts_that_are_no_categories_are_said_with_values_and_rows(
    tmp_path: Path, values: list[object], says: str
) -> None:
    table = table_of(tmp_path, values)
    schema, (line,) = found(table)
    assert schema.features[0].kind == "categorical"
    assert says in line
    assert "columns: {x: exclude}" in line
    assert "if that is meant, columns: {x: categorical}" in line
    assert found(table, columns={"x": "categorical"})[1] == []


def test_ordinary_categories_are_not_talked_about(tmp_path: Path) -> None:
    for values in (["Oslo", "Bergen", ""], ["1a", "2b", "3c"], ["yes", "no", "unknown"]):
        assert found(table_of(tmp_path, values * 40))[1] == []
    # Of a handful of rows nothing can be said.
    assert found(table_of(tmp_path, [f"word {n}" for n in range(8)]))[1] == []


def test_leading_zeros_are_kept_and_said(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    rows = [f"{n:03d},{n % 40 * 37:05d},{n % 4:02d}\n" for n in range(120)]
    path.write_text(f"id,zip,y\n{''.join(rows)}", encoding="utf-8")
    schema, said = found(read_table(path, KEY), key="id")
    assert schema.features[0].kind == "categorical"
    assert schema.target.classes == ["00", "01", "02", "03"]
    assert said == [
        "'zip' is kept as text, for its leading zeros: '00000' (row 0), '00037' (row 1), "
        "'00074' (row 2)",
        "'id' is kept as text, for its leading zeros: '000' (row 0), '001' (row 1), '002' (row 2)",
        "'y' is kept as text, for its leading zeros: '00' (row 0), '01' (row 1), '02' (row 2)",
    ]


def test_names_that_begin_with_a_zero_are_no_numbers(tmp_path: Path) -> None:
    names = [f"{n % 16:x}{n:03d}-7c1f-44ae" for n in range(120)]
    table = table_of(tmp_path, names).with_columns(a=pl.Series([1.5, 2.5] * 60))
    assert found(table, key="x")[1] == []


@pytest.mark.parametrize("dtype", [pl.Int64, pl.UInt64, pl.Int128])
def test_whole_numbers_that_a_model_takes_for_one_another_are_refused(
    dtype: type[pl.DataType],
) -> None:
    ids = pl.Series("x", [None, *(2**53 + n for n in range(19))], dtype)
    table = pl.DataFrame({"x": ids, "z": range(20), "y": ["a", "b"] * 10})
    problem = stopped(table)
    assert "'x' looks like an id: 18 of its whole numbers are beyond 2^53" in problem.message
    assert "such as 9007199254740993 (row 2)" in problem.message
    assert problem.key == "prepare.columns.x"
    for kind in ("numeric", "categorical", "exclude"):
        assert find_schema(table, prepare_params(columns={"x": kind}))
    problem = stopped(table[1:], target="x", task="regression")
    assert problem.key == "prepare.target"
    small = table.with_columns(pl.col("x") - 2**53)
    assert find_schema(small, prepare_params()).features[0].kind == "numeric"


def test_a_column_that_numbers_the_rows_is_said() -> None:
    table = pl.DataFrame({"PassengerId": range(1, 61), "x": [3, 1, 2] * 20, "y": ["a", "b"] * 30})
    (line,) = found(table)[1]
    assert line.startswith("'PassengerId' numbers the rows (1, 2, 3, …): a model learns the order")
    assert found(table, key="PassengerId")[1] == []
    assert found(table, columns={"PassengerId": "numeric"})[1] == []
    assert found(table.sample(fraction=1, shuffle=True, seed=1))[1] == []


def test_numbers_that_seem_to_be_times_since_1970_are_said() -> None:
    seconds = pl.Series([1_700_000_000 + n * n * 7200 for n in range(60)])
    table = pl.DataFrame({"t": seconds, "y": ["a", "b"] * 30})
    (line,) = found(table)[1]
    assert line.startswith("'t' seems to hold seconds since 1970, taken as numbers; if they are")
    assert "columns: {t: {kind: datetime, format: unix}}" in line
    (line,) = found(table.with_columns(pl.col("t") * 1000))[1]
    assert "columns: {t: {kind: datetime, format: unix ms}}" in line
    both = table.with_columns(
        pl.when(pl.int_range(60) < 50).then("t").otherwise(pl.col("t") * 1000)
    )
    (line,) = found(both)[1]
    assert "50 seconds and 10 milliseconds since 1970" in line
    assert found(both, columns={"t": "numeric"})[1] == []
    assert found(table.with_columns(pl.col("t") - 800_000_000))[1] == []


def test_the_line_that_says_a_kind_is_yaml() -> None:
    assert as_line("zip", "categorical") == "columns: {zip: categorical}"
    for name in ("", "a b", "a: b", "no", 'a"b', "é{", "7"):
        from ruamel.yaml import YAML

        assert YAML(typ="safe").load(as_line(name, "exclude")) == {"columns": {name: "exclude"}}


FRAME = pandas.DataFrame(
    {"x": np.random.default_rng(0).normal(size=60), "y": np.repeat(["a", "b", "c"], 20)}
)


def labelled(folder: Path, kind: str) -> Path:
    """A table of noise, sorted by class, as pandas or R write it with its row labels."""
    path = folder / f"table.{'parquet' if kind == 'parquet' else 'csv'}"
    if kind == "parquet":
        # Pandas writes those labels as a column that are no range.
        FRAME.sample(frac=1, random_state=0).to_parquet(path)
    elif kind == "csv":
        FRAME.to_csv(path)
    elif kind == "read and written":
        FRAME.rename_axis("Unnamed: 0").to_csv(path)
    elif kind == "rownames":
        visits = FRAME.rename(index=lambda place: place // 4 + 1 + (place % 4 + 1) / 10)
        visits.to_csv(path, index_label=kind)
    else:
        FRAME.rename(index="row {}".format).to_csv(path, quoting=2)
    return path


@pytest.mark.parametrize("kind", ["csv", "read and written", "R", "rownames", "parquet"])
def test_row_labels_of_pandas_are_left_out_and_said_and_infer_takes_the_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    path = labelled(tmp_path, kind)
    changes = {"prepare.source": str(path), "prepare.key": None}
    project = small_project(tmp_path / "project", mixed(), changes)
    run_stages(project, "prepare")
    shown = capsys.readouterr().out
    assert shown.count("warning ") == 1
    assert "is left out: it holds the row labels of a frame of pandas or R, such as " in shown
    schema = read_schema(project.path / "data/prepare")
    assert [feature.name for feature in schema.features] == ["x"]
    statistics = read_statistics(project.path / "data/prepare")
    (chunk,) = read_chunks(path, schema, "infer.input")
    whole, arrays = encode_whole(chunk, schema, statistics, "infer.input")
    assert whole.damaged == []
    expected = encode(read_table(path, KEY), schema, statistics, KEY)
    np.testing.assert_array_equal(arrays["numeric"], expected["numeric"])


def test_a_column_of_one_value_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = pl.from_pandas(FRAME).with_columns(site=pl.lit(14.62))
    run_stages(small_project(tmp_path / "project", table, {"prepare.key": None}), "prepare")
    (line,) = [x for x in capsys.readouterr().out.splitlines() if x.startswith("warning  ")]
    assert line.startswith("warning  'site' is 14.62 in every training row that has a value: ")
    assert line.endswith("leave it out: columns: {site: exclude}")


def mixed() -> pl.DataFrame:
    return pl.DataFrame({"x": [1.0, 2.0], "y": ["a", "b"]})


def test_labels_that_are_named_are_learned_from_and_others_are_no_labels(tmp_path: Path) -> None:
    table = read_table(labelled(tmp_path, "csv"), KEY)
    schema, _ = found(table, columns={"": "numeric"})
    assert [feature.name for feature in schema.features] == ["", "x"]
    assert [feature.name for feature in found(table, key="")[0].features] == ["x"]
    repeated = table.with_columns(pl.Series("", [1, 2, 3] * 20))
    schema, (line,) = found(repeated)
    assert [feature.name for feature in schema.features] == ["", "x"]
    assert line.startswith("the column without a name is learned from")


def test_a_last_word_for_a_sum_stands_in_a_table_without_numbers() -> None:
    table = pl.DataFrame({"word": ["first", "second", "total"], "y": ["a", "b", "a"]})
    stop_at_total(in_memory(table), KEY)
    table = table.with_columns(n=pl.Series([1, 2, 3]))
    with pytest.raises(UserError, match=r"the last row \(2\)"):
        stop_at_total(in_memory(table), KEY)
