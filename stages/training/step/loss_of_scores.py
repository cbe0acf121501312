"""The loss of a model's scores, in training and in validation."""

import torch
from torch import Tensor, nn


def compute_loss(
    loss_fn: nn.Module, scores: Tensor, target: Tensor, row_weights: Tensor | None
) -> Tensor:
    """Mean loss (scalar). With `row_weights` (rows,): mean of these times the loss of each row.

    Of scores by member, (rows, members) or (rows, members, classes), it is the mean of the members'
    losses, never the loss of their mean: each member learns by itself.
    """
    if scores.ndim > (1 if target.is_floating_point() else 2):
        num_members = scores.shape[1]
        scores, target = scores.flatten(0, 1), target.repeat_interleave(num_members)
        if row_weights is not None:
            row_weights = row_weights.repeat_interleave(num_members)
    if row_weights is None:
        loss: Tensor = loss_fn(scores, target)
    else:
        loss = loss_fn(scores, target, row_weights)
    return loss


def prepare_scores(scores: Tensor, target: Tensor) -> Tensor:
    """Scores for the loss, in float32 at least: (rows, classes), for regression (rows,).

    In training a model may give those of each of its members: (rows, members, classes), for
    regression (rows, members).
    """
    if scores.dtype in (torch.bfloat16, torch.float16):
        # A loss is summed up in more digits than the forward pass has.
        scores = scores.float()
    return scores.squeeze(-1) if target.is_floating_point() else scores
