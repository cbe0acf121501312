"""Rows that advice is measured on: those of train and validation, divided anew. No test row.

Each repeat divides them into folds, by a seed of its own, and each training of it is judged on one
fold. Rows that follow one another in time have no folds: all trainings learn from the train rows,
and are judged on the validation rows.
"""

import math
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch

from stages.common.errors import UserError
from stages.features.numbers import Rows, moments_of, spread_of
from stages.features.schema import (
    APART,
    Array,
    Moments,
    Schema,
    Statistics,
    TargetTransform,
    load_arrays,
    read_statistics,
)
from stages.features.target_scale import to_scale, to_units, transform
from stages.tensors.batch import size_on_device
from stages.training.data.folds import (
    Fold,
    assign_folds,
    find_groups,
    join_splits,
    take_rows,
)
from stages.training.data.source import Source, TensorSource
from stages.training.device.environment import memory_of
from stages.training.recipe import PREPARED, load_data, seed_of
from stages.training.state import Data

NUM_FOLDS = 4
# Groups of rows that are left out one by one.
NUM_LEFT_OUT = 25
# More rows than these are not looked at: they no longer fit into the time that people wait. Nor
# are those that would take more than this part of the memory, of which trainings hold copies.
MAX_ROWS, SHARE_OF_MEMORY = 200_000, 0.1


@dataclass(frozen=True, eq=False)
class Change:
    """A change of the rows to learn from, or of what is seen of them.

    `dropped` are not learned from, by their numbers in the pool; `share` is the part of the others
    that is; `column` is empty everywhere; `target` is another `prepare.target_transform`.
    """

    dropped: Rows | None = None
    share: float = 1.0
    column: str | None = None
    target: Literal["log1p", "null"] | None = None


@dataclass(frozen=True)
class Split:
    """The rows to learn from and to be judged on, by their numbers."""

    learned: Rows
    validated: Rows


@dataclass(frozen=True)
class Pool:
    """All rows, with what a training has to know of them.

    `data` has the facts of the target; `rows` are those of train, then of validation, with their
    weights as in the source; `num_train` of them are of train. `step`: one of so many rows is here.
    """

    schema: Schema
    data: Data
    rows: TensorSource
    groups: Array | None
    num_train: int
    seed: int
    step: int = 1

    def __len__(self) -> int:
        return len(self.rows)

    def target(self, rows: Rows) -> Array:
        """Class codes, or values in the target's units (rows,)."""
        target = self.rows.target[torch.from_numpy(rows)].cpu().numpy()
        if self.schema.target.classes is not None:
            return np.asarray(target)
        return to_units(target, self.data.scale)

    def weights(self, rows: Rows) -> npt.NDArray[np.float64] | None:
        """The weights of rows (rows,); None where all count the same."""
        weight = self.rows.weight
        return None if weight is None else weight[rows].double().cpu().numpy()

    def count_rarest(self) -> int:
        """The rows of the rarest class; all rows where values are predicted."""
        classes = self.schema.target.classes
        if classes is None:
            return len(self)
        return int(torch.bincount(self.rows.target, minlength=len(classes)).min())

    def splits(self, repeat: int, share: float) -> list[Split]:
        """The splits of a repeat, of a share of all rows."""
        if self.schema.ordered:
            learned = self.part(np.arange(self.num_train), share)
            # As often as there would be folds: trainings that differ in the seed.
            return [Split(learned, np.arange(self.num_train, len(self)))] * NUM_FOLDS
        rows = self.part(np.arange(len(self)), share)
        if self.groups is not None and len(np.unique(self.groups[rows])) < NUM_FOLDS:
            message = f"advice is measured on {NUM_FOLDS} folds, which hold whole groups of rows"
            raise UserError(f"{message}; there are fewer groups in train and validation")
        fold = Fold(0, NUM_FOLDS, seed_of(self.seed, repeat))
        of_row = assign_folds(len(rows), self._strata(rows), self._groups(rows), fold)
        return [
            Split(rows[of_row != number], rows[of_row == number]) for number in range(NUM_FOLDS)
        ]

    def groups_to_leave_out(self) -> Rows:
        """The number of each row's group (rows,), of those that are left out one by one.

        Rows that belong together are in one group, and those of one time.
        """
        every = np.arange(len(self))
        if self.schema.ordered:
            # Only those of validation are judged.
            return np.maximum(0, every - self.num_train) * NUM_LEFT_OUT // self.num_validated
        groups = self._groups(every)
        num_units = len(self) if groups is None else len(np.unique(groups))
        fold = Fold(0, min(NUM_LEFT_OUT, num_units), self.seed)
        return assign_folds(len(self), self._strata(every), groups, fold)

    @property
    def num_validated(self) -> int:
        """The rows of validation."""
        return len(self) - self.num_train

    def divide(self, split: Split, change: Change) -> Data:
        """The rows that a training learns from and is judged on, with a change made."""
        learned = split.learned
        if change.dropped is not None:
            learned = np.setdiff1d(learned, change.dropped)
        learned = self.part(learned, change.share)
        parts = [self._take(rows, change) for rows in (learned, split.validated)]
        data = replace(self.data, train=parts[0], validation=parts[1])
        if change.target is None:
            return data
        scale = self.scale_of(change)
        return replace(data, mean=scale.mean, deviation=scale.deviation, transform=scale.transform)

    def scale_of(self, change: Change) -> Moments:
        """The scale of the target, as prepare would make it with the change."""
        if change.target is None:
            return self.data.scale
        name: TargetTransform | None = None if change.target == "null" else change.target
        values = self.target(np.arange(self.num_train)).astype(np.float64)
        moments = moments_of(spread_of(transform(values, name)), np.float64)
        return moments.model_copy(update={"transform": name})

    def part(self, rows: Rows, share: float) -> Rows:
        """A share of `rows`, with as much of each class, or of whole groups.

        A larger share holds the smaller ones.
        """
        if share >= 1:
            return rows
        random = np.random.default_rng([self.seed, 5])
        if self.groups is not None:
            names, of_row = np.unique(self.groups[rows], return_inverse=True)
            places = np.random.default_rng([self.seed, 5]).permutation(len(names))
            counts = np.bincount(of_row)[np.argsort(places)]
            num_groups = max(1, int(np.searchsorted(np.cumsum(counts), share * len(rows), "right")))
            return rows[places[of_row] < num_groups]
        order = random.permutation(len(self))
        strata = self._strata(rows)
        classes = np.zeros(len(rows), np.int64) if strata is None else strata.astype(np.int64)
        kept = np.zeros(len(rows), bool)
        for each in np.unique(classes):
            own = np.flatnonzero(classes == each)
            ranked = own[np.argsort(order[rows[own]], kind="stable")]
            kept[ranked[: max(1, round(share * len(own)))]] = True
        return rows[kept]

    def _strata(self, rows: Rows) -> Array | None:
        target = self.rows.target
        return None if target.is_floating_point() else np.asarray(target.cpu().numpy()[rows])

    def _groups(self, rows: Rows) -> Array | None:
        return None if self.groups is None else np.asarray(self.groups[rows])

    def _take(self, rows: Rows, change: Change) -> TensorSource:
        source, column = take_rows(self.rows, rows), change.column
        if change.target is not None:
            target = to_scale(self.target(rows).astype(np.float64), self.scale_of(change))
            learned = torch.from_numpy(target.astype(np.float32)).to(source.target.device)
            source = replace(source, target=learned)
        if column is None:
            return source
        kind = next(f.kind for f in self.schema.features if f.name == column)
        values = source.batch[kind].clone()
        values[:, self.schema.places()[column].all] = 0
        return replace(source, batch={**source.batch, kind: values})


