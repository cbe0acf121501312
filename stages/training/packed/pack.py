"""Members of a pack, put together: all that their next step depends on."""

import warnings
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from stages.tensors.batch import Batch
from stages.training.build import Assembly, assemble
from stages.training.device.distributed import World
from stages.training.device.rng import put_generators, read_generators
from stages.training.packed.folded import Folded, agrees, fold
from stages.training.packed.layout import (
    Constants,
    Layout,
    Stacked,
    find_layout,
    stack_constants,
)
from stages.training.packed.loss import PackedLoss, pack_losses
from stages.training.packed.masks import (
    Call,
    MaskFeed,
    make_ones,
    make_template,
    record_calls,
    shares_of,
)
from stages.training.packed.optimizer import make_moments
from stages.training.params import TrainParams
from stages.training.state import Data, Result, State
from stages.training.step.divergence import DivergedError

CPU = torch.device("cpu")
# The standard deviation of what is added to weights for a comparison of two forms.
NOISE = 0.5


@dataclass(frozen=True)
class Member:
    """One training of a pack: a model with its first weights, and what it learns from.

    All members of a pack have the same architecture, size of a batch and class of optimizer.
    """

    model: nn.Module
    data: Data
    params: TrainParams
    seed: int


@dataclass
class Pack:
    """Members that train together.

    `numbers` are those of the members that still do, in the order of the rows of all tensors:
    `weights` and `kept`, those of the best epoch, `average` (None: nobody asks for one) and
    `moments`, what the optimizers keep; `counts` are the steps that each has applied. `epoch` is
    the one that runs, from 1, and `step` the next one in it. `folded` scores without `vmap`, where
    the model can have that form. `failed` diverged, and leave with the
    epoch. `assemblies` are those of all members, by number; what does not lie here in rows (the
    sums of the epoch, history, schedule) is in their states.
    """

    members: Sequence[Member]
    assemblies: Sequence[Assembly]
    layout: Layout
    template: nn.Module
    feed: MaskFeed
    calls: Sequence[Call]
    shares: Sequence[Mapping[str, float]]
    all_constants: Constants
    all_losses: PackedLoss
    numbers: list[int]
    weights: Stacked
    kept: Stacked
    average: Stacked | None
    moments: list[Stacked]
    counts: list[int]
    folded: Folded | None = None
    epoch: int = 1
    step: int = 0
    failed: dict[int, DivergedError] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.constants, self.losses = self.all_constants, self.all_losses
        every = self.template.named_parameters(remove_duplicate=False)
        # Weights in two places have to be looked up anew in each call.
        self.ties = len(list(every)) > len(list(self.template.parameters()))
        self.choose_constants()

    @property
    def states(self) -> list[State]:
        """The states of the members that still train."""
        return [self.assemblies[number].state for number in self.numbers]

    @property
    def results(self) -> list[Result]:
        """The results of all members, by number."""
        return [assembly.state.result for assembly in self.assemblies]

    def choose_constants(self) -> None:
        """Take constants and losses of the members that still train."""
        if self.numbers:
            self.constants = self.all_constants.take(torch.tensor(self.numbers))
            self.losses = self.all_losses.take(self.numbers)

    def leave(self, rows: Collection[int]) -> None:
        """Take the members in `rows` out of all tensors."""
        stay = [row for row in range(len(self.numbers)) if row not in rows]
        at = torch.tensor(stay, dtype=torch.int64)

        def shrink(matrices: Stacked) -> Stacked:
            return [matrix.detach()[at] for matrix in matrices]

        self.weights, self.kept = shrink(self.weights), shrink(self.kept)
        self.average = None if self.average is None else shrink(self.average)
        self.moments = [shrink(each) for each in self.moments]
        self.counts = [self.counts[row] for row in stay]
        self.numbers = [self.numbers[row] for row in stay]
        self.choose_constants()

    def score(
        self,
        named: dict[str, Tensor],
        constants: Constants,
        batch: Batch,
        masks: tuple[Tensor, ...],
    ) -> Tensor:
        """The scores (members, rows, …) of rows (members, rows, …), in the template's mode."""
        if self.folded is not None:
            return self.folded.score(named, batch, masks, training=self.template.training)
        own = {**named, **constants.own}

        # Tuples: `vmap` takes dicts apart and puts them together in Python, at each step.
        def call(
            tensors: tuple[Tensor, ...], rows: tuple[Tensor, ...], drawn: tuple[Tensor, ...]
        ) -> Any:
            self.feed.masks = iter(drawn)
            held = {**dict(zip(own, tensors, strict=True)), **constants.common}
            features = dict(zip(batch, rows, strict=True))
            return functional_call(self.template, held, (features,), tie_weights=self.ties)

        scores: Tensor = vmap(call)(tuple(own.values()), tuple(batch.values()), masks)
        return scores


