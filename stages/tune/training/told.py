"""Trials that other processes train: how each has gone, as JSON, and told as if it were here."""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from stages.common.config import Overrides
from stages.common.errors import UserError
from stages.common.params import to_plain
from stages.features.schema import Array
from stages.training.packed.pack import Pack
from stages.tune.journal import to_trial
from stages.tune.params import TuneParams
from stages.tune.pruners import find_ended, make_pruner
from stages.tune.training.batch import Trainer, train_parts
from stages.tune.training.groups import Part, find_size, pack_members
from stages.tune.trials import OnEpochEnd, Trial, TrialResult

# How a trial has gone: its overrides, its values by epoch, its end, its best value, its scores.
Told = Mapping[str, Any]


class CannotPackError(Exception):
    """This machine can't train some trials as the pack that another one has made of them. Final."""


@dataclass(frozen=True)
class Batch:
    """Trials to train, of which the first has the number `first`; `before` are all earlier ones.

    `parts` are the places of those that train together, `name` is that of the whole content.
    """

    name: str
    first: int
    tried: list[Overrides]
    before: list[Trial]
    parts: list[list[int]]


def read_batch(name: str, content: Mapping[str, Any]) -> Batch:
    """A batch from its JSON."""
    before = [to_trial(each) for each in content["before"]]
    return Batch(name, content["first"], content["tried"], before, content["parts"])


def train_part(
    trainer: Trainer, section: TuneParams, batch: Batch, places: Sequence[int]
) -> dict[str, Told]:
    """Train a part; return how each of its trials has gone, by its place in the batch.

    Raises CannotPackError where several can't be trained together here.
    """
    pack: Pack | None = None
    size = 0
    # One alone is prepared where it is trained, and nobody asks for its size.
    if len(places) > 1:
        # Anew each time: a pack that has been trained is at its end.
        members = [trainer.prepare(batch.tried[place]) for place in places]
        pack, reason = pack_members(members)
        if pack is None:
            raise CannotPackError(reason)
        size = find_size(members)
    part = Part(list(places), pack, size)
    sign = 1 if trainer.direction == "minimize" else -1
    pruner = make_pruner(section, sign, batch.before, ())
    reached: dict[int, list[float]] = {place: [] for place in places}

    def on_epoch_end(epoch: int, values: Mapping[int, float]) -> set[int]:
        for place, value in values.items():
            reached[place].append(value)
        return find_ended(pruner, epoch, values, section.epochs, batch.first)

    results = train_parts(trainer, [part], batch.tried, on_epoch_end)
    return {
        str(place): {
            "overrides": batch.tried[place],
            "values": reached[place],
            "end": result.end,
            "value": result.value,
            "scores": encode(result.scores),
        }
        for place, result in results.items()
    }


def replay(
    parts: Sequence[Mapping[str, Told]], tried: Sequence[Overrides], on_epoch_end: OnEpochEnd
) -> list[TrialResult]:
    """Tell of all epochs as if the parts had been trained here, one after the other.

    Raises UserError where they are not the trials that were asked for, each of them once.
    """
    places = sorted(int(place) for part in parts for place in part)
    asked = {str(place): to_plain(overrides) for place, overrides in enumerate(tried)}
    if places != list(range(len(tried))) or any(
        each["overrides"] != asked[place] for part in parts for place, each in part.items()
    ):
        raise UserError("the database has the results of other trials than those of this batch")
    results: dict[int, TrialResult] = {}
    for part in parts:
        told = {int(place): each for place, each in part.items()}
        for epoch in range(1, max(len(each["values"]) for each in told.values()) + 1):
            there = {p: each for p, each in told.items() if len(each["values"]) >= epoch}
            ended = on_epoch_end(epoch, {p: each["values"][epoch - 1] for p, each in there.items()})
            pruned = {
                place
                for place, each in there.items()
                if each["end"] == "pruned" and len(each["values"]) == epoch
            }
            if ended != pruned:
                raise UserError("a machine that works at this search ends trials by another rule")
        for place, each in told.items():
            results[place] = TrialResult(each["end"], each["value"], decode(each["scores"]))
    return [results[place] for place in range(len(tried))]


def encode(scores: Array | None) -> str | None:
    """Scores as text."""
    if scores is None:
        return None
    file = io.BytesIO()
    np.save(file, scores, allow_pickle=False)
    return base64.b64encode(file.getvalue()).decode()


def decode(text: str | None) -> Array | None:
    """Scores from the text that `encode` has made of them."""
    if text is None:
        return None
    scores: Array = np.load(io.BytesIO(base64.b64decode(text)), allow_pickle=False)
    return scores
