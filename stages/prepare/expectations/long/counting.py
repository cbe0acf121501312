"""Rules about values of rows: how many rows offend, and which do first, from part to part.

Rules of gaps and of numbers are counted by polars. Of a column of texts Great Expectations is asked
once about each different text, as long as they can be counted, else about each row of a part. What
stands twice is found in shares of the rows.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import polars as pl

from stages.parallel.mapper import Mapper
from stages.prepare.expectations.great import COMPLETE, Engine, not_checked
from stages.prepare.expectations.long.facts import Facts
from stages.prepare.expectations.long.look import COUNT, VALUE
from stages.prepare.expectations.long.masks import find_mask
from stages.prepare.expectations.long.pieces import Piece, cut_pieces, pieces
from stages.prepare.expectations.long.repeats import find_repeats, plain_rows
from stages.prepare.expectations.suite import Rule
from stages.prepare.table.table import Table, mapper_for

MAX_EXAMPLES = 20
_UNIQUE = "expect_column_values_to_be_unique"
_UNIQUE_TOGETHER = "expect_compound_columns_to_be_unique"
_GAPS, _ROWS = "column_values.nonnull.unexpected_count", "table.row_count"
_INDEX = ".unexpected_index_list"
# The verdict on a row depends on other rows.
_OF_ORDER = re.compile("increasing|decreasing|z_score|outliers|unique$")
# Lists of all that offends.
_LISTS = (_INDEX, ".unexpected_values", ".unexpected_index_query")


@dataclass
class _Counted:
    """A rule, and what is known of it so far: metrics by their names, the first rows that offend.

    `mask` tells the rows that offend, `repeated` the values of theirs; with neither, Great
    Expectations tells them in each part. `is_counted`: there is no more to count.
    """

    expectation: Any
    columns: list[str]
    values: dict[str, Any] = field(default_factory=dict)
    mask: pl.Expr | None = None
    repeated: pl.DataFrame | None = None
    is_counted: bool = False
    rows: list[int] = field(default_factory=list)
    error: Exception | None = None

    @property
    def count_name(self) -> str:
        """The name of the metric that counts the rows that offend."""
        return f"{self.expectation.map_metric}.unexpected_count"

    @property
    def needs_parts(self) -> bool:
        """Check whether a part may have anything to add."""
        if self.error is not None:
            return False
        has_rows = len(self.rows) >= MAX_EXAMPLES or not self.values.get(self.count_name)
        return not (self.is_counted and has_rows)

    def add(self, name: str, value: Any) -> None:
        """Take in a metric of a part: counts are summed up, others are the same in each."""
        self.values[name] = self.values.get(name, 0) + value if name.endswith("_count") else value


class Counting:
    """Takes rules, and then counts all of them in one pass over the parts.

    `head` has the types of the table, `gaps` the columns with gaps in any part.
    """

    def __init__(
        self,
        table: Table,
        facts: Mapping[str, Facts],
        gaps: Collection[str],
        head: Engine,
        mapper: Mapper,
    ) -> None:
        self._table, self._facts, self._gaps, self._head = table, facts, gaps, head
        self._mapper = mapper_for(table, mapper)
        self._rules: dict[int, _Counted] = {}
        self._texts: dict[str, Engine] = {}

    def take(self, place: int, rule: Rule, expectation: Any, columns: list[str]) -> bool:
        """Take a rule, unless it is one that can't be counted in parts."""
        if getattr(expectation, "map_metric", None) is None:
            return False
        is_plain = not rule.arguments.get("row_condition")
        if is_plain and rule.type in (_UNIQUE, _UNIQUE_TOGETHER):
            self._rules[place] = self._find_repeats(rule, expectation)
            return True
        if _OF_ORDER.search(rule.type):
            return False
        counted = _Counted(expectation, columns)
        self._rules[place] = counted
        if not is_plain or len(columns) > 1:
            return True
        [name] = columns
        dtype = self._table.schema[name]
        facts = self._facts[name]
        counted.mask = find_mask(rule, dtype)
        if counted.mask is not None:
            counted.values = {_ROWS: facts.height, _GAPS: facts.missing, counted.count_name: 0}
        elif dtype == pl.String and facts.counts is not None:
            self._count_texts(counted, name, facts, facts.counts)
        return True

    def finish(self) -> dict[int, Any]:
        """Count the rules in all parts; the result of each by its place."""
        self._count_masked([rule for rule in self._rules.values() if rule.needs_parts])
        # The others are judged by Great Expectations, or by values that repeat.
        going = [rule for rule in self._rules.values() if rule.needs_parts and rule.mask is None]
        names = {name for rule in going for name in rule.columns}
        for start, piece in pieces(self._table, names) if going else ():
            self._count(going, start, piece)
            going = [rule for rule in going if rule.needs_parts]
            if not going:
                break
        return {place: self._judge(rule) for place, rule in self._rules.items()}

    def _judge(self, rule: _Counted) -> Any:
        if rule.error is not None:
            return not_checked(rule.error)
        rows = {f"{rule.expectation.map_metric}{_INDEX}": rule.rows[:MAX_EXAMPLES]}
        return self._head.judge(rule.expectation, rule.values | rows)

    def _find_repeats(self, rule: Rule, expectation: Any) -> _Counted:
        columns = list(rule.columns.values())
        ignored = rule.arguments.get("ignore_row_if", "all_values_are_missing")
        if rule.type == _UNIQUE:
            ignored = "any_value_is_missing"
        found = find_repeats(self._table, columns, ignored)
        counted = _Counted(expectation, columns, repeated=found.first, is_counted=True)
        counted.values = {
            _ROWS: self._table.height,
            _GAPS: self._table.height - found.num_rows,
            f"{expectation.map_metric}.filtered_row_count": found.num_rows,
            counted.count_name: found.num_repeated,
        }
        return counted

    def _count_texts(
        self, counted: _Counted, name: str, facts: Facts, counts: pl.DataFrame
    ) -> None:
        """Judge each different text, and say in which rows those that offend stand."""
        if name not in self._texts:
            texts = counts.select(pl.col(VALUE).alias(name))
            self._texts[name] = Engine(texts, self._gaps)
        engine = self._texts[name]
        try:
            counted.values = engine.measure(
                counted.expectation, lambda metric: not metric.endswith(_LISTS[1:]), COMPLETE
            )
        except Exception as error:
            counted.error = error
        counted.is_counted = True
        wrong = counted.values.get(f"{counted.expectation.map_metric}{_INDEX}", [])
        counted.mask = pl.col(name).is_in(counts[VALUE][wrong].implode())
        counted.values |= {
            _ROWS: facts.height,
            _GAPS: facts.missing,
            counted.count_name: int(counts[COUNT][wrong].sum()),
        }

    def _count_masked(self, rules: list[_Counted]) -> None:
        """Count the rules that a mask tells, several pieces at a time."""
        masked = [(rule, rule.mask) for rule in rules if rule.mask is not None]
        if not masked:
            return
        names = list(dict.fromkeys(name for rule, _ in masked for name in rule.columns))
        find = partial(find_offending, [mask for _, mask in masked])
        start = 0
        for height, found in self._mapper.map(find, cut_pieces(self._table, names)):
            for (rule, _), (count, places) in zip(masked, found, strict=True):
                if not rule.is_counted:
                    rule.add(rule.count_name, count)
                num_missing = MAX_EXAMPLES - len(rule.rows)
                rule.rows += [start + place for place in places[: max(0, num_missing)]]
            start += height

    def _count(self, rules: list[_Counted], start: int, piece: pl.DataFrame) -> None:
        """Take in a part, whose first row is `start`."""
        judged = {name for rule in rules if rule.repeated is None for name in rule.columns}
        engine = Engine(piece.select(judged), self._gaps) if judged else None
        for rule in rules:
            places: list[int] = []
            num_missing = MAX_EXAMPLES - len(rule.rows)
            if rule.repeated is not None:
                names = rule.repeated.columns
                rows = plain_rows(piece.select(names)).with_row_index(_ROWS)
                same = rows.join(rule.repeated, on=names, how="semi", nulls_equal=True)
                places = same[_ROWS].sort().to_list()
            elif engine is not None:
                places = _measure(engine, rule)
            rule.rows += [start + place for place in places[: max(0, num_missing)]]


def find_offending(
    masks: Sequence[pl.Expr], piece: Piece
) -> tuple[int, list[tuple[int, list[int]]]]:
    """The rows of a piece; and by each mask how many offend, with the places of the first."""
    rows = piece.read()
    sums = rows.select(mask.sum().alias(str(n)) for n, mask in enumerate(masks))
    found = []
    for n, mask in enumerate(masks):
        count = int(sums[str(n)][0])
        # Most rules are met: then there is nothing to find.
        first = rows.select(mask.arg_true().head(MAX_EXAMPLES)) if count else pl.DataFrame()
        found.append((count, first.to_series().to_list() if count else []))
    return rows.height, found


def _measure(engine: Engine, rule: _Counted) -> list[int]:
    """Take in what Great Expectations counts in a part; the places of the first that offend."""
    try:
        found = engine.measure(rule.expectation, lambda metric: not metric.endswith(_LISTS))
        for name, value in found.items():
            rule.add(name, value)
        if len(rule.rows) >= MAX_EXAMPLES or not found.get(rule.count_name):
            return []
        listed = engine.measure(rule.expectation, lambda metric: metric.endswith(_INDEX))
    except Exception as error:
        rule.error = error
        return []
    return [int(place) for places in listed.values() for place in places]
