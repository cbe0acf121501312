"""Kinds of columns, found from a table or said by hand."""

import datetime
from collections.abc import Mapping

import numpy as np
import polars as pl
import pytest

from stages.features.columns import MAX_CATEGORIES
from stages.features.schema import Feature
from stages.prepare.columns.infer_schema import find_schema
from tests.support.samples import prepare_params
from tests.support.stages.columns import Y, problem, problems


def find(table: Mapping[str, object], **changes: object) -> dict[str, Feature]:
    """The features found, by name."""
    frame = pl.DataFrame({**table, "y": Y})
    return {f.name: f for f in find_schema(frame, prepare_params(**changes)).features}


@pytest.mark.parametrize(
    ("column", "kind"),
    [
        (pl.Series([1.5] * 20), "numeric"),
        (pl.Series([1] * 20, dtype=pl.UInt8), "numeric"),
        (pl.Series(["1.5"] * 20).cast(pl.Decimal(10, 2)), "numeric"),
        (pl.Series([True, None] * 10), "boolean"),
        (pl.Series(["x", None] * 10), "categorical"),
        (pl.Series(["x", "z"] * 10, dtype=pl.Categorical), "categorical"),
        (pl.Series(["x", "z"] * 10, dtype=pl.Enum(["x", "z"])), "categorical"),
    ],
)
def test_the_type_of_a_column_says_its_kind(column: pl.Series, kind: str) -> None:
    assert find({"x": column})["x"].kind == kind


@pytest.mark.parametrize(
    ("rows", "shape", "layout"),
    [
        ((20, 8, 6), [1, 8, 6], "HW"),
        ((20, 8, 6, 1), [1, 8, 6], "HWC"),
        ((20, 8, 6, 3), [3, 8, 6], "HWC"),
        ((20, 8, 6, 4), [4, 8, 6], "HWC"),
        ((20, 3, 8, 6), [3, 8, 6], "CHW"),
        ((20, 1, 8, 6), [1, 8, 6], "CHW"),
    ],
)
@pytest.mark.parametrize("nested", ["array", "list"])
def test_arrays_are_images_with_their_layout(
    rows: tuple[int, ...], shape: list[int], layout: str, nested: str
) -> None:
    column = pl.Series(np.zeros(rows, dtype=np.uint8).tolist())
    if nested == "array":
        column = column.cast(pl.Array(pl.UInt8, rows[1:]))
    found = find({"x": column})["x"]
    assert (found.kind, found.shape, found.layout) == ("image", shape, layout)


def test_columns_keep_their_order_and_leave_out_key_and_target() -> None:
    table = {"b": [1.0] * 20, "id": range(20), "a": ["x"] * 20, "c": [True] * 20}
    assert list(find(table, key="id")) == ["b", "a", "c"]


@pytest.mark.parametrize(
    ("column", "kind"),
    [
        (pl.Series([1101, 1102] * 10), "categorical"),
        (pl.Series(["1.5", "2"] * 10), "numeric"),
        (pl.Series([1, 0] * 10), "boolean"),
        (pl.Series(["yes", "No"] * 10), "boolean"),
        (pl.Series(["yes", "No"] * 10, dtype=pl.Categorical), "boolean"),
        (pl.Series([1.0, float("nan")] * 10), "boolean"),
        (pl.Series([True, False] * 10), "numeric"),
        (pl.Series([True, False] * 10), "categorical"),
        (pl.Series([datetime.date(2024, 1, 1)] * 20), "categorical"),
    ],
)
def test_a_kind_that_is_said_overrules_the_one_found(column: pl.Series, kind: str) -> None:
    assert find({"x": column, "z": [1.0] * 20}, columns={"x": kind})["x"].kind == kind


def test_an_excluded_column_is_not_looked_at() -> None:
    table = {"x": [datetime.time(1)] * 20, "z": [1.0] * 20}
    assert list(find(table, columns={"x": "exclude"})) == ["z"]


@pytest.mark.parametrize(
    ("column", "kind"),
    [
        (pl.Series(["1", "b"] * 10), "numeric"),
        (pl.Series([1, 2] * 10), "boolean"),
        (pl.Series([[1, 2]] * 20), "numeric"),
        (pl.Series([[1, 2]] * 20), "boolean"),
        (pl.Series([[1, 2]] * 20), "categorical"),
        (pl.Series([{"a": 1}] * 20), "numeric"),
        (pl.Series([b"1"] * 20), "numeric"),
        (pl.Series([datetime.date(2024, 1, 1)] * 20), "boolean"),
        (pl.Series(["x"] * 20), "image"),
        (pl.Series([["x"]] * 20), "image"),
    ],
)
def test_a_kind_that_the_values_can_not_be_is_an_error(column: pl.Series, kind: str) -> None:
    found = problem({"x": column}, columns={"x": kind})
    assert found.key == "prepare.columns.x"
    assert "'x'" in found.message


@pytest.mark.parametrize(
    "column",
    [
        pl.Series([datetime.timedelta(1)] * 20),
        pl.Series([b"x"] * 20),
        pl.Series([{"a": 1}] * 20),
        pl.Series([[1, 2]] * 20),
        pl.Series([[[[[1]]]]] * 20),
        pl.Series([[]] * 20),
    ],
)
def test_a_column_of_no_known_kind_has_to_be_decided(column: pl.Series) -> None:
    found = problem({"x": column})
    assert found.key == "prepare.columns.x"
    assert "exclude" in found.allowed


def test_an_empty_column_has_to_be_excluded() -> None:
    for empty in (pl.Series([None] * 20), pl.Series([None] * 20, dtype=pl.Float64)):
        found = problem({"x": empty})
        assert "is empty" in found.message
        assert found.allowed == ("exclude",)


def test_too_many_categories_are_an_error() -> None:
    num_rows = MAX_CATEGORIES + 1
    names = [f"person {i}" for i in range(num_rows)]
    table = pl.DataFrame({"x": names, "y": ["a", "b", *["a"] * (num_rows - 4), "b", "b"]})
    (found,) = problems(table)
    assert f"{num_rows} different values" in found.message
    assert found.key == "prepare.columns.x"
    one_fewer = table.with_columns(x=pl.col("x").replace(names[0], names[1]))
    assert find_schema(one_fewer, prepare_params()).features[0].kind == "categorical"


def test_every_column_that_needs_a_decision_is_told_at_once() -> None:
    table = pl.DataFrame({"a": [None] * 20, "b": [b"x"] * 20, "c": [1] * 20, "y": Y})
    assert [p.key for p in problems(table)] == ["prepare.columns.a", "prepare.columns.b"]


def test_a_second_image_column_is_an_error() -> None:
    image = pl.Series([[[1, 2], [3, 4]]] * 20)
    found = problem({"left": image, "right": image})
    assert "left, right" in found.message
    assert list(find({"left": image, "right": image}, columns={"right": "exclude"})) == ["left"]


def test_nothing_to_learn_from_is_an_error() -> None:
    assert "no column is left" in problem({"x": [1] * 20}, columns={"x": "exclude"}).message
