"""Trainings, and a journal of them: a run that was killed goes on with what it has measured."""

import hashlib
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from stages.common.errors import UserError, shorten
from stages.model.model import ModelSpec
from stages.train.calibrate import score
from stages.training.device.device import choose_device
from stages.training.device.distributed import World
from stages.training.device.environment import memory_of, num_threads
from stages.training.loop import train
from stages.training.packed.loop import train_pack
from stages.training.packed.pack import Member, Pack
from stages.training.params import TrainParams
from stages.training.recipe import load_weights
from stages.training.state import Data, Result
from stages.training.step.divergence import DivergedError
from stages.tune.training.groups import divide

Scores = npt.NDArray[np.float32]
# Trainings that are prepared at once, of small rows: what they hold is in memory until they end.
AT_ONCE = 16
SHARE_OF_MEMORY = 0.3


Found = TypeVar("Found")


@dataclass(frozen=True)
class Job:
    """A training that is to be done. `name` is its name in the journal.

    `may_fail`: an error ends this one alone.
    """

    name: str
    recipe: TrainParams
    spec: ModelSpec
    data: Callable[[], Data]
    seed: int
    may_fail: bool = False


@dataclass(frozen=True)
class Outcome:
    """The end of a training: its scores (rows, outputs), None where it diverged, and its seconds.

    `train_loss` and `validation_loss` are those of the epoch that is kept, None where it diverged.
    `failure`: it could not be trained, for this reason.
    """

    scores: Scores | None
    seconds: float
    train_loss: float | None = None
    validation_loss: float | None = None
    failure: str = ""


class Journal:
    """The outcomes by name, in a folder: a line of JSON for each, and its scores beside it."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._file = folder, folder / "runs.jsonl"
        folder.mkdir(parents=True, exist_ok=True)
        _mend(self._file)
        self.outcomes: dict[str, Outcome] = {}
        self.facts: dict[str, Any] = {}
        self.seconds = 0.0
        for line in _read_lines(self._file):
            self._take(line)

    def add(self, name: str, outcome: Outcome) -> None:
        """Note an outcome; it is on the disk when this returns."""
        line = {
            "name": name,
            "seconds": outcome.seconds,
            "losses": [outcome.train_loss, outcome.validation_loss],
            "diverged": outcome.scores is None,
            "failure": outcome.failure,
        }
        if outcome.scores is not None:
            np.save(self._path(name), outcome.scores, allow_pickle=False)
        self._append(line)

    def state(self, fact: str, value: Any, seconds: float) -> None:
        """Note what was found out beside a training, as a value of JSON."""
        self._append({"fact": fact, "value": value, "seconds": seconds})

    def _append(self, line: Mapping[str, Any]) -> None:
        with self._file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
            file.flush()
            os.fsync(file.fileno())
        self._take(line)

    def _take(self, line: Mapping[str, Any]) -> None:
        if "fact" in line:
            self.facts[line["fact"]] = line["value"]
            self.seconds += line["seconds"]
            return
        scores, path = None, self._path(line["name"])
        if not line["diverged"]:
            if not path.exists():
                return
            scores = np.load(path)
        failure = line["failure"]
        train_loss, validation_loss = line["losses"]
        outcome = Outcome(scores, line["seconds"], train_loss, validation_loss, failure)
        self.outcomes[line["name"]] = outcome
        self.seconds += line["seconds"]

    def _path(self, name: str) -> Path:
        return self._folder / f"{hashlib.sha256(name.encode()).hexdigest()[:24]}.npy"


def _mend(path: Path) -> None:
    """Take away the beginning of a line that a kill has cut short."""
    if path.exists() and not (content := path.read_bytes()).endswith(b"\n"):
        path.write_bytes(content[: content.rfind(b"\n") + 1])


def _read_lines(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def train_all(
    jobs: Sequence[Job],
    journal: Journal,
    num_bytes: int,
    at_once: int,
    may_go_on: Callable[[], bool] = lambda: True,
) -> None:
    """Train what the journal doesn't hold yet, as packs where that pays.

    At most `at_once` are prepared together. `num_bytes` are those of the rows of a training, of
    which each holds a copy. It ends between two groups of trainings when `may_go_on` says so.
    """
    room = SHARE_OF_MEMORY * memory_of(choose_device())
    at_once = max(1, min(at_once, int(room / max(1, num_bytes))))
    left = [job for job in jobs if job.name not in journal.outcomes]
    for first in range(0, len(left), at_once):
        if not may_go_on():
            return
        _train_some(left[first : first + at_once], journal, may_go_on)


def _train_some(jobs: Sequence[Job], journal: Journal, may_go_on: Callable[[], bool]) -> None:
    began = time.monotonic()
    prepared = [(job, _or_failure(job, partial(_prepare, job))) for job in jobs]
    for job, found in prepared:
        if isinstance(found, Outcome):
            journal.add(job.name, found)
    ready = [(job, found) for job, found in prepared if isinstance(found, Member)]
    parts, _ = divide([member for _, member in ready])
    # What it takes to prepare them is shared by all.
    extra = (time.monotonic() - began) / max(1, len(ready))
    for part in parts:
        if not may_go_on():
            return
        began = time.monotonic()
        own = [ready[place][0] for place in part.places]
        outcomes = None if part.pack is None else _train_together(part.pack)
        if outcomes is None:
            # One by one too where a pack has failed: not all of them need to.
            outcomes = [_or_failure(job, partial(_train_alone, job)) for job in own]
        seconds = (time.monotonic() - began) / len(own) + extra
        for job, outcome in zip(own, outcomes, strict=True):
            journal.add(job.name, replace(outcome, seconds=seconds))


def _or_failure(job: Job, work: Callable[[], Found]) -> Found | Outcome:
    """The result of `work`, or why this training can't be done; of the recipe itself, the error."""
    try:
        return work()
    except (UserError, RuntimeError, MemoryError) as error:
        if not job.may_fail:
            raise
        return Outcome(None, 0.0, failure=shorten(str(error).strip().split("\n")[0]))


