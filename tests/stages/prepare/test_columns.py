"""What is what: kinds of columns and the task, found from a table or said by hand."""

import datetime
from collections.abc import Mapping

import numpy as np
import polars as pl
import pytest

from stages.common.errors import Problem, UserError
from stages.features.columns import MAX_CATEGORIES
from stages.features.schema import Feature, Target
from stages.prepare.columns.infer_schema import find_schema
from tests.support.samples import prepare_params

# A target that needs no thought, for tests about the features.
Y = pl.Series("y", ["a", "b"] * 10)


def find(table: Mapping[str, object], **changes: object) -> dict[str, Feature]:
    """The features found, by name."""
    frame = pl.DataFrame({**table, "y": Y})
    return {f.name: f for f in find_schema(frame, prepare_params(**changes)).features}


def find_target(values: pl.Series | list[object], task: str = "auto") -> Target:
    frame = pl.DataFrame({"x": range(len(values)), "y": values}, strict=False)
    return find_schema(frame, prepare_params(task=task)).target


def problems(table: pl.DataFrame, **changes: object) -> list[Problem]:
    with pytest.raises(UserError) as caught:
        find_schema(table, prepare_params(**changes))
    return caught.value.problems


def problem(table: Mapping[str, object], **changes: object) -> Problem:
    (only,) = problems(pl.DataFrame({"y": Y, **table}), **changes)
    return only


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


@pytest.mark.parametrize(
    ("changes", "key", "meant"),
    [
        ({"target": "weigth"}, "prepare.target", "weight"),
        ({"key": "ID_"}, "prepare.key", "id"),
        ({"columns": {"Weight": "exclude"}}, "prepare.columns.Weight", "weight"),
    ],
)
def test_an_unknown_column_is_told_with_the_nearest_name(
    changes: dict[str, object], key: str, meant: str
) -> None:
    found = problem({"id": range(20), "weight": [1.0] * 20}, **changes)
    assert found.key == key
    assert found.suggestion == meant
    assert found.allowed == ("y", "id", "weight")


def test_every_unknown_column_is_told_at_once() -> None:
    table = pl.DataFrame({"x": [1] * 20, "y": Y})
    found = problems(table, target="Y_", key="idd", columns={"w": "numeric"})
    assert [p.key for p in found] == ["prepare.target", "prepare.key", "prepare.columns.w"]


@pytest.mark.parametrize("name", ["prediction", "target", "probability_ill"])
def test_the_key_can_not_be_named_as_what_stands_beside_it(name: str) -> None:
    table = pl.DataFrame({name: [1, 2, 3, 4], "x": [0.5, 1.5, 2.5, 3.5], "y": [1.0, 2.0, 3.0, 4.0]})
    with pytest.raises(UserError, match=f"'{name}' stands beside the key in predictions") as caught:
        find_schema(table, prepare_params(key=name))
    (problem,) = caught.value.problems
    assert problem.key == "prepare.key"
    # As the target, or as any other column, it may be called so.
    assert find_schema(table, prepare_params()).features[0].name == name
    assert find_schema(table, prepare_params(target=name)).target.name == name


def test_the_key_can_not_be_the_target() -> None:
    assert problem({"x": [1] * 20}, key="y").key == "prepare.key"


@pytest.mark.parametrize(
    ("values", "task", "classes"),
    [
        (["b", "a"] * 10, "classification", ["a", "b"]),
        ([True, False] * 10, "classification", [False, True]),
        ([2, 10, 1] * 20, "classification", [1, 2, 10]),
        # pandas makes floats of whole numbers where one is missing.
        ([0.0, 1.0] * 20, "classification", [0, 1]),
        ([0.0, 1.5] * 20, "regression", None),
        ([1e300, 1.0] * 20, "regression", None),
        (list(range(60)), "regression", None),
        # Few values, but not often enough to be classes.
        ([1, 2, 3] * 5, "regression", None),
    ],
)
def test_the_task_follows_from_the_target(
    values: list[object], task: str, classes: list[object] | None
) -> None:
    target = find_target(values)
    assert (target.task, target.classes) == (task, classes)


@pytest.mark.parametrize(
    ("values", "classes"),
    [
        ([1.0, 0.0] * 5, [0, 1]),
        ([1.5, 0.0] * 5, ["0", "1.5"]),
        ([1, 2, 3] * 5, [1, 2, 3]),
        (pl.Series(["z", "x"] * 5, dtype=pl.Enum(["z", "x"])), ["x", "z"]),
        ([datetime.datetime(2024, 1, d, tzinfo=datetime.UTC) for d in (1, 2)] * 5, None),
    ],
)
def test_classification_can_be_asked_for(
    values: pl.Series | list[object], classes: list[object] | None
) -> None:
    target = find_target(values, task="classification")
    assert target.task == "classification"
    assert target.classes is not None
    assert len(target.classes) == len(set(values))
    if classes is not None:
        assert target.classes == classes


def test_regression_can_be_asked_for() -> None:
    target = find_target([1, 2] * 30, task="regression")
    assert (target.task, target.classes) == ("regression", None)


def test_a_target_of_words_is_no_number() -> None:
    assert "'ill'" in problem({"x": [1, 2], "y": ["ill", "1"]}, task="regression").message


@pytest.mark.parametrize("task", ["auto", "regression", "classification"])
def test_a_constant_target_is_an_error(task: str) -> None:
    found = problem({"x": range(60), "y": [3] * 60}, task=task)
    assert "3 in every row" in found.message
    assert found.key == "prepare.target"


def test_a_class_of_too_few_rows_is_an_error() -> None:
    found = problem({"x": range(12), "y": ["a"] * 6 + ["b"] * 3 + ["c"] * 2 + ["d"]})
    assert "2 classes" in found.message
    assert "'c' (2), 'd' (1)" in found.message
    assert """{"y": {missing: ['c', 'd']}} and drop_missing_target: true""" in found.message
    assert found.key == "prepare.columns.y"
    found = problem({"x": range(12), "y": [1] * 11 + [2]}, task="classification")
    assert found.message.startswith("1 class of the target 'y' has fewer than 3 rows")
    assert "Then the task is regression" in found.message
    assert found.key == "prepare.task"


@pytest.mark.parametrize("values", [["a", None, "b", None] * 5, [1.0, float("nan")] * 10])
def test_gaps_in_the_target_are_counted_and_shown(values: list[object]) -> None:
    found = problem({"x": range(20), "y": pl.Series(values)})
    assert "empty in 10 rows" in found.message
    assert "[1, 3, 5, 7, 9]" in found.message
    assert found.key == "prepare.drop_missing_target"


def test_lists_are_no_target() -> None:
    found = problem({"x": range(20), "y": [[1, 2], [3, 4]] * 10})
    assert found.key == "prepare.target"
    assert "List" in found.message