def make_pack(members: Sequence[Member]) -> Pack:
    """The pack of `members`, not begun; `packable.py` says which can be one.

    Raises UserError for names that don't fit.
    """
    assemblies = [assemble(m.model, m.data, m.params, m.seed, World()) for m in members]
    for assembly in assemblies:
        # Without gradients: nothing moves, and the schedule sees a step before its own.
        assembly.context.optimizer.step()
    models = [member.model for member in members]
    layout = find_layout(models[0], assemblies[0].context.optimizer)
    template, feed = make_template(models)
    size = min(members[0].params.batch_size, len(members[0].data.train))
    sample, _ = members[0].data.train.take(slice(0, size))
    weights = layout.stack(models)
    averaged = any(member.params.ema is not None for member in members)
    pack = Pack(
        members=members,
        assemblies=assemblies,
        layout=layout,
        template=template,
        feed=feed,
        calls=record_calls(template, sample),
        shares=[shares_of(model) for model in models],
        all_constants=stack_constants(models, layout),
        all_losses=pack_losses([assembly.loss_fn for assembly in assemblies]),
        numbers=list(range(len(members))),
        weights=weights,
        kept=[torch.zeros_like(matrix) for matrix in weights],
        average=[matrix.clone() for matrix in weights] if averaged else None,
        moments=make_moments(assemblies[0].context.optimizer, weights),
        counts=[0] * len(members),
    )
    folded = fold(template, feed, layout, pack.all_constants)
    if folded is not None and _is_same(pack, folded):
        pack.folded = folded
    return pack


def _is_same(pack: Pack, folded: Folded) -> bool:
    """Check that the folded form comes to the scores and gradients of `vmap`, in both modes.

    Each member has other rows and other weights: rows that go through another member's weights
    show in no score where all members begin with the same ones, or the last layer with zeros.
    """
    batches = [
        member.data.train.take((torch.arange(2) + 2 * place) % len(member.data.train))[0]
        for place, member in enumerate(pack.members)
    ]
    batch = {kind: torch.stack([rows[kind] for rows in batches]) for kind in batches[0]}
    own = torch.Generator().manual_seed(0)
    weights = [
        (matrix + NOISE * torch.randn(matrix.shape, generator=own, dtype=matrix.dtype))
        for matrix in pack.weights
    ]
    named = pack.layout.name([matrix.requires_grad_() for matrix in weights])
    ones = make_ones(pack.calls, len(batches), 2)
    before = read_generators(CPU)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)
            for training, masks in ((False, ()), (True, ones)):
                pack.template.train(training)
                scores = pack.score(named, pack.constants, batch, masks)
                others = folded.score(named, batch, masks, training=training)
                pairs = [(others, scores)]
                gradients = (_find_gradients(each, named) for each in (others, scores))
                pairs += zip(*gradients, strict=True)
                if not all(agrees(one, other) for one, other in pairs):
                    return False
            return True
    except Exception:  # `why_no_step` asks again, and says why
        return False
    finally:
        pack.template.train()
        put_generators(before, CPU)


def _find_gradients(scores: Tensor, named: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
    return torch.autograd.grad(scores.square().sum(), list(named.values()), retain_graph=True)
