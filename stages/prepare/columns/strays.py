"""A few values that make the texts of a column of numbers, truths or dates: they decide its kind.

Prepare stops at them. Words that tables use for gaps are declared by init.
"""

from collections.abc import Sequence

import polars as pl

from stages.common.errors import Problem, UserError
from stages.features.dates.columns import fit_dates
from stages.features.numbers import Rows
from stages.features.spelling import LEADING_ZERO
from stages.prepare.columns.looks import (
    ANY_NUMBER,
    GAPS,
    MAJORITY,
    MAX_CODES,
    MAX_STRAYS,
    NO_TEXTS,
    NUMBER,
    TEXTS,
    TRUTH,
    WRITTEN,
    are_codes,
    are_gaps,
    find_zeros,
    like,
    say_line,
    show_examples,
    texts_of,
)
from stages.prepare.columns.units import MAX_WORDS, find_unit

# Beside words in half of the rows or more, one number alone is a flag.
FEWEST_AMONG_GAPS = 2


def stop_at_strays(
    column: pl.Series, rows: Rows | None = None, known: Sequence[object] = ()
) -> None:
    """Raise UserError where a few of the values make the texts of a column of numbers or truths.

    `rows` (rows,) are the numbers that the values have in their table; None: from 0. `known` are
    its words for gaps, which it no longer has.
    """
    texts = texts_of(column, rows)
    strays, what = _find_strays(texts)
    if strays.height:
        raise UserError(_stray(column.name, texts, strays, what, known))


def stop_at_words_among_dates(
    column: pl.Series, form: str | None, rows: Rows | None = None, known: Sequence[object] = ()
) -> None:
    """Raise UserError where all values of a column are dates of a format, but for a few words.

    `form` is the format that is said; None: any. `rows` and `known` are as of `stop_at_strays`.
    """
    texts = texts_of(column, rows)
    is_date = like(texts, "[0-9]")
    words = texts.filter(~is_date)
    if not 0 < words["text"].n_unique() <= MAX_WORDS:
        return
    if fit_dates(texts.filter(is_date)["text"], form):
        raise UserError(_stray(column.name, texts, words, "dates", known, form))


def stray_gaps(column: pl.Series, *, may_be_most: bool = True) -> list[str]:
    """The words among a column's numbers, truths or dates, where each is one used for gaps.

    Numbers may all have one unit. `may_be_most`: half of the values and more may be words, if the
    others are several.
    """
    texts = texts_of(column) if column.dtype in TEXTS else NO_TEXTS
    is_gap = texts["text"].str.to_lowercase().is_in(GAPS)
    rest = texts.filter(~is_gap)
    if not is_gap.any() or not rest.height:
        return []
    if is_gap.sum() >= MAJORITY * texts.height and (
        not may_be_most or rest["text"].n_unique() < FEWEST_AMONG_GAPS
    ):
        return []
    are_alike = any(like(rest, pattern).all() for pattern in (ANY_NUMBER, TRUTH))
    if not are_alike and find_unit(rest["text"]) is None and not fit_dates(rest["text"]):
        return []
    return texts.filter(is_gap)["text"].unique(maintain_order=True).to_list()


def _find_strays(texts: pl.DataFrame) -> tuple[pl.DataFrame, str]:
    """The few texts that are none of what the others are, and what these are."""
    for pattern, what in ((NUMBER, "numbers"), (TRUTH, "truths")):
        fits = like(texts, pattern) & ~like(texts, LEADING_ZERO)
        good, strays = texts.filter(fits), texts.filter(~fits)
        if not strays.height or good.height <= MAJORITY * texts.height:
            continue
        if are_codes(texts) and find_zeros(strays).height == strays.height:
            continue
        few = strays.height <= max(1, MAX_STRAYS * texts.height)
        if few or (strays["text"].n_unique() == 1 and good["text"].n_unique() > MAX_CODES):
            return strays, what
    return NO_TEXTS, ""


def _stray(
    name: str,
    texts: pl.DataFrame,
    strays: pl.DataFrame,
    what: str,
    known: Sequence[object],
    form: str | None = None,
) -> Problem:
    number = f"{strays.height} values are" if strays.height > 1 else "1 value is"
    message = (
        f"the column '{name}' holds {texts.height - strays.height} {what}, and {number} none: "
        f"{show_examples(strays)}\n  {_remedy(name, strays, known, form)}; or, if each of its "
        f"{texts['text'].n_unique()} different texts is a category, say so: "
        f"{say_line(name, known, 'categorical')}"
    )
    key = f"prepare.columns.{name}"
    return Problem(message, key=key, allowed=("categorical", "exclude"))


def _remedy(name: str, strays: pl.DataFrame, known: Sequence[object], form: str | None) -> str:
    words = strays["text"].unique(maintain_order=True)
    kind = "" if form is None else "datetime"
    line = say_line(name, [*known, *words], kind, form=form)
    if are_gaps(words):
        return f"where that stands for no value, say so: {line}"
    if words.len() <= MAX_WORDS and not words.str.contains(r"\d").any():
        return f"correct the file, or where that stands for no value, say so: {line}"
    if (like(strays, LEADING_ZERO) & like(strays, NUMBER)).all():
        return "write the numbers without leading zeros in the file"
    if like(strays, WRITTEN).all():
        return "write numbers as 1234.5 in the file"
    return "correct the file"
