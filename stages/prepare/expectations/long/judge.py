"""A suite on a table of any length: each rule is judged by figures of all parts, no rows whole.

A rule about values of rows is counted part by part. A rule about a column is judged by its figures,
one about repeats by shares of the rows. Of the few others, such as the order of rows, the columns
that they name are taken whole.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import polars as pl

from stages.parallel.mapper import Local, Mapper
from stages.prepare.expectations.great import Engine, not_checked, quiet
from stages.prepare.expectations.long.counting import Counting
from stages.prepare.expectations.long.facts import Facts, take_facts
from stages.prepare.expectations.long.figures import Figures, can_measure, metrics_of
from stages.prepare.expectations.suite import Rule, used_columns
from stages.prepare.table.table import Table

_OF_TABLE = re.compile("expect_table_|expect_column_to_exist|expect_column_type_to_be")
_OF_VALUES = re.compile("distinct|unique_value|most_common|divergence")


def judge_long(
    table: Table,
    rules: Sequence[Rule],
    expectations: Sequence[Any],
    facts: Mapping[str, Facts],
    mapper: Mapper | None = None,
) -> list[Any]:
    """The result of each expectation, in their order; `facts` are those of the rules' columns."""
    with quiet():
        return _Judge(table, facts, mapper or Local()).judge(rules, expectations)


def facts_for(
    table: Table, rules: Sequence[Rule], shown: Collection[str], mapper: Mapper | None = None
) -> dict[str, Facts]:
    """The facts of the columns that the rules are about, and of those in `shown`."""
    named = {name for rule in rules for name in used_columns(rule, table.columns)}
    counted = {
        name
        for rule in rules
        if _OF_VALUES.search(rule.type)
        for name in used_columns(rule, table.columns)
    }
    names = [name for name in table.columns if name in named or name in shown]
    return take_facts(table, names, counted, mapper)


class _Judge:
    """Judges rules by what they share: one pass over the parts."""

    def __init__(self, table: Table, facts: Mapping[str, Facts], mapper: Mapper) -> None:
        self._table = table
        gaps = {name for name, each in facts.items() if each.has_gaps}
        head = next(table.parts()).head(1)
        # The names and types that all rows have.
        self._head = Engine(head.with_columns(head.clear(1)[name] for name in gaps), gaps)
        self._counting = Counting(table, facts, gaps, self._head, mapper)
        self._figures = Figures(table, facts, gaps)
        self._gaps = gaps

    def judge(self, rules: Sequence[Rule], expectations: Sequence[Any]) -> list[Any]:
        """The result of each rule."""
        found: dict[int, Any] = {}
        measured: dict[int, str] = {}
        for place, (rule, expectation) in enumerate(zip(rules, expectations, strict=True)):
            names = used_columns(rule, self._table.columns)
            try:
                if _OF_TABLE.match(rule.type):
                    found[place] = self._judge_table(expectation)
                elif self._can_measure(rule, expectation, names):
                    measured[place] = names[0]
                elif not self._counting.take(place, rule, expectation, names):
                    found[place] = self._judge_whole(expectation, names)
            except Exception as error:
                found[place] = not_checked(error)
        needs: dict[str, set[str]] = {}
        for place, name in measured.items():
            needs.setdefault(name, set()).update(metrics_of(rules[place], expectations[place]))
        self._figures.take(needs)
        for place, name in measured.items():
            found[place] = self._judge_column(rules[place], expectations[place], name)
        found |= self._counting.finish()
        return [found[place] for place in range(len(rules))]

    def _can_measure(self, rule: Rule, expectation: Any, names: list[str]) -> bool:
        metrics = metrics_of(rule, expectation)
        is_plain = len(names) == 1 and not rule.arguments.get("row_condition")
        return is_plain and can_measure(metrics, self._table.schema[names[0]])

    def _judge_table(self, expectation: Any) -> Any:
        values = self._head.measure(expectation)
        if "table.row_count" in values:
            values["table.row_count"] = self._table.height
        return self._head.judge(expectation, values)

    def _judge_column(self, rule: Rule, expectation: Any, name: str) -> Any:
        try:
            values = self._figures.measure(name, expectation, metrics_of(rule, expectation))
            return self._head.judge(expectation, values)
        except Exception as error:
            return not_checked(error)

    def _judge_whole(self, expectation: Any, names: list[str]) -> Any:
        columns = [self._table.column(name) for name in names]
        engine = Engine(pl.DataFrame(columns), self._gaps)
        return engine.judge(expectation, engine.measure(expectation))
