"""Leaks of the target: columns that tell all of it, by their values or by their gaps alone."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from stages.features.columns import as_category, as_numeric
from stages.tools.init.columns import LEFT_OUT, Column

Numbers = npt.NDArray[Any]

# Of what the target alone leaves to be told, one column tells so much.
LEAK, COPY = 0.98, 0.9999
NUM_BINS = 256
# With fewer rows a column may tell the target by chance.
MIN_ROWS = 50
# With fewer rows that differ from the others one is not left out.
MIN_APART = 5
ALL = slice(None)
Part = slice | npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Told:
    """The share of the target that one column alone tells: 0 nothing, 1 all of it.

    `num_apart`: the rows that are not in the column's most frequent bin, by which it tells that.
    """

    share: float = 0.0
    num_apart: int = 0


def judge_leak(line: Column, column: pl.Series, answers: Numbers) -> Column:
    """The line of a column, left out if it tells all of the target, and warned of if nearly all.

    `answers` (rows,) are those of `as_answers`.
    """
    told, by_gap = tell_by_values(column, answers), tell_by_gaps(column, answers)
    what = ""
    # What a gap tells, values tell in more words.
    if by_gap.share >= told.share:
        what, told = "a value or a gap in ", by_gap
    if told.share >= COPY and told.num_apart >= MIN_APART:
        subject = f"{what}it " if what else ""
        why = f"{subject}tells the target all alone ({told.share:.2%} of it): a leak"
        return replace(line, role=LEFT_OUT, why=why, setting="exclude")
    if told.share >= LEAK:
        asked = f"alone tells {told.share:.1%} of the target: is it known before the target is?"
        return replace(line, warnings=[f"{what}'{line.name}' {asked}"])
    return line


def as_answers(target: pl.Series, *, is_class: bool) -> Numbers:
    """The target as whole numbers from 0, one for each class, or as its values (rows,)."""
    if not is_class:
        return as_numeric(target, "prepare.target").cast(pl.Float64).to_numpy()
    return (as_category(target).rank("dense").to_numpy() - 1).astype(np.int64)


def tell_by_values(column: pl.Series, answers: Numbers) -> Told:
    """The share that is told by the value of each row.

    Learned from each half of the rows as the most frequent class, or the mean, of the rows with its
    value (of numbers, in one of NUM_BINS bins), and measured on the other half against always
    saying the same. The halves are drawn by lot: rows may alternate, as those of two sides do.
    """
    if column.len() < MIN_ROWS or column.dtype.is_nested():
        return Told()
    bins = _bins(column)
    if bins is None:
        return Told()
    is_ordered = column.dtype.is_numeric() or column.dtype.is_temporal()
    is_first = np.random.default_rng(0).random(column.len()) < 0.5
    halves = (is_first, ~is_first), (~is_first, is_first)
    return _tell(bins, answers, *halves, is_ordered=is_ordered)


def tell_by_gaps(column: pl.Series, answers: Numbers) -> Told:
    """The share that is told by whether a column, of any type, has a value or a gap.

    All rows are learned from and measured on: two bins are too few to learn rows by heart.
    """
    gaps = np.isnan(column.to_numpy()) if column.dtype.is_float() else column.is_null().to_numpy()
    if column.len() < MIN_ROWS or gaps.all() or not gaps.any():
        return Told()
    return _tell(gaps.astype(np.int64), answers, (ALL, ALL))


def _tell(
    bins: Numbers,
    answers: Numbers,
    *halves: tuple[Part, Part],
    is_ordered: bool = False,
) -> Told:
    """The share that the bin of each row tells; `halves`: the rows to learn from, and to judge.

    Of ordered bins, one without a row to learn from says what the next lower one with rows does: a
    short table has fewer rows than bins.
    """
    is_class = answers.dtype.kind == "i"
    learn = _learn_classes if is_class else _learn_means
    num_bins, wrong, base = int(bins.max()) + 1, 0.0, 0.0
    for learned, judged in halves:
        said, always = learn(bins[learned], answers[learned], num_bins)
        if is_ordered:
            has_rows = np.bincount(bins[learned], minlength=num_bins) > 0
            lower = np.maximum.accumulate(np.where(has_rows, np.arange(num_bins), 0))
            said = said[lower]
        truth = answers[judged]
        errors, base_errors = truth - said[bins[judged]], truth - always
        wrong += float(np.count_nonzero(errors) if is_class else errors @ errors)
        base += float(np.count_nonzero(base_errors) if is_class else base_errors @ base_errors)
    num_apart = len(bins) - int(np.bincount(bins).max())
    return Told(1 - wrong / base if base else 0.0, num_apart)


def _learn_classes(bins: Numbers, codes: Numbers, num_bins: int) -> tuple[Numbers, int]:
    """The most frequent class of each bin, and of all; the first of several.

    A bin without a row has that of all.
    """
    always = int(np.bincount(codes).argmax())
    said, num_classes = np.full(num_bins, always), int(codes.max()) + 1
    pairs, counts = np.unique(bins * num_classes + codes, return_counts=True)
    # The one written last stays: the most frequent, of several the first class.
    order = np.lexsort((-pairs, counts))
    said[pairs[order] // num_classes] = pairs[order] % num_classes
    return said, always


def _learn_means(bins: Numbers, values: Numbers, num_bins: int) -> tuple[Numbers, float]:
    """The mean of each bin, and of all, which a bin without a row has."""
    always = float(values.mean())
    counts = np.bincount(bins, minlength=num_bins)
    sums = np.bincount(bins, values, num_bins)
    return np.where(counts > 0, sums / np.maximum(counts, 1), always), always


def _bins(column: pl.Series) -> Numbers | None:
    """The number of each row's value, or of its bin; None where nearly each row has its own."""
    if column.dtype.is_numeric() or column.dtype.is_temporal():
        rank = column.rank("dense").fill_null(0).to_numpy().astype(np.int64)
        highest = int(rank.max(initial=0))
        return rank if highest <= NUM_BINS else (rank * NUM_BINS) // (highest + 1)
    values = as_category(column)
    if values.n_unique() > column.len() / 2:
        return None
    return values.rank("dense").fill_null(0).to_numpy().astype(np.int64)
