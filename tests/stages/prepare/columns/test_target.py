"""The task and the target, and columns that are named: found, or refused with a reason."""

import datetime

import polars as pl
import pytest

from stages.common.errors import UserError
from stages.features.schema import Target
from stages.prepare.columns.infer_schema import find_schema
from tests.support.samples import prepare_params
from tests.support.stages.columns import Y, problem, problems


def find_target(values: pl.Series | list[object], task: str = "auto") -> Target:
    frame = pl.DataFrame({"x": range(len(values)), "y": values}, strict=False)
    return find_schema(frame, prepare_params(task=task)).target


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
    found = problem({"x": range(12), "y": [1] * 5 + [3] * 6 + [2]}, task="classification")
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


def test_leaving_a_rare_class_out_is_no_way_where_one_is_left() -> None:
    found = problem({"x": range(12), "y": [0] * 10 + [1] * 2}, task="classification")
    assert "'1' (2)" in found.message
    assert "missing" not in found.message
    assert "regression" not in found.message
