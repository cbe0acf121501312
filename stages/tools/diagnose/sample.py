"""Some rows of a split, drawn at random: prepare keeps the order of the source.

A file may be sorted, folders of images are, by class. Its first rows say nothing of the others.
"""

from collections.abc import Mapping

import numpy as np

from stages.features.numbers import Rows
from stages.features.schema import APART, Array
from stages.training.data.source import Source

SEED = 0
# Of all rows together, 64 MB in float32: of images of 3 x 224 x 224 it is 111 rows.
MAX_NUMBERS = 2**24


def draw_rows(num_rows: int, num_numbers: int, most: int) -> Rows:
    """The numbers of at most `most` rows, in order, so that a memory map is read forwards.

    `num_numbers` is what one row has; all together have no more than `MAX_NUMBERS`, or are two.
    """
    most = min(most, num_rows, max(2, MAX_NUMBERS // max(1, num_numbers)))
    return np.sort(np.random.default_rng(SEED).permutation(num_rows)[:most])


def draw_split(arrays: Mapping[str, Array], most: int) -> tuple[Array, Rows]:
    """The features of some rows of a split, all kinds beside each other (rows, numbers).

    And the numbers of these rows.
    """
    kinds = [array for kind, array in arrays.items() if kind not in APART]
    num_numbers = sum(int(np.prod(array.shape[1:])) for array in kinds)
    rows = draw_rows(len(arrays["target"]), num_numbers, most)
    parts = [np.asarray(array[rows], np.float32).reshape(len(rows), -1) for array in kinds]
    return np.concatenate(parts, axis=1), rows


def draw_source(source: Source, most: int) -> Rows:
    """The numbers of some rows of a training's source, in order."""
    return draw_rows(len(source), count_numbers(source), most)


def draw_by_class(source: Source, most: int) -> Rows:
    """The numbers of at most `most` rows of a training's source, of as many classes as there are.

    One of each class is drawn, then another one of each, and so on, the first ones first. Values
    are of no class.
    """
    target = source.target.cpu().numpy()
    order = np.random.default_rng(SEED).permutation(len(target))
    if target.dtype.kind != "f":
        turns = np.empty(len(order), np.int64)
        by_class = np.argsort(target[order], kind="stable")
        _, sizes = np.unique(target, return_counts=True)
        turns[by_class] = np.concatenate([np.arange(size) for size in sizes])
        order = order[np.argsort(turns, kind="stable")]
    return order[: min(most, max(2, MAX_NUMBERS // max(1, count_numbers(source))))]


def count_numbers(source: Source) -> int:
    """The numbers that one row of a training's source has."""
    batch, _ = source.take(slice(0, 1))
    return sum(values.numel() for values in batch.values())
