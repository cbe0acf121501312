"""Mixup: a row is mixed with another one, and learned as a bit of both (Zhang et al., ICLR 2018).

The partner is the row before it, of those that go through the model at once, whose order is new in
each epoch. How much of it follows Beta(1/2, 1/2) and is the same for all rows of a batch.
"""

import math

import torch
from torch import Tensor

from stages.common.config import Config
from stages.common.errors import Problem, UserError
from stages.model.dropout import DropoutRng
from stages.tensors.batch import Batch
from stages.tensors.objective import Loss, Scores


class Arguments(Config):
    """It has none."""


def objective(
    model: Scores,
    batch: Batch,
    target: Tensor,
    loss_fn: Loss,
    rng: DropoutRng,
    arguments: Arguments,  # noqa: ARG001
) -> Tensor:
    """The loss of mixed rows beside both targets, each as far as it is in them (scalar)."""
    if codes := [kind for kind, values in batch.items() if not values.is_floating_point()]:
        message = f"mixup mixes numbers and images; codes ({', '.join(codes)}) have nothing between"
        raise UserError(Problem(message, "train.objective.name", "mixup", ("supervised",)))
    first = next(iter(batch.values()))
    # The square of a sine at an angle that is drawn evenly has this distribution.
    share = (rng.draw_number(first) * (math.pi / 2)).sin().square()
    partner = torch.arange(len(target), device=target.device).roll(1)
    mixed = {kind: values.lerp(values[partner], share) for kind, values in batch.items()}
    scores = model(mixed)
    own, other = loss_fn(scores, target), loss_fn(scores, target[partner], partner)
    return own.lerp(other, share.to(own.dtype))
