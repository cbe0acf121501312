"""Dots that are decimal signs or stand between thousands: 1.861 in a file of decimal commas.

Such a column stays one of texts, as `1,861` does, and the writing of columns asks what it is. A dot
is in doubt where other signs of the file say that its numbers have commas: semicolons or tabs
between its columns, or decimal commas in another one.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

import polars as pl

from stages.features.spelling import number_pattern
from stages.formats.part import Part
from stages.prepare.columns.written import has_grouped, may_group
from stages.prepare.params import Column
from stages.prepare.table.table import Table

SEPARATORS = {";", "\t"}
_COMMAS = "|".join(number_pattern(",", sign) for sign in (".", " ", "'"))
# Of three digits behind a comma nobody knows what it is.
_DECIMAL_COMMA = r",(?:[0-9]{1,2}|[0-9]{4,})$"
# The difference of a float64 from the number of thousandths that was written.
_SLACK = 1e-6


def signed_columns(columns: Mapping[str, str | Column]) -> frozenset[str]:
    """The columns that are said to have other signs than a decimal dot: only texts show them."""
    return frozenset(
        name
        for name, said in columns.items()
        if isinstance(said, Column) and (said.decimal == "," or said.thousands == ".")
    )


def has_commas(table: Table, separators: Collection[str]) -> bool:
    """Check whether the numbers of a file that has these `separators` probably have commas."""
    if SEPARATORS.intersection(separators):
        return True
    texts = [name for name, dtype in table.schema.items() if dtype == pl.String]
    return any(_is_decimal(table.column_parts(name)) for name in texts)


def _is_decimal(parts: Iterable[pl.Series]) -> bool:
    """Check whether all texts are numbers, some with a decimal comma."""
    found = False
    for part in parts:
        texts = part.drop_nulls()
        if not texts.str.contains(_COMMAS).all():
            return False
        found = found or bool(texts.str.contains(_DECIMAL_COMMA).any())
    return found


def find_doubtful(table: Table, read_texts: Callable[[frozenset[str]], Iterator[Part]]) -> set[str]:
    """The columns of numbers all of whose dots may stand between thousands.

    `read_texts` reads the source anew with some columns as texts; it is asked for those alone whose
    values leave a doubt, and no longer than it lasts.
    """
    floats = (name for name, dtype in table.schema.items() if dtype == pl.Float64)
    left = {name for name in floats if all(map(_in_thousandths, table.column_parts(name)))}
    grouped = set[str]()
    for part in read_texts(frozenset(left)) if left else ():
        for name in left & set(part.table.columns):
            texts = part.table[name]
            if texts.dtype != pl.String or not may_group(texts):
                left.discard(name)
            elif has_grouped(texts):
                grouped.add(name)
        if not left:
            break
    return left & grouped


def _in_thousandths(values: pl.Series) -> bool:
    """Check whether each number is whole, or one of thousandths from 1 to 1000."""
    large = (values.abs() * 1000).drop_nulls()
    is_whole = values.drop_nulls() % 1 == 0
    fits = ((large - large.round()).abs() < _SLACK) & large.is_between(1000, 1e6)
    return bool((is_whole | fits).all())
