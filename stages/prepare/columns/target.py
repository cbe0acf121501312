"""The target: a class or a value, as all rows have it; and the numbers that training has of it."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import cast

import numpy as np
import numpy.typing as npt
import polars as pl

from stages.common.counts import counted, either
from stages.common.errors import Problem, UserError
from stages.features.columns import (
    NO_COUNTS,
    add_counts,
    as_category,
    as_numeric,
    encode_codes,
    fits_float32,
    too_large,
)
from stages.features.numbers import Rows
from stages.features.schema import (
    Array,
    Class,
    Schema,
    Statistics,
    Target,
    TargetTransform,
)
from stages.features.spelling import as_line, as_list
from stages.features.target_scale import to_scale, transform
from stages.prepare.columns.labels import say_labels
from stages.prepare.low_values import find_low, stop_at_classes, stop_at_low

SOURCE = "prepare.source"
# A target of whole numbers with at most this many values, each on average in 20 rows, is a class.
MAX_INTEGER_CLASSES = 20
MIN_ROWS_PER_CLASS = 3
MAX_SHOWN = 5
# So many different words may be named as gaps.
MAX_WORDS = 20
# Of more different values nobody wants to know each.
MAX_COUNTED = 100_000
# Beyond it float64 has no longer a number of its own for each whole number.
MAX_WHOLE = 2**53


@dataclass
class _Values:
    """The values of all rows: how often each is there, unless there are very many.

    Of amounts it is asked alone whether there are two.
    """

    task: str
    dtype: pl.DataType = field(default_factory=pl.Null)
    name: str = ""
    first: object = None
    num_rows: int = 0
    gaps: list[int] = field(default_factory=list)
    num_gaps: int = 0
    counts: pl.DataFrame = field(default_factory=lambda: NO_COUNTS)
    is_counted: bool = True
    # Whole numbers, be they floats: pandas makes floats of them where one is missing.
    is_whole: bool = True

    def add(self, column: pl.Series) -> None:
        """Take a part in."""
        self.dtype, self.name = column.dtype, column.name
        self.is_whole &= column.dtype.is_integer() or column.dtype.is_float()
        if column.dtype.is_float():
            column = as_numeric(column, "prepare.target")
            whole = (column.floor() == column) & (column.abs() <= MAX_WHOLE)
            self.is_whole &= bool(whole.all())
        if self.first is None and column.count():
            self.first = column.drop_nulls()[0]
        places = column.is_null().arg_true().head(5 - len(self.gaps))
        self.gaps += [self.num_rows + place for place in places]
        self.num_gaps += column.null_count()
        self.num_rows += column.len()
        if self.is_counted:
            self.counts = add_counts(self.counts, as_category(column))
            self.is_counted = self.counts.height <= (1 if self.is_amount else MAX_COUNTED)

    @property
    def is_amount(self) -> bool:
        """Check whether a number is to be predicted, whatever is still to come."""
        has_fractions = _may_have_fractions(self.dtype) and not self.is_whole
        return self.task == "regression" or (self.task == "auto" and has_fractions)


def find_target(
    parts: Iterable[pl.Series],
    task: str,
    rows: Rows | None = None,
    gaps: Sequence[str] = (),
) -> Target:
    """The task and the classes. Raises UserError for gaps, and where there is nothing to learn.

    `rows` (rows,) are the numbers that the rows have in the source; None: from 0. `gaps` are the
    words that already stand for no value in the target.
    """
    values, long = _Values(task), LongNumbers()
    for column in parts:
        if column.dtype.is_nested():
            what = f"the target '{column.name}' is of type {column.dtype}, not a class or a value"
            what = f"{what}: a model has one answer for a row (docs/init.md, 'Several targets')"
            raise UserError(Problem(what, "prepare.target", column.name))
        if task == "regression":
            _stop_at_words(column, values.num_rows, rows, gaps)
            as_numeric(column, "prepare.target")
        values.add(column)
        long.add(column)
    name = values.name
    if values.num_gaps:
        message = (
            f"the target '{name}' is empty in {counted(values.num_gaps, 'row')} (the first: "
            f"{values.gaps}); write drop_missing_target: true to leave them out, or put them in"
        )
        raise UserError(Problem(message, key="prepare.drop_missing_target", value="false"))
    if task == "auto":
        task = _guess_task(values)
    if values.is_counted and values.counts.height < 2:
        message = f"the target '{name}' is {values.first!r} in every row: nothing to learn"
        raise UserError(Problem(message, key="prepare.target", value=name))
    if task == "regression":
        long.stop("prepare.target")
        return Target(name=name, task="regression")
    return Target(name=name, task="classification", classes=_find_classes(name, values))


def _may_have_fractions(dtype: pl.DataType) -> bool:
    return dtype.is_float() or dtype == pl.Decimal


def _stop_at_words(column: pl.Series, start: int, rows: Rows | None, gaps: Sequence[str]) -> None:
    """Raise UserError for texts that are no numbers, with their rows and the ways on."""
    if column.dtype != pl.String:
        return
    is_word = column.is_not_null() & column.cast(pl.Float64, strict=False).is_null()
    places = is_word.arg_true()
    if not len(places) or len(places) == column.count():
        return
    words = column.filter(is_word).unique(maintain_order=True).to_list()
    numbers = [start + place if rows is None else int(rows[start + place]) for place in places]
    first = ", ".join(f"{column[places[n]]!r} (row {numbers[n]})" for n in range(len(places))[:5])
    line = as_line(column.name, f"{{missing: {as_list([*gaps, *words])}}}")
    message = (
        f"the target '{column.name}' holds {counted(len(places), 'value')} that "
        f"{either(len(places), 'is not a number', 'are not numbers')}: {first}\n  correct the file"
    )
    if len(words) <= MAX_WORDS:
        message += f"; or, where that stands for no value, leave these rows out: {line}"
        message += " and drop_missing_target: true"
    raise UserError(Problem(message, "prepare.target", column.name))


def _guess_task(values: _Values) -> str:
    if not values.is_whole:
        return "regression" if _may_have_fractions(values.dtype) else "classification"
    num, rarest = values.counts.height, min((count for _, count in values.counts.rows()), default=0)
    # Two whole numbers are yes and no, however short the table is.
    is_yes_no = num == 2 and rarest >= MIN_ROWS_PER_CLASS
    few = is_yes_no or num <= min(MAX_INTEGER_CLASSES, values.num_rows // 20)
    return "classification" if values.is_counted and few else "regression"


def _find_classes(name: str, values: _Values) -> list[Class]:
    """The classes in sorted order; of whole numbers, booleans or texts."""
    as_class: Callable[[str], Class] = str
    if values.dtype == pl.Boolean:
        as_class = _is_true
    elif values.is_whole:
        as_class = int
    counts = {as_class(value): count for value, count in values.counts.rows()}
    rare = sorted((str(value), n) for value, n in counts.items() if n < MIN_ROWS_PER_CLASS)
    if rare or not values.is_counted:
        raise UserError(_too_rare(name, values, rare))
    return cast(list[Class], sorted(counts))


def _too_rare(name: str, values: _Values, rare: list[tuple[str, int]]) -> Problem:
    """The mistake of classes with too few rows, and what can be done."""
    shown = ", ".join(f"'{value}' ({n})" for value, n in rare[:MAX_SHOWN])
    shown += ", …" if len(rare) > MAX_SHOWN else ""
    more = "" if values.is_counted else "more than "
    message = (
        f"{more}{len(rare)} {'class' if len(rare) == 1 else 'classes'} of the target '{name}' "
        f"{'has' if len(rare) == 1 else 'have'} fewer than {MIN_ROWS_PER_CLASS} rows, too few for "
        f"three splits: {shown}\n  in the file, give these rows another class or remove them"
    )
    key, allowed = f"prepare.columns.{name}", tuple[str, ...]()
    num_left = values.counts.height - len(rare)
    if len(rare) <= MAX_SHOWN and values.dtype != pl.Boolean and num_left > 1:
        line = as_line(name, f"{{missing: {as_list([value for value, _ in rare])}}}")
        message += f"; or leave them out: {line} and drop_missing_target: true"
    numbers = values.counts["value"].cast(pl.Float64, strict=False)
    if 2 * numbers.count() > values.counts.height > 2:
        message += "; is it a number to predict? Then the task is regression"
        key, allowed = "prepare.task", ("auto", "regression", "classification")
    elif len(rare) > MAX_SHOWN:
        message, key = f"{message}; or name another target", "prepare.target"
    if labels := say_labels(name, values.counts["value"].to_list()):
        message = f"{message}\n  {labels}"
    return Problem(message, key=key, allowed=allowed)


def _is_true(word: str) -> bool:
    return word == "true"


@dataclass
class LongNumbers:
    """Counts whole numbers of which a model would take several for one."""

    name: str = ""
    num_rows: int = 0
    num_long: int = 0
    first: tuple[int, int] = (0, 0)

    def add(self, column: pl.Series) -> None:
        """Take a part in; one of other values than whole numbers has none."""
        self.name = column.name
        if column.dtype.is_integer() and column.count():
            low, high = cast(int, column.min()), cast(int, column.max())
            if max(-low, high) > MAX_WHOLE:
                wide = column.cast(pl.Int128)
                long = ((wide > MAX_WHOLE) | (wide < -MAX_WHOLE)).fill_null(value=False)
                place = int(long.arg_true()[0])
                self.first = self.first if self.num_long else (column[place], self.num_rows + place)
                self.num_long += int(long.sum())
        self.num_rows += column.len()

    def stop(self, key: str) -> None:
        """Raise UserError if there were any; `key` names the column."""
        if not self.num_long:
            return
        value, row = self.first
        message = (
            f"the column '{self.name}' looks like an id: {self.num_long} of its whole numbers are "
            f"beyond 2^53, such as {value} (row {row}), where a model takes neighbours for one"
        )
        if key == "prepare.target":
            raise UserError(Problem(message, key=key, value=self.name))
        message += f"; leave it out: {as_line(self.name, 'exclude')}, or name it in prepare.key"
        raise UserError(Problem(message, key=key, allowed=("exclude", "numeric", "categorical")))


def check_transform(
    parts: Iterable[pl.Series], target: Target, name: TargetTransform | None
) -> None:
    """Raise UserError where the target can't be transformed: a class, or values too small."""
    if name is None:
        return
    if target.task != "regression":
        raise UserError(stop_at_classes(target.name, name))
    low = find_low(as_numeric(column, "prepare.target").to_numpy() for column in parts)
    if low is not None:
        raise UserError(stop_at_low(target.name, name, low))


