"""The trainings of a batch of trials: those of one form as a pack, any other by itself.

A group of trials goes epoch by epoch: it yields the watched metric of each trial that still trains,
by its place in the batch, and is sent the places of those that end there.
"""

import math
from collections.abc import Collection, Generator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from stages.common.counts import counted
from stages.common.errors import Problem, UserError
from stages.features.schema import Array
from stages.training.build import assemble
from stages.training.data.source import Source, rows_at_once
from stages.training.device.distributed import World
from stages.training.device.environment import num_threads
from stages.training.device.rng import put_generators, read_generators
from stages.training.loop import monitored_value, run_epochs
from stages.training.packed.loop import run_pack
from stages.training.packed.pack import Member, Pack, make_pack
from stages.training.packed.packable import form_of, group_by_form, why_no_step, why_not_members
from stages.training.packed.rule import Sizes, choose_way, count_products, split_evenly
from stages.training.state import Result
from stages.training.step.divergence import DivergedError
from stages.training.step.loss_of_scores import prepare_scores
from stages.tune.trials import OnEpochEnd, TrialResult

Group = Generator[Mapping[int, float], Collection[int], None]
KEY = "train.packed"
# Trials of one pack. Fewer would take longer in all, more would leave no second pack to a second
# core. The number of cores has no say in it: it would change the last digits.
MAX_TRIALS = 16


@dataclass(frozen=True)
class Part:
    """Trials that train together, by their places in the batch; without a pack there is one.

    `size` are the products of weights and rows in a step, by which threads are chosen.
    """

    places: list[int]
    pack: Pack | None
    size: int


@dataclass(frozen=True)
class Gathered:
    """The results of a batch by place, filled in as trials end, with scores if they are kept."""

    results: dict[int, TrialResult]
    keep_scores: bool

    def complete(self, place: int, member: Member, result: Result) -> None:
        """Note a trial that came to its end."""
        assert result.best_epoch is not None
        scores = None
        if self.keep_scores:
            member.model.load_state_dict(result.weights)
            scores = score(member.model, member.data.validation)
        value = monitored_value(result.best_epoch, member.params)
        self.results[place] = TrialResult("complete", value, scores)


def divide(members: Sequence[Member]) -> tuple[list[Part], list[str]]:
    """The trials that train together, and how, in lines.

    Raises UserError where `train.packed` is true and two or more of one form can't be packed.
    """
    parts: list[Part] = []
    said: dict[str, int] = {}
    for places in group_by_form([form_of(member) for member in members]):
        for together in split_evenly(places, MAX_TRIALS):
            pack, line = _choose([members[place] for place in together])
            for own in [together] if pack else [[place] for place in together]:
                parts.append(Part(list(own), pack, find_size([members[place] for place in own])))
            said[line] = said.get(line, 0) + len(together)
    lines = [f"{counted(count, 'trial')}: {line}" for line, count in said.items() if line]
    return sorted(parts, key=lambda part: part.places[0]), lines


def find_size(members: Sequence[Member]) -> int:
    """The products of weights and rows in a step of trials that train together."""
    num_weights = sum(weight.numel() for weight in members[0].model.parameters())
    return num_weights * len(members) * members[0].params.batch_size


def _choose(members: Sequence[Member]) -> tuple[Pack | None, str]:
    """The pack of trials of one form, None where they train one by one, and why."""
    if len(members) == 1:
        return None, ""
    asked = members[0].params.packed
    reason = "train.packed is false" if asked is False else why_not_members(members)
    said = f"packed, their steps together ({KEY})"
    if reason is None:
        way = choose_way(_find_sizes(members), may_pack=True)
        if asked is not True and way.name != "packed":
            return None, way.said
        said = said if asked is True else way.said
        pack, reason = pack_members(members)
        if pack is not None:
            return pack, said
    if asked is True:
        message = f"the trials can't be packed: {reason}"
        raise UserError(Problem(message, KEY, "true", ("auto", "false")))
    return None, f"one after the other: {reason}"


