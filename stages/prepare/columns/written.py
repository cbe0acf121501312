"""The writing of each column: its words for gaps, and its decimal comma or thousands.

Both follow from the rows at hand: all, or the sample of a long table, which long_table.py then
checks. A way of writing numbers is taken where every text of a column fits it,
and no other one gives other numbers: of 1,234 alone nobody knows what it is.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import polars as pl

from stages.common.counts import counted
from stages.common.errors import Problem, UserError, shorten
from stages.features.schema import Schema
from stages.features.spelling import (
    LEADING_ZERO,
    PLAIN_SIGNS,
    WRITINGS,
    Signs,
    as_line,
    as_list,
    as_text,
    number_pattern,
    show_signs,
)
from stages.features.written import Gaps, drop_unit, drop_words, read_numbers
from stages.formats.reading import Noticed
from stages.formats.text.plain_values import typed
from stages.prepare.columns.target import MAX_WHOLE
from stages.prepare.params import Column, PrepareParams

# A number whose dot may stand between thousands, and one without.
_GROUPED = r"^[+-]?[1-9][0-9]{0,2}\.[0-9]{3}$"
_WHOLE = r"^[+-]?(?:0|[1-9][0-9]*)$"


@dataclass(frozen=True)
class Written:
    """The writing of a column that is not plain; `words` stand for gaps."""

    words: list[str]
    decimal: str | None = None
    thousands: str | None = None
    unit: str | None = None


def read_written(
    table: pl.DataFrame,
    params: PrepareParams,
    noticed: Noticed | None = None,
    *,
    has_commas: bool = False,
) -> tuple[pl.DataFrame, dict[str, Written], list[str]]:
    """The table with gaps for words and numbers for texts of numbers; how each column is written.

    And a line for each thing to know, or of gaps an entry in `noticed`. Raises UserError with every
    column of which a person has to say how its numbers are written; `has_commas`: in this file
    1.861 may be one thousand.
    """
    columns, written, lines, problems = [], {}, [], []
    own = noticed is None
    noticed = noticed or Noticed()
    # Of a group 1.1 and 1.10 are two.
    names = {params.key, params.split.column, params.structure and params.structure.group}
    for column in table.iter_columns():
        said = params.column(column.name)
        if said.kind == "exclude" or column.name in names or column.dtype.is_nested():
            continue
        try:
            read, how = _read(column, said, params, noticed.gaps, has_commas=has_commas)
        except UserError as error:
            problems += error.problems
            continue
        if how.decimal is not None and not said.has_signs:
            lines.append(_line(column, read, how))
        if column.dtype == pl.String and read.dtype.is_float():
            noticed.add_infinite(column.name, read)
        columns.append(read)
        written[column.name] = how
    if problems:
        raise UserError(*problems)
    return table.with_columns(columns), written, [*(noticed.lines() if own else ()), *lines]


def gap_words(name: str, params: PrepareParams) -> list[str]:
    """The words that stand for gaps in a column."""
    own = params.column(name).missing
    return [str(word) for word in (params.missing if own is None else own)]


def with_written(schema: Schema, written: Mapping[str, Written]) -> Schema:
    """`schema` with how the columns are written, where that is not plain."""
    features = []
    for feature in schema.features:
        how = written.get(feature.name, Written([]))
        update: dict[str, object] = {"missing_words": how.words} if how.words else {}
        if feature.kind == "numeric" and how.decimal is not None:
            update |= {"decimal": how.decimal, "thousands": how.thousands, "unit": how.unit}
        features.append(feature.model_copy(update=update))
    return schema.model_copy(update={"features": features})


def _read(
    column: pl.Series, said: Column, params: PrepareParams, gaps: Gaps, *, has_commas: bool
) -> tuple[pl.Series, Written]:
    words = gap_words(column.name, params)
    is_target = column.name == params.target
    is_open = said.named_kind in (None, "numeric") and said.format is None
    may_be_number = params.task != "classification" if is_target else is_open
    read = drop_words(column, words, gaps, numbers=False)
    if read.dtype != pl.String or not may_be_number:
        return read, Written(words)
    if said.unit is not None:
        return _read_with_unit(drop_words(read, words, gaps, numbers=True), said, words)
    if said.decimal is not None or said.thousands is not None:
        decimal = said.decimal or ("," if said.thousands == "." else ".")
        return _cast(read, decimal, said.thousands), Written(words, decimal, said.thousands)
    without: Gaps = Counter()
    numbers = drop_words(read, words, without, numbers=True)
    in_doubt = has_commas and has_grouped(numbers) and may_group(numbers)
    if numbers.null_count() > column.null_count() and not in_doubt:
        plain = typed(numbers.to_frame()).to_series()
        if plain.dtype != pl.String:
            gaps.update(without if plain.dtype.is_numeric() else {})
            return drop_words(plain, words, gaps, numbers=True), Written(words)
    writing = find_writing(numbers, words=said.missing or ())
    if writing is None:
        return read, Written(words)
    gaps.update(without)
    return _cast(numbers, *writing), Written(words, *writing)


def _read_with_unit(texts: pl.Series, said: Column, words: list[str]) -> tuple[pl.Series, Written]:
    """The numbers before or behind a unit, by the signs that are said or else found."""
    assert said.unit is not None
    signs: tuple[str | None, str | None] | None = said.decimal, said.thousands
    if signs == (None, None):
        signs = find_writing(drop_unit(texts, said.unit), said.unit, said.missing or ())
    decimal, thousands = signs or (".", None)
    decimal = decimal or ("," if thousands == "." else ".")
    how = Written(words, decimal, thousands, said.unit)
    return _cast(texts, decimal, thousands, said.unit), how


def find_writing(
    texts: pl.Series, unit: str | None = None, words: Sequence[object] = ()
) -> Signs | None:
    """The one way of writing in which all texts are numbers; None where there is none.

    Raises UserError where two fit that give other numbers; `unit` was taken from the texts, and
    `words` for gaps that their column has.
    """
    filled = texts.drop_nulls()
    if filled.is_empty() or filled.str.contains(LEADING_ZERO).any():
        return None
    fits = [
        each
        for each in (PLAIN_SIGNS, *WRITINGS)
        if filled.str.contains(number_pattern(*each)).all()
    ]
    if not fits or (fits[0] == PLAIN_SIGNS and _has_long_id(filled)):
        return None
    values = [read_numbers(filled, *each) for each in fits]
    for other, numbers in zip(fits[1:], values[1:], strict=True):
        differs = numbers != values[0]
        if differs.any():
            place = int(differs.arg_true()[0])
            raise UserError(_ambiguous(texts, filled[place], (fits[0], other), unit, words))
    return fits[0]


def _has_long_id(numbers: pl.Series) -> bool:
    """Check whether a text of digits alone has more of them than a float tells apart."""
    digits = numbers.filter(numbers.str.contains(_WHOLE))
    return bool((digits.cast(pl.Float64).abs() > MAX_WHOLE).any())


def may_group(texts: pl.Series) -> bool:
    """Check whether each text of a part is a number whose dot may stand between thousands.

    Whole numbers beside them may be, too.
    """
    return bool(texts.drop_nulls().str.contains(f"{_GROUPED}|{_WHOLE}").all())


def has_grouped(texts: pl.Series) -> bool:
    """Check whether a text is a number with three digits behind a dot, alone or beside others."""
    return bool(texts.drop_nulls().str.contains(_GROUPED).any())


def _cast(
    texts: pl.Series, decimal: str, thousands: str | None, unit: str | None = None
) -> pl.Series:
    """The texts as numbers, whole where all are. Raises UserError with those that are none."""
    numbers = read_numbers(texts, decimal, thousands, unit)
    if numbers.null_count() > texts.null_count():
        is_lost = numbers.is_null() & texts.is_not_null()
        row = int(is_lost.arg_true()[0])
        one, many = "value that is no number", "values that are no numbers"
        values, form = counted(int(is_lost.sum()), one, many), show_signs(decimal, thousands, unit)
        message = f"the column '{texts.name}' holds {values} written as {form}, such as "
        message += f"{texts[row]!r} (row {row})"
        raise UserError(Problem(message, key=f"prepare.columns.{texts.name}"))
    bare = texts if unit is None else drop_unit(texts, unit)
    if bare.str.contains(rf"[a-zA-Z\{decimal}]").any():
        return numbers
    whole = numbers.cast(pl.Int64, strict=False)
    return numbers if whole.null_count() > texts.null_count() else whole


def _ambiguous(
    texts: pl.Series,
    text: str,
    both: tuple[Signs, Signs],
    unit: str | None,
    words: Sequence[object],
) -> Problem:
    lines = "".join(
        f"\n  {read_numbers(pl.Series([text]), *each)[0]:>12g}: "
        + _as_line(texts.name, each, unit, words)
        for each in both
    )
    row = int((texts == text).fill_null(value=False).arg_true()[0])
    message = (
        f"the column '{texts.name}' holds numbers that may be read in two ways: {text!r} (row "
        f"{row}); say which\n  what it is    the line of params.yaml{lines}"
    )
    return Problem(message, key=f"prepare.columns.{texts.name}")


def _as_line(name: str, writing: Signs, unit: str | None, words: Sequence[object]) -> str:
    decimal, thousands = writing
    parts = [f"decimal: '{decimal}'"] if decimal == "," or thousands is None else []
    parts += [] if thousands is None else [f'thousands: "{thousands}"']
    parts += [] if unit is None else [f"unit: {as_text(unit)}"]
    parts += [f"missing: {as_list(words)}"] if words else []
    return as_line(name, f"{{kind: numeric, {', '.join(parts)}}}")


def _line(column: pl.Series, read: pl.Series, how: Written) -> str:
    assert how.decimal is not None
    texts = column.cast(pl.String)
    # The first that can't be read as it stands.
    differs = texts.cast(pl.Float64, strict=False).is_null() & read.is_not_null()
    row = int((differs if differs.any() else read.is_not_null()).arg_true()[0])
    signs = how.decimal, how.thousands
    form = "as texts" if signs == PLAIN_SIGNS else f"written as {show_signs(*signs)}"
    return (
        f"note: '{column.name}' holds numbers {form}: "
        f"{shorten(repr(texts[row]))} (row {row}) is {read[row]}; if that is wrong, "
        f"{as_line(column.name, 'categorical')}"
    )
