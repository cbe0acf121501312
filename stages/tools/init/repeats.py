"""Columns that name what has several rows each: patients, users, trees."""

from dataclasses import replace
from shlex import quote

import polars as pl

from stages.tools.init.columns import LEFT_OUT, Column
from stages.tools.init.options import Options
from stages.tools.init.roles import names_repeat


def judge_repeats(column: pl.Series, line: Column, options: Options) -> Column:
    """The line of a column, with a question where it names what has several rows each.

    Names of numbers that hardly repeat are left out; a model would learn from their amount.
    """
    if options.group is not None or options.time is not None or not names_repeat(column):
        return line
    name, num, count = column.name, column.drop_nulls().n_unique(), column.count()
    of_each = f"'{name}' names {num:,} different things in {count:,} rows"
    group = f"--group {quote(name)}"
    apart = f"if new rows are of others, {group} tests by rows of others, too"
    if line.role == LEFT_OUT:
        return replace(line, warnings=[*line.warnings, f"{of_each}: {apart}"])
    if column.dtype.is_integer() and num > count / 2:
        why = f"names what rows are of, {num:,} in {count:,} rows: no amount"
        return replace(
            line,
            role=LEFT_OUT,
            why=why,
            setting="exclude",
            warnings=[f"{of_each}, and is left out: {apart}"],
        )
    what = f"learned from as {'an amount' if column.dtype.is_integer() else 'a category'}"
    out = f"--column {quote(f'{name}=exclude')}"
    warning = (
        f"{of_each}, and is {what}: test rows of the same ones look better than rows of others "
        f"will; {apart}, and {out} leaves it out"
    )
    return replace(line, warnings=[*line.warnings, warning])
