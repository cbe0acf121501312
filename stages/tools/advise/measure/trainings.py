"""Trainings, and a journal of them: a run that was killed goes on with what it has measured."""

import hashlib
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from stages.model.model import ModelSpec
from stages.train.calibrate import score
from stages.training.device.device import choose_device
from stages.training.device.distributed import World
from stages.training.device.environment import num_threads
from stages.training.loop import train
from stages.training.packed.loop import train_pack
from stages.training.packed.pack import Member, Pack
from stages.training.params import TrainParams
from stages.training.recipe import load_weights
from stages.training.state import Data, Result
from stages.training.step.divergence import DivergedError
from stages.tune.training.groups import divide

Floats = npt.NDArray[np.float64]
# Trainings that are prepared at once: what they hold is in memory until they have ended.
AT_ONCE = 16


@dataclass(frozen=True)
class Job:
    """A training that is to be done. `name` is its name in the journal."""

    name: str
    recipe: TrainParams
    spec: ModelSpec
    data: Callable[[], Data]
    seed: int


@dataclass(frozen=True)
class Outcome:
    """The end of a training: its scores (rows, outputs), None where it diverged, and its seconds.

    `train_loss` and `validation_loss` are those of the epoch that is kept.
    """

    scores: Floats | None
    seconds: float
    train_loss: float
    validation_loss: float


class Journal:
    """The outcomes by name, in a folder: a line of JSON for each, and its scores beside it."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._file = folder, folder / "runs.jsonl"
        folder.mkdir(parents=True, exist_ok=True)
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
        }
        if outcome.scores is not None:
            np.save(self._path(name), outcome.scores.astype(np.float32), allow_pickle=False)
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
            scores = np.load(path).astype(np.float64)
        self.outcomes[line["name"]] = Outcome(scores, line["seconds"], *line["losses"])
        self.seconds += line["seconds"]

    def _path(self, name: str) -> Path:
        return self._folder / f"{hashlib.sha256(name.encode()).hexdigest()[:24]}.npy"


def _read_lines(path: Path) -> list[dict[str, Any]]:
    """The lines up to one that a kill has cut short."""
    if not path.exists():
        return []
    lines = path.read_bytes().splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith(b"\n")]


def train_all(
    jobs: Sequence[Job], journal: Journal, may_go_on: Callable[[], bool] = lambda: True
) -> None:
    """Train what the journal doesn't hold yet, as packs where that pays.

    It ends between two groups of trainings when `may_go_on` says so.
    """
    left = [job for job in jobs if job.name not in journal.outcomes]
    for first in range(0, len(left), AT_ONCE):
        part = left[first : first + AT_ONCE]
        if not may_go_on():
            return
        began = time.monotonic()
        members = [_prepare(job) for job in part]
        groups, _ = divide(members)
        # What it takes to prepare them is shared by all.
        extra = (time.monotonic() - began) / len(part)
        for places, pack in groups:
            if not may_go_on():
                return
            began = time.monotonic()
            if pack is None:
                outcomes = [_train_alone(_prepare(part[places[0]]))]
            else:
                outcomes = _train_together(pack)
            seconds = (time.monotonic() - began) / len(places) + extra
            for place, (scores, *losses) in zip(places, outcomes, strict=True):
                journal.add(part[place].name, Outcome(scores, seconds, *losses))


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


Ended = tuple[Floats | None, float, float]


def _train_alone(member: Member) -> Ended:
    _choose_threads([member])
    try:
        result = train(
            member.model, member.data, member.params, member.seed, World(), lambda *_: None
        )
    except DivergedError:
        return None, float("nan"), float("nan")
    return _end(member, result)


def _train_together(pack: Pack) -> list[Ended]:
    _choose_threads(pack.members)
    diverged: set[int] = set()
    results = train_pack(pack, lambda *_: None, lambda number, _: diverged.add(number))
    return [
        (None, float("nan"), float("nan")) if number in diverged else _end(member, result)
        for number, (member, result) in enumerate(zip(pack.members, results, strict=True))
    ]


def _end(member: Member, result: Result) -> Ended:
    assert result.best_epoch is not None
    member.model.load_state_dict(result.weights)
    scores, _ = score(member.model, member.data.validation)
    best = result.best_epoch
    return scores, best.train_loss, best.validation_loss


def _choose_threads(members: Sequence[Member]) -> None:
    num_weights = sum(weight.numel() for weight in members[0].model.parameters())
    size = members[0].params.batch_size
    torch.set_num_threads(num_threads(num_weights * len(members), size, World())[0])
