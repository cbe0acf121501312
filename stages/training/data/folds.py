"""Folds: train and validation rows together, of which each training keeps others to validate on.

Together the trainings learn from all of these rows, and each row is predicted by the one that has
not seen it (Stone, 1974). Test rows are in no fold.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from stages.common.errors import Problem, UserError
from stages.features.numbers import Rows
from stages.features.schema import Array
from stages.tensors.batch import take
from stages.training.data.source import TensorSource

KEY = "train.folds"


@dataclass(frozen=True)
class Fold:
    """The fold `number` of `count`, which is validated on; `seed` says which rows are in which."""

    number: int
    count: int
    seed: int


def join_splits(splits: Sequence[TensorSource], weight: Array | None) -> TensorSource:
    """The rows of all splits, one behind the other; `weight` (rows,) as the source has them."""
    batch = {kind: torch.cat([split.batch[kind] for split in splits]) for kind in splits[0].batch}
    target = torch.cat([split.target for split in splits])
    keys = [split.keys for split in splits if split.keys is not None]
    weights = None if weight is None else torch.from_numpy(np.array(weight)).to(target.device)
    return TensorSource(batch, target, np.concatenate(keys) if keys else None, weights)


def divide(
    rows: TensorSource, groups: Array | None, fold: Fold
) -> tuple[TensorSource, TensorSource]:
    """The rows outside the fold, to learn from, and those in it, to validate on.

    Raises UserError where a fold would be empty.
    """
    strata = None if rows.target.is_floating_point() else rows.target.cpu().numpy()
    of_row = assign_folds(len(rows), strata, groups, fold)
    in_fold = of_row == fold.number
    return take_rows(rows, np.flatnonzero(~in_fold)), take_rows(rows, np.flatnonzero(in_fold))


def assign_folds(num_rows: int, strata: Array | None, groups: Array | None, fold: Fold) -> Rows:
    """The number of each row's fold, (rows,).

    Each class of `strata` (rows,) is dealt out in turn, in an order drawn from the seed; rows of
    equal `groups` (rows,) go together, the largest groups first, each to the smallest fold so far.
    Raises UserError where a fold would be empty.
    """
    random = np.random.default_rng([fold.seed, 2])
    order = random.permutation(num_rows)
    found = np.empty(num_rows, np.int64)
    if groups is None:
        if strata is not None:
            order = order[np.argsort(strata[order], kind="stable")]
        found[order] = np.arange(num_rows) % fold.count
        num_units = num_rows
    else:
        names, of_row, sizes = np.unique(groups, return_inverse=True, return_counts=True)
        num_units, filled = len(names), np.zeros(fold.count, np.int64)
        of_group = np.empty(num_units, np.int64)
        drawn = random.permutation(num_units)
        for group in drawn[np.argsort(-sizes[drawn], kind="stable")]:
            of_group[group] = filled.argmin()
            filled[of_group[group]] += sizes[group]
        found = of_group[of_row]
    if num_units < fold.count:
        what = "rows" if groups is None else "groups of rows"
        message = f"{num_units} {what} to train and validate on are too few for {fold.count} folds"
        raise UserError(Problem(message, KEY, str(fold.count), ("null",)))
    return found


def take_rows(rows: TensorSource, chosen: Rows) -> TensorSource:
    """Some rows, whose weights have a mean of 1."""
    numbers = torch.from_numpy(chosen).to(rows.target.device)
    weight = None if rows.weight is None else rows.weight[numbers].double()
    return TensorSource(
        take(rows.batch, numbers),
        rows.target[numbers],
        None if rows.keys is None else rows.keys[chosen],
        None if weight is None else (weight / weight.mean()).float(),
    )


def find_groups(splits: Sequence[Mapping[str, Array]]) -> Array | None:
    """The groups of the rows of all splits, (rows,); None: each row stands for itself."""
    found = [np.array(split["group"]) for split in splits if "group" in split]
    return np.concatenate(found) if found else None
