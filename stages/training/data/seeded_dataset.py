"""A row that a dataset of one's own makes, and a batch of them: seeded, and looked at.

This runs in the workers of `dataloader.py`, or between the steps where there are none.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, default_collate

from stages.common.errors import Problem, UserError
from stages.common.user_code import problem_of, to_user_error
from stages.features.schema import Array
from stages.tensors.batch import Batch
from stages.training.data.zoo_datasets import AT, Collate
from stages.training.device.rng import seed_all

Row = tuple[Batch, Tensor]


@dataclass(frozen=True)
class Failure:
    """An error of a row or a batch: it comes back from a worker in the batch's place."""

    problem: Problem


@dataclass(frozen=True)
class Seeded(Dataset[Row | Failure]):
    """A dataset of one's own whose generators are seeded before each row, and its row looked at.

    `expected` is a row as it is without a dataset; None: the batches are looked at in its place.
    """

    inner: Dataset[Any]
    keys: Array
    expected: Row | None

    def __getitem__(self, item: tuple[int, int]) -> Row | Failure:
        """The row of (seed of the epoch, number of the row)."""
        seed, row = item
        seed_all(seed, row)
        try:
            made = self.inner[row]
            return made if self.expected is None else check(as_tensors(made), self.expected, ())
        except Exception as error:  # a worker's would be told as a traceback
            getter = type(self.inner).__getitem__
            return Failure(problem_at(error, f"the row '{self.keys[row]}'", getter))


@dataclass(frozen=True)
class Collated:
    """Makes a batch of rows; a failure of one of them, or of this, in its place."""

    inner: Collate
    expected: Row

    def __call__(self, rows: list[Any]) -> Row | Failure:
        """The features by kind, and the target (rows,)."""
        for row in rows:
            if isinstance(row, Failure):
                return row
        try:
            batch = self.inner(rows)
            if self.inner is default_collate:
                return batch[0], batch[1]
            return check(as_tensors(batch), self.expected, (len(rows),))
        except Exception as error:
            return Failure(problem_at(error, "collate_fn", self.inner))


def as_tensors(made: Any) -> Row:
    """The output of a dataset as (features by kind, target).

    Raises UserError when it is no such.
    """
    if not (isinstance(made, tuple | list) and len(made) == 2 and hasattr(made[0], "items")):
        raise UserError(f"it is {type(made).__name__}: expected (features by kind, target)")
    features, target = made
    return {kind: _as_tensor(value) for kind, value in features.items()}, _as_tensor(target)


def _as_tensor(value: Any) -> Tensor:
    if isinstance(value, float):
        return torch.tensor(value, dtype=torch.float32)
    # A copy: rows of a memory map must not be written to.
    return torch.as_tensor(np.array(value) if isinstance(value, np.ndarray) else value)


def check(made: Row, expected: Row, lead: tuple[int, ...]) -> Row:
    """`made`, if it has the kinds, shapes after `lead` and types of the row `expected`.

    Raises UserError that says what is expected.
    """
    tensors = dict(made[0]) | {"target": made[1]}
    expected_tensors = dict(expected[0]) | {"target": expected[1]}
    if tensors.keys() != expected_tensors.keys():
        kinds = [", ".join(sorted(features)) or "nothing" for features in (made[0], expected[0])]
        raise UserError(f"its features are {kinds[0]}: expected {kinds[1]}")
    for kind, tensor in tensors.items():
        is_, must = _form(tensor), _form(expected_tensors[kind], lead)
        if is_ != must:
            raise UserError(f"'{kind}' is {is_}: expected {must}")
    return made


def _form(tensor: Tensor, lead: tuple[int, ...] = ()) -> str:
    shape = ", ".join(map(str, (*lead, *tensor.shape)))
    return f"({shape}) {str(tensor.dtype).removeprefix('torch.')}"


def problem_at(error: Exception, what: str, function: object) -> Problem:
    """The mistake that `function`, of one's own, has met or made, at its line."""
    if isinstance(error, UserError):
        message = f"{what}: {error}"
    elif mistake := to_user_error(error, what, function):
        return mistake.problems[0]
    else:
        message = f"{what}: {type(error).__name__}: {error}"
    return problem_of(message, function, Problem(message, AT)).problems[0]
