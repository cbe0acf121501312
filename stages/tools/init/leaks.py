"""Leaks of the target: columns that tell all of it, by their values or by their gaps alone."""

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import polars as pl

from stages.features.columns import as_category
from stages.tools.init.columns import LEFT_OUT, Column

# Of what the target alone leaves to be told, one column tells so much.
LEAK, COPY = 0.98, 0.9999
NUM_BINS = 256
# With fewer rows a column may tell the target by chance.
MIN_ROWS = 50


def judge_leak(line: Column, column: pl.Series, target: pl.Series, *, is_class: bool) -> Column:
    """The line of a column, left out if it tells all of the target, and warned of if nearly all."""
    share = tells_target(column, target, is_class=is_class)
    by_gap = gap_tells_target(column, target, is_class=is_class)
    # What a gap tells, values tell in more words.
    what, share = ("a value or a gap in ", by_gap) if by_gap >= share else ("", share)
    if share >= COPY:
        subject = f"{what}it " if what else ""
        why = f"{subject}tells the target all alone ({share:.2%} of it): a leak"
        return replace(line, role=LEFT_OUT, why=why, setting="exclude")
    if share >= LEAK:
        asked = f"alone tells {share:.1%} of the target: is it known before the target is?"
        return replace(line, warnings=[f"{what}'{line.name}' {asked}"])
    return line


def tells_target(column: pl.Series, target: pl.Series, *, is_class: bool) -> float:
    """The share of the target that one column alone tells: 0 nothing, 1 all of it.

    Learned from the even rows as the most frequent class, or the mean, of the rows with its value
    (of numbers, in one of NUM_BINS bins), and measured on the odd rows against always saying the
    same.
    """
    if column.len() < MIN_ROWS or column.dtype.is_nested():
        return 0.0
    bins = _bins(column)
    return 0.0 if bins is None else _share_told(bins, target, is_class=is_class)


def gap_tells_target(column: pl.Series, target: pl.Series, *, is_class: bool) -> float:
    """The share of the target that is told by whether a column has a value or a gap.

    As `tells_target` has it, of a column of any type.
    """
    gaps = column.is_null()
    if column.dtype.is_float():
        gaps |= column.is_nan().fill_null(value=True)
    if column.len() < MIN_ROWS or gaps.n_unique() == 1:
        return 0.0
    return _share_told(gaps, target, is_class=is_class)


def _share_told(bins: pl.Series, target: pl.Series, *, is_class: bool) -> float:
    """The share of the target that the bin of each row tells."""
    frame = pl.DataFrame({"bin": bins, "y": as_category(target) if is_class else target})
    even = pl.int_range(pl.len()) % 2 == 0
    learn, judge = frame.filter(even), frame.filter(~even)
    answer = pl.col("y").mode().first() if is_class else pl.col("y").mean()
    told = judge.join(learn.group_by("bin").agg(answer.alias("told")), on="bin", how="left")
    fallback = learn.select(answer).item()
    said = told["told"].fill_null(fallback)
    if is_class:
        wrong, base = (said != told["y"]).sum(), (told["y"] != fallback).sum()
    else:
        wrong, base = _squares(told["y"] - said), _squares(told["y"] - fallback)
    return 1 - wrong / base if base else 0.0


def _squares(values: pl.Series) -> float:
    numbers: npt.NDArray[np.float64] = values.cast(pl.Float64).drop_nulls().to_numpy()
    return float((numbers**2).sum())


def _bins(column: pl.Series) -> pl.Series | None:
    """The number of each row's value, or of its bin; None where nearly each row has its own."""
    if column.dtype.is_numeric() or column.dtype.is_temporal():
        rank = column.rank("dense").fill_null(0)
        highest = int(rank.to_numpy().max(initial=0))
        return rank if highest <= NUM_BINS else (rank * NUM_BINS) // (highest + 1)
    values = as_category(column)
    if values.n_unique() > column.len() / 2:
        return None
    return values.rank("dense").fill_null(0)