def transformed(parts: Iterable[pl.Series], name: TargetTransform | None) -> Iterator[pl.Series]:
    """Yield the parts of the target as a model learns them, before they are standardised."""
    for column in parts:
        if name is None:
            yield column
        else:
            values = as_numeric(column, SOURCE).to_numpy()
            yield pl.Series(column.name, transform(values, name))


def encode_classes(parts: Iterable[pl.Series], schema: Schema) -> npt.NDArray[np.int32] | None:
    """Codes from 0 in the order of the schema's classes, (rows,); None for regression."""
    if schema.target.classes is None:
        return None
    return np.concatenate([_codes(column, schema.target.classes) for column in parts])


def _codes(column: pl.Series, classes: list[Class]) -> npt.NDArray[np.int32]:
    names = as_category(pl.Series("class", classes)).to_list()
    codes = encode_codes(column, names, SOURCE)
    assert not len(codes) or codes.min() > 0
    return (codes - 1).astype(np.int32)


def encode_target(column: pl.Series, schema: Schema, statistics: Statistics) -> Array:
    """The target of the loss: class codes int64, or standardised values float32.
    (rows,).
    """
    if schema.target.classes is not None:
        return _codes(column, schema.target.classes).astype(np.int64)
    assert statistics.target is not None
    values = as_numeric(column, SOURCE)
    numbers = values.to_numpy()
    scaled = pl.Series(values.name, to_scale(numbers, statistics.target))
    if not fits_float32(scaled):
        raise too_large(values, SOURCE)
    return scaled.to_numpy().astype(np.float32)
