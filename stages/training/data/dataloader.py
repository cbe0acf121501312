"""Rows that a dataset of one's own makes (`train.dataset`), through torch's DataLoader.

The steps are those of the loop. Whatever a dataset draws for a row, from the global generators of
Python, NumPy or torch, follows from the seed of the epoch and the row's number: they are seeded
before each row. So neither the workers nor the processes nor the steps before change a bit.
"""

import os
import random
import signal
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from types import FrameType

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, default_collate

from stages.common.config import ClassSpec
from stages.common.errors import Problem, UserError
from stages.features.schema import Array
from stages.tensors.batch import to_weight
from stages.tensors.rows import Rows
from stages.training.data.seeded_dataset import Collated, Failure, Row, Seeded
from stages.training.data.zoo_datasets import AT, check_dataset, make_dataset
from stages.training.device.copied_process import end_with_parent, hold_signals, let_signals_in

# The rows that are looked at (validation, a sample) are the same in each epoch.
SEED_OF_TAKE = 0
# Rows that a worker makes at once of those.
PIECE = 64
# As long as a training may take to end when it is told to.
LINGER_SECONDS = 25.0


@dataclass(frozen=True)
class Steps:
    """The rows of each step, with the seed of the epoch: what a worker is asked for."""

    steps: list[Tensor]
    seed: int

    def __len__(self) -> int:
        return len(self.steps)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for rows in self.steps:
            yield [(self.seed, row) for row in rows.tolist()]


@dataclass(frozen=True)
class Loaded:
    """A split whose rows a dataset makes, by itself or in workers.

    `target` and `weight` are as prepared.
    """

    dataset: Seeded
    collate: Collated
    target: Tensor
    num_workers: int
    weight: Tensor | None = None

    @property
    def keys(self) -> Array:
        """Names of the rows (rows,)."""
        return self.dataset.keys

    def __len__(self) -> int:
        return len(self.target)

    def take(self, rows: Tensor | slice) -> Row:
        """Some rows, with one seed for all epochs."""
        numbers = torch.arange(len(self))[rows] if isinstance(rows, slice) else rows
        steps = list(torch.split(numbers, PIECE))
        # To start a worker takes longer than to make a few rows.
        workers = self.num_workers if len(steps) > 1 else 0
        parts = list(self._load(steps, SEED_OF_TAKE, workers))
        batch = {kind: torch.cat([features[kind] for features, _ in parts]) for kind in parts[0][0]}
        return batch, torch.cat([target for _, target in parts])

    def feed(self, steps: Iterable[Tensor], seed: int) -> Iterator[Row]:
        """The rows of each step; workers make those of the next ones."""
        return self._load(list(steps), seed, self.num_workers)

    def _load(self, steps: list[Tensor], seed: int, num_workers: int) -> Iterator[Row]:
        device = self.target.device
        loader = DataLoader(
            self.dataset,
            batch_sampler=Steps(steps, seed),
            num_workers=min(num_workers, len(steps)),
            collate_fn=self.collate,
            pin_memory=device.type == "cuda",
            worker_init_fn=begin_worker,
            # It draws a seed, which must not come from the training's generator.
            generator=torch.Generator(),
        )
        with as_workers_begin():
            made = iter(loader)
        try:
            for _ in steps:
                with nullcontext() if num_workers else as_in_a_worker():
                    batch = next_of(made)
                if isinstance(batch, Failure):
                    raise UserError(batch.problem)
                features, target = batch
                yield (
                    {k: t.to(device, non_blocking=True) for k, t in features.items()},
                    target.to(device, non_blocking=True),
                )
        finally:
            # With the last that holds it its workers end.
            del made


def load_split(named: ClassSpec, rows: Rows, device: torch.device, *, train: bool) -> Loaded:
    """The split `rows` as a dataset makes it. Raises UserError where it can't."""
    inner, collate = make_dataset(named, rows, train=train)
    num_workers: int = check_dataset(named).model_dump()["num_workers"]
    expected = rows.take(0)
    by_row = expected if collate is default_collate else None
    target = torch.from_numpy(np.array(rows.target)).to(device)
    seeded = Seeded(inner, rows.keys, by_row)
    weight = to_weight(rows.weight, device)
    return Loaded(seeded, Collated(collate, expected), target, num_workers, weight)


@contextmanager
def as_in_a_worker() -> Iterator[None]:
    """One thread, and the global generators are afterwards where they were."""
    threads, python, generator = torch.get_num_threads(), random.getstate(), torch.get_rng_state()
    numpy = np.random.get_state()  # noqa: NPY002
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002
        torch.set_rng_state(generator)


def next_of(made: Iterator[Row | Failure]) -> Row | Failure:
    """The next batch. Raises UserError when a worker has died."""
    try:
        return next(made)
    except (RuntimeError, OSError, EOFError) as error:
        text = str(error).split("\n")[0] or type(error).__name__
        if isinstance(error, RuntimeError) and not text.startswith("DataLoader worker"):
            raise
        # Where it dies while it hands a batch over, it is the connection that tells.
        message = f"a worker has died ({text}); fewer take less memory, and 0 tell where it was"
        raise UserError(Problem(message, f"{AT}.num_workers")) from None


@contextmanager
def as_workers_begin() -> Iterator[None]:
    """Signals to the group are held back until a worker knows what to do about them.

    The loader would raise wherever the training is when a worker dies; the next batch tells too.
    """
    at_a_death = signal.getsignal(signal.SIGCHLD)
    with hold_signals():
        try:
            yield
        finally:
            signal.signal(signal.SIGCHLD, at_a_death)


def begin_worker(_: int) -> None:
    """Leave it to the training to end a worker: told to stop, it has a step to finish.

    Ctrl-C and SIGTERM often come to all processes of a group. A training that is killed takes its
    workers along: they are copies of it, which hold the lock of its checkpoints and the pipes to
    its loggers as it did, and would look after it every few seconds only.
    """
    end_with_parent()
    received: list[int] = []

    def linger(number: int, _frame: FrameType | None) -> None:
        if received:
            os._exit(128 + number)
        received.append(number)
        signal.setitimer(signal.ITIMER_REAL, LINGER_SECONDS)

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, linger)
    let_signals_in()