def pack_members(members: Sequence[Member]) -> tuple[Pack | None, str]:
    """The pack of trials of one form; None where this machine can't have it, and why."""
    reason = why_not_members(members)
    if reason is not None:
        return None, reason
    pack = make_pack(members)
    reason = why_no_step(pack)
    return (pack, "") if reason is None else (None, reason)


def _find_sizes(members: Sequence[Member]) -> Sizes:
    first = members[0]
    size = min(first.params.batch_size, len(first.data.train))
    num_steps = first.params.epochs * math.ceil(len(first.data.train) / size)
    products = count_products(first.model, first.data.train.take(slice(0, size))[0])
    return Sizes(len(members), products, num_steps, at_once=1)


def train_alone(place: int, member: Member, gathered: Gathered) -> Group:
    """Train one trial by the usual loop."""
    device = member.data.train.target.device
    threads, _ = num_threads(find_size([member]), 1, World())
    torch.set_num_threads(threads)
    assembly = assemble(member.model, member.data, member.params, member.seed, World())
    epochs = run_epochs(assembly, member.data, member.params, member.seed)
    generators = read_generators(device)
    while True:
        torch.set_num_threads(threads)
        # What a model of one's own draws goes on where this training has left it.
        put_generators(generators, device)
        try:
            epoch, _ = next(epochs)
        except StopIteration:
            break
        except DivergedError:
            # A learning rate that is too high says something too: the search continues without it.
            gathered.results[place] = TrialResult("diverged", None)
            return
        generators = read_generators(device)
        if place in (yield {place: monitored_value(epoch, member.params)}):
            gathered.results[place] = TrialResult("pruned", None)
            return
    gathered.complete(place, member, assembly.state.result)


def train_together(places: Sequence[int], pack: Pack, gathered: Gathered) -> Group:
    """Train trials as a pack; `places` are those of its members."""
    threads, _ = num_threads(find_size(pack.members), 1, World())

    def on_diverged(number: int, _: DivergedError) -> None:
        gathered.results[places[number]] = TrialResult("diverged", None)

    epochs = run_pack(pack, on_diverged)
    ended: list[int] | None = None
    while True:
        torch.set_num_threads(threads)
        try:
            reached, _ = next(epochs) if ended is None else epochs.send(ended)
        except StopIteration:
            break
        asked = yield {
            places[number]: monitored_value(epoch, pack.members[number].params)
            for number, epoch in reached.items()
        }
        ended = [number for number in reached if places[number] in asked]
        for number in ended:
            gathered.results[places[number]] = TrialResult("pruned", None)
    for number, place in enumerate(places):
        if place not in gathered.results:
            gathered.complete(place, pack.members[number], pack.results[number])


def run_in_step(groups: Sequence[Group], on_epoch_end: OnEpochEnd) -> None:
    """Bring all groups to the end of an epoch before any goes on to the next."""
    left, epoch = list(range(len(groups))), 0
    ended: Collection[int] | None = None
    while left:
        values: dict[int, float] = {}
        for number in list(left):
            try:
                group = groups[number]
                values |= next(group) if ended is None else group.send(ended)
            except StopIteration:
                left.remove(number)
        epoch += 1
        ended = on_epoch_end(epoch, values) if values else set()


@torch.inference_mode()
def score(model: nn.Module, split: Source) -> Array:
    """Logarithms of probabilities (rows, classes) float16, or standardised values (rows,) float32.

    `model` is in evaluation mode from then on.
    """
    model.eval()
    size, parts = rows_at_once(split), []
    for first in range(0, len(split), size):
        batch, target = split.take(slice(first, first + size))
        parts.append(prepare_scores(model(batch), target).cpu())
    scores = torch.cat(parts)
    if scores.ndim == 1:
        return scores.numpy()
    return scores.log_softmax(dim=1).numpy().astype(np.float16)