def constant_scores(pool: Pool, split: Split) -> npt.NDArray[np.float64]:
    """Scores (rows, outputs) of a prediction that is the same for all rows, as learned."""
    target, num_rows = pool.target(split.learned), len(split.validated)
    if pool.schema.target.classes is None:
        mean = np.array(target.astype(np.float64).mean())
        return np.full((num_rows, 1), to_scale(mean, pool.data.scale))
    counts = np.bincount(target.astype(np.int64), minlength=pool.schema.num_outputs())
    shares = np.maximum(counts / counts.sum(), 1e-6)
    return np.tile(np.log(shares), (num_rows, 1))


def read_pool(schema: Schema, seed: int, device: torch.device) -> Pool:
    """The rows of train and validation; of very many, those that stand evenly among them."""
    statistics: Statistics = read_statistics(PREPARED)
    arrays = [load_arrays(PREPARED / name) for name in ("train", "validation")]
    num_rows = sum(len(split["target"]) for split in arrays)
    num_bytes = sum(
        size_on_device({k: v for k, v in split.items() if k not in APART}) for split in arrays
    )
    room = SHARE_OF_MEMORY * memory_of(device)
    step = max(-(-num_rows // MAX_ROWS), math.ceil(num_bytes / room))
    data, _ = load_data(schema, statistics, device)
    splits = [_thin(source, step) for source in (data.train, data.validation)]
    weights = [np.array(split["weight"][::step]) for split in arrays if "weight" in split]
    thin = [{"group": split["group"][::step]} for split in arrays if "group" in split]
    rows = join_splits(splits, np.concatenate(weights) if weights else None)
    # The facts alone: the rows are held once.
    facts = replace(data, train=rows, validation=rows)
    return Pool(schema, facts, rows, find_groups(thin), len(splits[0]), seed, step)


def _thin(source: Source, step: int) -> TensorSource:
    if isinstance(source, TensorSource) and step == 1:
        return source
    rows = torch.arange(0, len(source), step)
    keys = None if source.keys is None else source.keys[::step]
    return TensorSource(*source.take(rows), keys, None)
