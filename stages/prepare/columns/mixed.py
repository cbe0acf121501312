"""Columns of categories that are numbers or months, but for a few words or for a line that says so.

The line of params.yaml makes numbers or dates of the rest, and gaps of the words.
"""

import math
import re

import polars as pl

from stages.common.errors import UserError
from stages.features.dates.columns import are_months
from stages.features.numbers import Rows
from stages.features.schema import Feature
from stages.features.spelling import as_line
from stages.features.times import ISO, MONTHS, read_text, write_text
from stages.prepare.columns.looks import MAJORITY, say_line, show_examples, texts_of
from stages.prepare.columns.strays import stray_gaps
from stages.prepare.columns.units import MAX_WORDS, find_unit
from stages.prepare.columns.written import find_writing

# Months that may be days or fractions, too: prepare makes none of them by itself.
_SHORT = {
    "%m/%y": "[0-9]{2}/[0-9]{2}",
    "%b-%y": "[A-Za-z]{3}-[0-9]{2}",
    "%b %y": "[A-Za-z]{3} [0-9]{2}",
}


def say_mixed(column: pl.Series, feature: Feature, rows: Rows | None) -> str | None:
    """A line on a column of categories; None where it is neither of numbers nor of months.

    `rows` (rows,) are the numbers of the rows in their table; None: from 0.
    """
    texts, known = texts_of(column, rows), feature.missing_words or []
    is_word = ~texts["text"].str.contains("[0-9]")
    words = texts.filter(is_word)["text"].unique(maintain_order=True).to_list()
    rest, gaps = texts.filter(~is_word)["text"], [*known, *words]
    are_most = is_word.sum() >= MAJORITY * texts.height
    if len(words) > MAX_WORDS or (are_most and not set(words) <= set(stray_gaps(column))):
        return None
    if form := _find_months(rest):
        month = write_text(read_text(rest[0], form)[0], ISO, aware=False)[:7]
        what, when = "what may be months", f"{rest[0]!r} is {month}"
        line = say_line(column.name, gaps, "datetime", form=form)
    elif words and (unit := find_unit(rest)):
        what, when = f"numbers with the unit '{unit}'", ""
        line = say_line(column.name, gaps, "numeric", unit)
    elif words and _are_numbers(rest):
        what, when, line = "numbers", "", say_line(column.name, gaps)
    else:
        return None
    shown, among = show_examples(texts), ""
    if words:
        others = texts.filter(is_word)
        shown, among = (
            show_examples(others, MAX_WORDS),
            f" for the {others.height} words among them",
        )
    reasons = [when] if when else []
    reasons += ["these stand for no value"] if words else []
    return (
        f"'{column.name}' holds {what}, taken as {texts['text'].n_unique()} categories{among}: "
        f"{shown}; if {' and '.join(reasons)}, {line}, or {as_line(column.name, 'exclude')}; if "
        f"that is meant, {say_line(column.name, known, 'categorical')}"
    )


def _find_months(texts: pl.Series) -> str | None:
    """The format in which all of the texts, more than one, are months."""
    different = texts.unique(maintain_order=True)
    if different.len() < 2:
        return None
    first = different[0]
    for form in (*MONTHS, *_SHORT):
        if math.isnan(read_text(first, form)[0]) or not are_months(different, form):
            continue
        if form in MONTHS or all(re.fullmatch(_SHORT[form], text) for text in different):
            return form
    return None


def _are_numbers(texts: pl.Series) -> bool:
    """Check whether they are numbers in one way of writing, or in two, of which prepare asks."""
    try:
        return find_writing(texts) is not None
    except UserError:
        return True
