"""Checks of `params.yaml` against the data that it names, by the heads of the files alone."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.params.source_head import Head, read_column, read_head, type_of
from stages.common.config import get_path
from stages.common.errors import Problem, UserError, did_you_mean, shorten, wrong_name
from stages.common.yamlfile import read_yaml
from stages.features.spelling import BLANKS, DIVIDED_BY_ZERO, WRITINGS, as_number, word_numbers
from stages.infer.params import InferParams
from stages.prepare.expectations.fact_names import split_fact
from stages.prepare.low_values import find_low, stop_at_classes, stop_at_low
from stages.prepare.params import PrepareParams

SHOWN = 8
# Beyond it a float is no whole number of its own.
MAX_WHOLE = 2**53
# As `stages/prepare/columns/target.py` guesses a task: whole numbers of few values are classes.
MAX_INTEGER_CLASSES = 20
ROWS_PER_CLASS = 20
# The names that pandas and Arrow give to the number of a row, which no new table needs.
ROW_NUMBERS = ("", "Unnamed: 0", "__index_level_0__")
COLUMN_KEYS = ("column", "column_A", "column_B", "column_list", "column_set")


@dataclass(frozen=True)
class Target:
    """The task that `prepare` will find, and why; None: it takes the data to know.

    `is_guess`: it may as well be the other one, if the user says so.
    """

    task: str | None
    reason: str = ""
    is_guess: bool = False


def check_data(
    tree: Mapping[str, Any], prepare: PrepareParams | None, infer: InferParams | None
) -> tuple[list[Problem], Target]:
    """Mistakes in what the parameters say of the source's columns, and the task of its target."""
    if prepare is None:
        part = tree.get("prepare")
        task = part.get("task") if isinstance(part, Mapping) else None
        return [], Target(task if isinstance(task, str) and task != "auto" else None)
    said = Target(None if prepare.task == "auto" else prepare.task)
    source = Path(prepare.source)
    head = read_head(source, prepare.named) if source.exists() else None
    if head is None:
        return [], said
    problems = check_source(prepare, head)
    if prepare.target in head.columns:
        said = find_target(prepare, head)
    problems += check_transform(prepare, head, said)
    problems += check_expected(prepare, head) + check_slices(tree, prepare, head)
    return problems + ([] if infer is None else check_new_rows(prepare, infer, head)), said


def check_source(params: PrepareParams, head: Head) -> list[Problem]:
    """Columns that `prepare` names and the source has not, in the words of the stage."""
    problems = []
    for key, name in params.names_by_key().items():
        if name not in head.columns:
            message = f"{params.source} has no column '{name}'"
            problems.append(wrong_name(message, name, head.columns, key))
            if key == "prepare.key":
                problems[-1] = replace(problems[-1], allowed=(*head.columns, "null"))
            if key.startswith("prepare.columns."):
                problems[-1] = replace(problems[-1], value=params.column(name).kind)
    if params.key == params.target:
        problems.append(Problem("the key can't be the target", key="prepare.key"))
    problems += params.find_conflicts()
    if params.weight is not None and head.columns.get(params.weight) == "array":
        message = f"the weight '{params.weight}' holds arrays, not numbers"
        problems.append(Problem(message, key="prepare.weight", value=params.weight))
    if params.column(params.target).kind is None and head.columns.get(params.target) == "array":
        message = f"the target '{params.target}' holds arrays, not a class or a value"
        problems.append(Problem(message, key="prepare.target", value=params.target))
    return problems


