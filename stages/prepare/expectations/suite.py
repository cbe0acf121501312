"""Expectations of a table: our YAML, checked in full before anything of it runs.

    - {type: expect_column_values_to_be_between, column: age, min_value: 0, severity: critical}

`type` and the arguments are Great Expectations' own; `severity` is `critical` (stops the stage)
or `warning` (is reported); `description` replaces our sentence about it.
"""

import datetime
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import polars as pl
from pydantic import BaseModel, ConfigDict

from stages.common.config import validate_all
from stages.common.errors import Problem, UserError, wrong_name
from stages.common.yamlfile import read_yaml

# Great Expectations' bookkeeping, and what is ours to set.
_NOT_FOR_SUITES = (
    *("id", "meta", "notes", "result_format", "catch_exceptions", "rendered_content", "windows"),
    *("batch_id", "condition_parser", "library_metadata"),
)
_NEEDS_DATABASE = ("like_pattern", "query_results", "other_table", "unexpected_rows")
# Pandas' types of whole numbers with gaps in them, and of those without.
_WITHOUT_GAPS = {f"Int{bits}": f"int{bits}" for bits in (8, 16, 32, 64)}
_WITHOUT_GAPS |= {f"U{name}": f"u{plain}" for name, plain in _WITHOUT_GAPS.items()}
# What can be said of arrays and records: whether there is one, and whether it is another's.
FOR_NESTED = (
    "expect_column_to_exist",
    "expect_column_values_to_not_be_null",
    "expect_column_values_to_be_null",
    "expect_column_proportion_of_non_null_values_to_be_between",
    "expect_column_values_to_be_unique",
    "expect_column_unique_value_count_to_be_between",
    "expect_column_proportion_of_unique_values_to_be_between",
    "expect_compound_columns_to_be_unique",
)


class Rule(BaseModel):
    """One expectation of the suite; its further keys are the arguments."""

    model_config = ConfigDict(extra="allow", strict=True, frozen=True)

    type: str
    severity: Literal["critical", "warning"]
    description: str | None = None

    @property
    def arguments(self) -> dict[str, Any]:
        """The arguments of Great Expectations' class."""
        return self.model_extra or {}

    @property
    def columns(self) -> dict[str, str]:
        """The columns that it is about, by their keys (`column`, `column_list.0`)."""
        named = {key: self.arguments.get(key) for key in ("column", "column_A", "column_B")}
        several = self.arguments.get("column_list")
        # There it is the table's columns that are stated, and any name is right.
        if isinstance(several, list) and self.type != "expect_table_columns_to_match_ordered_list":
            named |= {f"column_list.{place}": name for place, name in enumerate(several)}
        return {key: name for key, name in named.items() if isinstance(name, str)}


def used_columns(rule: Rule, columns: Iterable[str]) -> list[str]:
    """Those of the table's `columns` that a rule is about, its condition included."""
    condition = str(rule.arguments.get("row_condition") or "")
    own = set(rule.columns.values())
    return [name for name in columns if name in own or name in condition]


def read_suite(path: Path) -> tuple[list[Rule | None], list[Problem]]:
    """The rules of a suite in its order, and what is wrong with them so far.

    Types and arguments are not looked at yet; so that they can be, a rule with a mistake stands
    there as well, and None only for what has no type. Raises UserError for what is no list.
    """
    if path.exists() and not path.is_file():
        raise UserError(f"the suite of expectations {path} is no file")
    content = read_yaml(path)
    if content is None:
        content = []
    if not isinstance(content, list):
        kind = type(content).__name__
        raise UserError(f"{path}:1: a suite is a list of expectations ([] for none), not {kind}")
    rules: list[Rule | None] = []
    problems: list[Problem] = []
    for place, item in enumerate(content):
        wrong, rule = validate_all(Rule, item, str(place), str(path))
        problems += wrong
        if rule is None and isinstance(item, Mapping) and isinstance(item.get("type"), str):
            rule = Rule.model_construct(**{**item, "severity": "critical", "description": None})
        rules.append(rule)
    return rules, problems


