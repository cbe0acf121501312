"""One step of a pack: forward and backward for all members at once, then each one's optimizer."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from stages.tensors.batch import Batch
from stages.training.averaging import warm_decay
from stages.training.packed.feed import Group
from stages.training.packed.layout import Stacked
from stages.training.packed.masks import draw_masks
from stages.training.packed.optimizer import apply_gradients
from stages.training.packed.pack import Pack
from stages.training.step.loss_of_scores import prepare_scores


def take_step(pack: Pack, group: Group) -> None:
    """Learn from the batches of a group; add loss, norm and rows to its members' totals.

    As alone, a member whose loss or gradient is not finite does not move.
    """
    states = [pack.assemblies[pack.numbers[place]].state for place in group.places]
    losses, gradients = find_gradients(pack, group)
    squares = [gradient.square().sum(dim=1) for gradient in gradients]
    norms = torch.stack(squares).sum(dim=0).sqrt()
    losses_now, norms_now = losses.tolist(), norms.tolist()
    applied = [
        place
        for place, (loss, norm) in enumerate(zip(losses_now, norms_now, strict=True))
        if math.isfinite(loss) and math.isfinite(norm)
    ]
    if len(applied) < len(group.places):
        gradients = [gradient[applied] for gradient in gradients]
    rows = [group.places[place] for place in applied]
    if rows:
        _clip(pack, rows, gradients, [norms_now[place] for place in applied])
        apply_gradients(
            [state.optimizer for state in pack.states],
            rows,
            pack.weights,
            gradients,
            pack.moments,
            pack.counts,
        )
    num_rows = group.target.shape[1]
    for place, state in enumerate(states):
        if place in applied:
            state.totals.add_step(losses_now[place], norms_now[place], num_rows)
        else:
            state.totals.consecutive_skips += 1
        state.totals.num_steps += 1


def find_gradients(pack: Pack, group: Group) -> tuple[Tensor, Stacked]:
    """The losses (members,) of a group, and the gradients of each by its own weights."""
    whole = len(group.places) == len(pack.numbers)
    at = torch.tensor(group.places)
    weights = [
        (matrix if whole else matrix[at]).detach().requires_grad_() for matrix in pack.weights
    ]
    constants = pack.constants if whole else pack.constants.take(at)
    loss_fn = pack.losses if whole else pack.losses.take(group.places)
    batch, masks = draw(pack, group)
    scores = pack.score(pack.layout.name(weights), constants, batch, masks)
    losses = loss_fn(prepare_scores(scores, group.target), group.target, group.row_weights)
    # Each loss is of its own row alone, so the gradient of their sum has that of each.
    gradients = torch.autograd.grad(losses.sum(), weights)
    return losses.detach(), list(gradients)


def draw(pack: Pack, group: Group) -> tuple[Batch, tuple[Tensor, ...]]:
    """The rows of a group, varied where a member asks for it, and the masks of its dropout."""
    numbers, num_rows = [pack.numbers[place] for place in group.places], group.target.shape[1]
    contexts = [pack.assemblies[number].context for number in numbers]
    for context in contexts:
        context.dropout_rng.begin_step(group.step, num_rows, slice(None))
    batch = group.batch
    if any(context.augment is not None for context in contexts):
        alone = [{kind: rows[i] for kind, rows in batch.items()} for i in range(len(contexts))]
        varied = [
            rows if context.augment is None else context.augment(rows)
            for context, rows in zip(contexts, alone, strict=True)
        ]
        batch = {kind: torch.stack([rows[kind] for rows in varied]) for kind in batch}
    rngs = [context.dropout_rng for context in contexts]
    shares = [pack.shares[number] for number in numbers]
    return batch, draw_masks(pack.calls, rngs, shares, num_rows)


def _clip(pack: Pack, rows: Sequence[int], gradients: Stacked, norms: Sequence[float]) -> None:
    """Clip the gradients of `rows` in place, each by its member's own limits."""
    contexts = [pack.assemblies[pack.numbers[row]].context for row in rows]
    dtype = gradients[0].dtype
    # As torch's clip_grads_with_norm_, which is asked only where the norm is too long.
    factors = [
        context.clip_norm / (norm + 1e-6) if norm > context.clip_norm else 1.0
        for context, norm in zip(contexts, norms, strict=True)
    ]
    if min(factors) < 1:
        column = torch.tensor(factors, dtype=dtype)[:, None]
        for gradient in gradients:
            gradient.mul_(column)
    most = [math.inf if c.clip_value is None else c.clip_value for c in contexts]
    if min(most) < math.inf:
        bound = torch.tensor(most, dtype=dtype)[:, None]
        for gradient in gradients:
            torch.minimum(torch.maximum(gradient, -bound, out=gradient), bound, out=gradient)


@torch.no_grad()
def update_averages(pack: Pack, places: Sequence[int], number_of: Sequence[int]) -> None:
    """Move the averages of the members in `places`, those that have one, after a step.

    `number_of` are the steps of each before it, from 0.
    """
    if pack.average is None:
        return
    shares = torch.zeros(len(pack.numbers), 1, dtype=pack.weights[0].dtype)
    for place, number in zip(places, number_of, strict=True):
        decay = pack.members[pack.numbers[place]].params.ema
        if decay is not None:
            shares[place] = 1 - warm_decay(decay, number)
    for mean, matrix in zip(pack.average, pack.weights, strict=True):
        mean.lerp_(matrix, shares)