def train_model(job: Job) -> nn.Module:
    """The model of one training, with the weights that are kept; it is noted nowhere.

    Raises DivergedError when the loss is not finite any more.
    """
    member = _prepare(job)
    _choose_threads([member])
    parts = member.model, member.data, member.params, member.seed, World()
    result = train(*parts, lambda *_: None)
    member.model.load_state_dict(result.weights)
    return member.model


def _prepare(job: Job) -> Member:
    # Number 1: weights of their own, drawn from the seed; those of build are one draw.
    model = load_weights(job.spec, job.seed, 1).to(choose_device())
    return Member(model, job.data(), job.recipe, job.seed)


def _train_alone(job: Job) -> Outcome:
    member = _prepare(job)
    _choose_threads([member])
    parts = member.model, member.data, member.params, member.seed, World()
    try:
        result = train(*parts, lambda *_: None)
    except DivergedError:
        return Outcome(None, 0.0)
    return _end(member, result)


def _train_together(pack: Pack) -> list[Outcome] | None:
    """Train a pack; None where it fails as a whole."""
    _choose_threads(pack.members)
    diverged: set[int] = set()
    try:
        results = train_pack(pack, lambda *_: None, lambda number, _: diverged.add(number))
    except (UserError, RuntimeError, MemoryError):
        return None
    return [
        Outcome(None, 0.0) if number in diverged else _end(member, result)
        for number, (member, result) in enumerate(zip(pack.members, results, strict=True))
    ]


def _end(member: Member, result: Result) -> Outcome:
    assert result.best_epoch is not None
    member.model.load_state_dict(result.weights)
    scores, _ = score(member.model, member.data.validation)
    best = result.best_epoch
    return Outcome(scores.astype(np.float32), 0.0, best.train_loss, best.validation_loss)


def _choose_threads(members: Sequence[Member]) -> None:
    num_weights = sum(weight.numel() for weight in members[0].model.parameters())
    size = members[0].params.batch_size
    torch.set_num_threads(num_threads(num_weights * len(members), size, World())[0])