def find_target(params: PrepareParams, head: Head) -> Target:
    """The task: the one that is named, else what the stage will take from the column's type."""
    if params.task != "auto":
        return Target(params.task)
    name, kind = params.target, head.columns.get(params.target)
    if kind == "text" and _may_be_numbers(params, head):
        return Target(None)
    if kind in ("boolean", "text"):
        what = "true and false" if kind == "boolean" else "text"
        return Target("classification", f"the target '{name}' is {what}")
    is_number = kind == "whole" or (kind == "number" and head.is_typed)
    values = _as_whole(read_column(head.path, name)) if is_number else None
    if values is None:
        return Target(None)
    if type_of(values) == "number" and head.is_typed:
        return Target("regression", f"the target '{name}' holds numbers with fractions")
    if type_of(values) != "whole":
        return Target(None)
    num_values = len(set(values))
    few = num_values <= min(MAX_INTEGER_CLASSES, len(values) // ROWS_PER_CLASS)
    counted = f"the target '{name}' holds {num_values} different whole numbers, taken for"
    if few:
        reason = f"{counted} classes unless prepare.task is regression"
        return Target("classification", reason, is_guess=True)
    reason = f"{counted} amounts unless prepare.task is classification"
    return Target("regression", reason, is_guess=True)


def _as_whole(values: list[object] | None) -> list[object] | None:
    """The values; of floats alone the finite ones, whole numbers as such. None for none."""
    is_float = values and all(isinstance(value, float) for value in values)
    if not values or not is_float:
        return values or None
    numbers = [value for value in values if isinstance(value, float) and math.isfinite(value)]
    is_exact = [value.is_integer() and abs(value) <= MAX_WHOLE for value in numbers]
    return [int(v) if exact else v for v, exact in zip(numbers, is_exact, strict=True)]


def check_transform(params: PrepareParams, head: Head, target: Target) -> list[Problem]:
    """A transform of the target that its values, or its task, exclude."""
    name = params.target_transform
    if name is None:
        return []
    if target.task == "classification":
        return [stop_at_classes(params.target, name)]
    if params.column(params.target).has_signs:
        return []
    words = _gap_words(params)
    try:
        values = np.array(_without_words(read_column(head.path, params.target), words), np.float64)
    except (TypeError, ValueError):
        # Signs of numbers that the stage finds.
        return []
    is_gap = ~np.isfinite(values) | np.isin(values, word_numbers(words))
    low = find_low([values[~is_gap]])
    return [] if low is None else [stop_at_low(params.target, name, low)]


def _may_be_numbers(params: PrepareParams, head: Head) -> bool:
    """Check whether the target's texts may be numbers: beside words for gaps, or in other signs."""
    words, values = _gap_words(params), read_column(head.path, params.target)
    if params.column(params.target).has_signs or (values is None and len(words) > 1):
        return True
    if values is None:
        return False
    texts = [str(value) for value in _without_words(values, words)]
    each = ((None, None), *WRITINGS)
    return any(all(as_number(text, *signs) is not None for text in texts) for signs in each)


def _gap_words(params: PrepareParams) -> list[str]:
    """The words for gaps of the target, where it is one of numbers."""
    own = params.column(params.target).missing
    return [*map(str, params.missing if own is None else own), DIVIDED_BY_ZERO]


def _without_words(values: list[object] | None, words: list[str]) -> list[object]:
    """The values that are no text among `words`."""
    named = set(words)
    return [v for v in values or [] if not (isinstance(v, str) and v.strip(BLANKS) in named)]


def check_expected(params: PrepareParams, head: Head) -> list[Problem]:
    """Columns that the expectations speak of and the source has not: the wrong suite, mostly."""
    if params.expectations is None:
        return []
    try:
        rules = read_yaml(Path(params.expectations))
    except UserError:
        return []  # a path that is wrong has been said, a suite that is wrong prepare says
    named: dict[str, None] = {}
    for rule in rules if isinstance(rules, list) else []:
        for key in COLUMN_KEYS if isinstance(rule, Mapping) and _needs_columns(rule) else ():
            value = rule.get(key)
            named |= dict.fromkeys(v for v in (value if isinstance(value, list) else [value]) if v)
    there = head.columns
    absent = [str(n) for n in named if n not in there and not split_fact(str(n), there)]
    if not absent:
        return []
    message = (
        f"{params.expectations} speaks of columns that {params.source} has not: {_some(absent)}\n"
        "write null until there are expectations of this table, or mend those"
    )
    return [Problem(message, "prepare.expectations", params.expectations, ("null", "a file"))]


def _needs_columns(rule: Mapping[str, Any]) -> bool:
    """Check whether a rule needs its columns, and does not just ask if they are there."""
    asks = str(rule.get("type")).startswith(("expect_table_", "expect_column_to_exist"))
    return not asks or rule.get("severity") == "critical"


def check_new_rows(params: PrepareParams, infer: InferParams, head: Head) -> list[Problem]:
    """Columns that the model will have learned from and the new rows lack, in one problem."""
    if infer.input is None or not Path(infer.input).exists():
        return []
    new = read_head(Path(infer.input), [*head.columns])
    if new is None:
        return []
    left = [name for name in params.columns if params.column(name).kind == "exclude"]
    left += [name for name in params.ties().values() if params.column(name).named_kind is None]
    left += [params.target, str(params.weight), *ROW_NUMBERS]
    needed = [name for name in head.columns if name not in left]
    if new.folder == "images":
        learned = [name for name in needed if name != params.key]
        if len(learned) == 1 and (head.columns[learned[0]] == "array" or head.folder == "manifest"):
            return []
        message = f"{infer.input} is a folder, and the model takes the columns of {params.source}"
        return [Problem(message, "infer.input", infer.input, ("null", "a file"))]
    absent = [name for name in needed if name not in new.columns]
    if not absent:
        return []
    num = len(absent)
    message = (
        f"{infer.input} lacks {num} column{'s' if num > 1 else ''} of {params.source} that the "
        f"model is to learn from: {_some(absent)}\n"
        "write null to predict the rows of the test split"
    )
    meant = did_you_mean(absent[0], new.columns) if num == 1 else None
    allowed = (*new.columns,) if num == 1 else ("null", "a file with these columns")
    return [Problem(message, "infer.input", infer.input, allowed, meant)]


def check_slices(tree: Mapping[str, Any], params: PrepareParams, head: Head) -> list[Problem]:
    """Slices by a column that there is not, or that is no feature."""
    try:
        slices = get_path(tree, "evaluate.slices")
    except KeyError:
        return []
    left = {name for name in params.columns if params.column(name).kind == "exclude"}
    left |= {name for name in params.ties().values() if params.column(name).named_kind is None}
    left |= {params.target, str(params.key), str(params.weight)}
    known = [n for n, kind in head.columns.items() if n not in left and kind != "array"]
    return [
        wrong_name(f"there is no column '{name}' to slice by", name, known, f"evaluate.slices.{i}")
        for i, name in enumerate(slices if isinstance(slices, list) else [])
        if isinstance(name, str) and name not in known
    ]


def _some(names: list[str]) -> str:
    shown = ", ".join(shorten(repr(name)) for name in names[:SHOWN])
    return shown + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