def build_expectations(
    rules: Sequence[Rule | None],
    problems: list[Problem],
    classes: Mapping[str, Any],
    schema: Mapping[str, pl.DataType],
    path: Path,
) -> list[Any]:
    """One object of Great Expectations' classes for each rule; its `meta` holds the rule's place.

    `classes` is its registry, name to class; `schema` is the table's. Raises UserError with
    `problems`, those known so far, and all else that is wrong in the suite: unknown types,
    arguments and columns, and values that an argument can't take.
    """
    problems = list(problems)
    built: list[Any] = []
    for place, rule in enumerate(rules):
        if rule is None:
            continue
        wrong = _check_names(rule, classes) or _check_columns(rule, schema)
        if not wrong:
            arguments = {name: _as_argument(value) for name, value in rule.arguments.items()}
            _name_whole_numbers(arguments)
            try:
                built.append(classes[rule.type](**arguments, meta={"place": place}))
            except ValueError as error:
                wrong = _explain(rule, error)
        problems += [replace(p, key=f"{place}.{p.key}", value=None, file=str(path)) for p in wrong]
    if problems:
        raise UserError(*sorted(problems, key=lambda p: int((p.key or "0").split(".")[0])))
    return built


def is_nested(dtype: pl.DataType) -> bool:
    """Check whether values are arrays, records or bytes, which pandas has no column type for."""
    return isinstance(dtype, pl.List | pl.Array | pl.Struct | pl.Binary)


def _as_argument(value: Any) -> Any:
    """`value` with dates as times, 0:00 of their day, as columns of dates reach pandas."""
    if isinstance(value, datetime.date) and not isinstance(value, datetime.datetime):
        return datetime.datetime.combine(value, datetime.time.min)
    return [_as_argument(item) for item in value] if isinstance(value, list) else value


def _name_whole_numbers(arguments: dict[str, Any]) -> None:
    """Let whole numbers be of the types that are asked for whether or not there are gaps in them.

    With gaps, a column of int64 reaches pandas as Int64, and Great Expectations compares the two
    by one name here and by the other there.
    """
    if isinstance(name := arguments.get("type_"), str):
        arguments["type_"] = _WITHOUT_GAPS.get(name, name)
    if isinstance(names := arguments.get("type_list"), list):
        asked = [_WITHOUT_GAPS.get(name, name) for name in names if isinstance(name, str)]
        with_gaps = [f"{name}Dtype" for name, plain in _WITHOUT_GAPS.items() if plain in asked]
        with_gaps += ["Int64Dtype"] if "int" in asked else []
        arguments["type_list"] = [*names, *asked, *with_gaps]


def _check_names(rule: Rule, classes: Mapping[str, Any]) -> list[Problem]:
    usable = [name for name in classes if not any(words in name for words in _NEEDS_DATABASE)]
    if rule.type not in usable:
        message = f"Great Expectations has no expectation '{rule.type}' for a table in memory"
        # Sixty names are no help; the nearest one is.
        return [replace(wrong_name(message, rule.type, usable, "type"), allowed=())]
    known = [name for name in classes[rule.type].__fields__ if name not in _NOT_FOR_SUITES]
    return [
        wrong_name(f"'{rule.type}' has no argument '{name}'", name, known, name)
        for name in rule.arguments
        if name not in known
    ]


def _check_columns(rule: Rule, schema: Mapping[str, pl.DataType]) -> list[Problem]:
    problems = []
    for key, name in rule.columns.items():
        kind = schema.get(name)
        if kind is None and rule.type != "expect_column_to_exist":
            problems.append(wrong_name(f"the table has no column '{name}'", name, schema, key))
        elif kind is not None and is_nested(kind) and rule.type not in FOR_NESTED:
            message = f"'{name}' holds {kind}: '{rule.type}' can say nothing about it"
            problems.append(Problem(message, key, allowed=FOR_NESTED))
    return problems


def _explain(rule: Rule, error: Any) -> list[Problem]:
    """The validation error of a class of Great Expectations, one problem an argument."""
    problems: dict[str, Problem] = {}
    for detail in error.errors():
        name = str(detail["loc"][0])
        what = "" if name == "__root__" else f"'{name}': "
        key = name if name in rule.arguments else "type"
        problem = Problem(f"'{rule.type}': {what}{detail['msg']}", key)
        # An argument of several types is complained about once for each: the first will do.
        problems.setdefault(name, problem)
    if len(problems) > 1:
        # What is wrong with the arguments together may well come of the one that is wrong.
        problems.pop("__root__", None)
    return list(problems.values())
