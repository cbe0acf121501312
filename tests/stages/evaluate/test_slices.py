"""Slices of the test rows: what is in each, what the metric is there, and which is the worst."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from scipy.stats import ttest_1samp

from stages.common.errors import UserError
from stages.common.files import read_csv
from stages.evaluate.measure.bootstrap import Interval, find_intervals
from stages.evaluate.outputs.residuals import MAX_SLICES as MAX_RESIDUALS
from stages.evaluate.outputs.residuals import mean_residual, write_residuals
from stages.evaluate.outputs.slices import (
    RESAMPLES,
    SMALL_ROWS,
    Slice,
    cut,
    find_worst,
    measure_slices,
)
from stages.features.encode import encode
from stages.features.kinds.categorical import MAX_SLICES
from stages.features.schema import Array, Feature, Schema, Statistics, Target
from stages.prepare.fit import fit_schema, fit_statistics
from stages.prepare.table.table import in_memory
from tests.stages.evaluate.measured import guesses
from tests.support.samples import mixed_table

PLAIN = Schema(
    key=None,
    features=[
        Feature(name="smoker", kind="boolean"),
        Feature(name="size", kind="numeric"),
        Feature(name="town", kind="categorical"),
        Feature(name="weight", kind="numeric"),
    ],
    target=Target(name="y", task="classification", classes=["ill", "well"]),
)


def fitted(train: pl.DataFrame) -> tuple[Schema, Statistics]:
    schema = fit_schema(PLAIN, in_memory(train))
    return schema, fit_statistics(schema, in_memory(train))


def sliced(
    train: pl.DataFrame, test: pl.DataFrame, columns: list[str] | None = None
) -> dict[tuple[str, str], list[int]]:
    schema, statistics = fitted(train)
    arrays = [encode(table, schema, statistics, "test") for table in (train, test)]
    found = list(cut(columns, schema, statistics, *arrays))
    assert len({part[:2] for part in found}) == len(found)
    return {(column, label): rows.tolist() for column, label, rows in found}


def table(num_rows: int = 120) -> pl.DataFrame:
    return mixed_table(num_rows).with_columns(weight=pl.int_range(pl.len()) % 2 * 1.5)


def where(test: pl.DataFrame, condition: pl.Expr) -> list[int]:
    return test.select(condition.arg_true()).to_series().to_list()


def test_each_column_is_cut_by_its_own_values() -> None:
    train, test = table(), table(60)[7:]
    found = sliced(train, test)
    size = train["size"].drop_nulls().sort()
    q1, q2, q3 = (size[int((len(size) - 1) * q)] for q in (0.25, 0.5, 0.75))
    expected = {
        ("smoker", "false"): ~pl.col("smoker"),
        ("smoker", "true"): pl.col("smoker"),
        ("smoker", "(missing)"): pl.col("smoker").is_null(),
        ("size", f"up to {q1:.3f}"): pl.col("size") <= q1,
        ("size", f"{q1:.3f} to {q2:.3f}"): (pl.col("size") > q1) & (pl.col("size") <= q2),
        ("size", f"{q2:.3f} to {q3:.3f}"): (pl.col("size") > q2) & (pl.col("size") <= q3),
        ("size", f"above {q3:.3f}"): pl.col("size") > q3,
        ("size", "(missing)"): pl.col("size").is_null(),
        ("town", "Bergen"): pl.col("town") == "Bergen",
        ("town", "Oslo"): pl.col("town") == "Oslo",
        ("town", "Tromsø"): pl.col("town") == "Tromsø",
        ("town", "(missing)"): pl.col("town").is_null(),
        ("weight", "0"): pl.col("weight") == 0,
        ("weight", "1.5"): pl.col("weight") == 1.5,
    }
    assert found == {what: where(test, rows) for what, rows in expected.items()}


def test_the_columns_can_be_chosen() -> None:
    train = table()
    assert {column for column, _ in sliced(train, train, ["town"])} == {"town"}
    assert sliced(train, train, []) == {}


def test_a_column_of_one_value_has_no_slices() -> None:
    train = table().with_columns(smoker=pl.lit(value=True), size=3.0)
    assert {column for column, _ in sliced(train, train)} == {"town", "weight"}


def test_rare_categories_are_taken_together() -> None:
    names = [f"c{k:02}" for k in range(30) for _ in range(31 - k)]
    train = table(len(names)).with_columns(town=pl.Series(names))
    found = sliced(train, train, ["town"])
    assert len(found) == MAX_SLICES + 1
    assert len(found["town", "(others)"]) == sum(31 - k for k in range(MAX_SLICES, 30))


@pytest.mark.parametrize(
    ("name", "says"), [("twon", "did you mean 'town'"), ("photo", "holds images")]
)
def test_what_is_no_column_to_slice_by_is_told(name: str, says: str) -> None:
    schema, statistics = fitted(table())
    image = Feature(name="photo", kind="image", shape=[1, 2, 2], layout="HW")
    schema = schema.model_copy(update={"features": [*schema.features, image]})
    with pytest.raises(UserError, match=says) as caught:
        list(cut(["town", name], schema, statistics, {}, {"categorical": np.zeros((1, 1), int)}))
    assert caught.value.problems[0].key == "evaluate.slices.1"


def test_slices_by_a_calendar_are_refused_and_left_out_where_none_are_named() -> None:
    schema, statistics = fitted(table())
    day = Feature(name="day", kind="datetime", cycles=["week"], width=2, calendar=True)
    schema = schema.model_copy(update={"features": [*schema.features, day]})
    with pytest.raises(UserError, match="'day' is a calendar") as caught:
        list(cut(["town", "day"], schema, statistics, {}, {}))
    assert caught.value.problems[0].key == "evaluate.slices.1"
    arrays = [
        encode(part, schema_without_day, statistics, "test") | {"datetime": np.zeros((120, 2))}
        for part in (table(), table())
        for schema_without_day in [fitted(table())[0]]
    ]
    assert "day" not in {name for name, _, _ in cut(None, schema, statistics, *arrays)}


def test_a_slice_is_measured_like_the_whole() -> None:
    target, probabilities = guesses(2)
    rows = np.arange(10, 60)
    (found,) = measure_slices("roc_auc", PLAIN, [("town", "Oslo", rows)], target, probabilities)
    alone = find_intervals(
        ["roc_auc"], "classification", target[rows], probabilities[rows], RESAMPLES
    )
    assert found == Slice("town", "Oslo", 50, alone["roc_auc"])


def test_a_metric_that_a_slice_does_not_define_is_not_its_worst() -> None:
    target, probabilities = guesses(2)
    ones, all_rows = np.flatnonzero(target == 1), np.arange(len(target))
    assert len(ones) >= SMALL_ROWS
    parts = [("town", "Oslo", ones), ("town", "Bergen", all_rows)]
    found = measure_slices("roc_auc", PLAIN, parts, target, probabilities)
    assert np.isnan(found[0].metric.value)
    assert find_worst("roc_auc", found) == found[1]


def test_values_have_the_mean_of_what_is_left() -> None:
    schema = PLAIN.model_copy(update={"target": Target(name="y", task="regression")})
    target: Array = np.array([1.0, 2.0, 5.0, 9.0])
    parts = [("town", "Oslo", np.array([0, 2]))]
    (found,) = measure_slices("mae", schema, parts, target, np.array([2.0, 2, 3, 0]))
    assert found.metric.value == 1.5
    assert found.residual == mean_residual(np.array([-1.0, 2.0]))
    assert found.residual.value == 0.5


def test_a_mean_has_students_interval() -> None:
    values = np.random.default_rng(0).normal(2, 3, 7)
    found = mean_residual(values)
    low, high = ttest_1samp(values, 0.0).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((low, high), rel=1e-6)
    assert found.value == pytest.approx(values.mean(), rel=1e-6)
    assert mean_residual(values[:1]).low is None


def test_the_slices_that_are_surely_off_are_drawn_first(tmp_path: Path) -> None:
    parts = [
        ("unknown", 1, Interval(9.0)),
        ("no", 50, Interval(0.1, -0.1, 0.3)),
        ("high", 40, Interval(1.0, 0.4, 1.6)),
        ("low", 30, Interval(-1.0, -1.4, -0.6)),
        ("wide", 4, Interval(5.0, -5.0, 15.0)),
    ]
    write_residuals(tmp_path / "r.csv", parts * 20)
    lines = read_csv(tmp_path / "r.csv")
    assert len(lines) == MAX_RESIDUALS
    assert [line["slice"] for line in lines] == ["low"] * 20 + ["high"] * 20
    write_residuals(tmp_path / "r.csv", parts)
    assert [line["slice"] for line in read_csv(tmp_path / "r.csv")] == ["low", "high", "no", "wide"]
    assert read_csv(tmp_path / "r.csv")[0] == {
        "slice": "low",
        "rows": "30",
        "residual": "-1.0",
        "low": "-1.4",
        "high": "-0.6",
    }
    # Of classes there are none.
    write_residuals(tmp_path / "r.csv", [])
    assert (tmp_path / "r.csv").read_text(encoding="utf-8") == "slice,rows,residual,low,high\n"


@pytest.mark.parametrize(("metric", "worst"), [("accuracy", "b"), ("log_loss", "a")])
def test_the_worst_is_not_a_small_one(metric: str, worst: str) -> None:
    values = {"a": (0.9, 100), "b": (0.7, SMALL_ROWS), "c": (0.1, SMALL_ROWS - 1), "d": (2.0, 5)}
    slices = [Slice("x", label, rows, Interval(value)) for label, (value, rows) in values.items()]
    found = find_worst(metric, slices)
    assert found is not None
    assert found.label == worst
    assert find_worst(metric, slices[2:]) is None


@pytest.mark.parametrize(("metric", "worst"), [("roc_auc", "wide"), ("rmse", "narrow")])
def test_the_worst_is_surely_bad(metric: str, worst: str) -> None:
    slices = [
        Slice("x", "wide", 60, Interval(0.7, 0.1, 0.79)),
        Slice("x", "narrow", 300, Interval(0.76, 0.72, 0.81)),
        Slice("x", "all right", 60, Interval(1.0)),
    ]
    found = find_worst(metric, slices)
    assert found is not None
    assert found.label == worst


def test_zero_is_called_so() -> None:
    gains = np.where(np.arange(120) % 4 == 0, 7688.0 + np.arange(120), 0.0)
    train = table().with_columns(size=gains)
    assert [label for _, label in sliced(train, train, ["size"])] == ["up to 0", "above 0"]
