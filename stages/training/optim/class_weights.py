"""Weights in the loss: of the classes, `train.class_weights`, and of rows, `prepare.weight`.

torch's own `weight` divides by the weights of the rows at hand, so the parts of a batch (of
micro-batches, of processes) would not add up to it. Here it is the mean over rows of weight times
loss, with weights whose mean over the train rows is 1: the learning rate means what it meant.
A row whose weight is n has the part in the gradient of an epoch that n of it would have.
"""

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from stages.common.errors import Problem, UserError
from stages.common.yamlfile import yaml_text
from stages.features.schema import Class

# A row of the lighter class would change no digit of a sum with one of the heavier.
MAX_RATIO = 1e6


def weigh_classes(
    setting: Literal["balanced"] | Mapping[str, float],
    classes: Sequence[Class],
    target: Tensor,
    row_weights: Tensor | None = None,
) -> Tensor:
    """The weight of each class (classes,) in float64, on the CPU.

    `target` (rows,) are the codes of the train rows. `balanced`: n / (k * rows of the class), as
    in scikit-learn, of n rows and of k classes that have some. A class that a mapping does not
    name has 1 beside those that it does. A class without train rows has 1 in the end. Of rows with
    weights, `row_weights` (rows,), the sums of these are what counts.

    Raises UserError for weights so far apart that nothing of the lighter rows would be left.
    """
    counts = _count(target, classes, row_weights)
    ones = torch.ones_like(counts)
    if isinstance(setting, str):
        weights = torch.where(counts > 0, 1 / counts, ones)
    else:
        named = [setting.get(yaml_text(name), 1.0) for name in classes]
        weights = torch.tensor(named, dtype=torch.float64)
        _check_ratio(weights, counts, classes, setting)
    mean = (weights * counts).sum() / counts.sum()
    return torch.where(counts > 0, weights / mean, ones)


def _check_ratio(
    weights: Tensor, counts: Tensor, classes: Sequence[Class], setting: Mapping[str, float]
) -> None:
    """Stop at weights that float32 can't add up: of one too large all others come to nothing."""
    names = [yaml_text(name) for name in classes]
    heavy = int(weights.where(counts > 0, 0.0).argmax())
    light = int(weights.where(counts > 0, torch.inf).argmin())
    total = (weights * counts).sum()
    if total.isfinite() and weights[heavy] <= MAX_RATIO * weights[light]:
        return
    # A class that is not named has 1, which is nobody's to edit.
    name = names[heavy] if names[heavy] in setting else names[light]
    message = (
        f"the weights of '{names[heavy]}' and '{names[light]}' are {weights[heavy]:g} and "
        f"{weights[light]:g}: so far apart, or so large, that float32 can't add the losses up"
    )
    at = f"train.class_weights.{name}"
    raise UserError(Problem(message, at, f"{setting[name]:g}", (f"at most {MAX_RATIO:g} apart",)))


def _count(target: Tensor, classes: Sequence[Class], row_weights: Tensor | None) -> Tensor:
    """The rows of each class (classes,) in float64, or the sums of their weights."""
    weights = None if row_weights is None else row_weights.double().cpu()
    return torch.bincount(target.cpu(), weights, minlength=len(classes)).double()


def describe_weights(
    weights: Tensor, classes: Sequence[Class], target: Tensor, row_weights: Tensor | None = None
) -> list[str]:
    """Lines for a person on the weights of the classes; see `weigh_classes`."""
    lightest, heaviest = int(weights.argmin()), int(weights.argmax())
    lines = [
        f"class weights: {weights[lightest]:.3g} ({yaml_text(classes[lightest])}) to "
        f"{weights[heaviest]:.3g} ({yaml_text(classes[heaviest])}); "
        "the loss of validation has them too"
    ]
    counts = _count(target, classes, row_weights).tolist()
    if unseen := [yaml_text(name) for name, n in zip(classes, counts, strict=True) if n == 0]:
        lines.append(f"no train row is of the class {', '.join(unseen)}: its weight is 1")
    return lines


class WeightedLoss(nn.Module):
    """The mean over rows of a row's loss times its weight and the weight of its class.

    `loss_fn` gives a loss for each row (rows,); `class_weights` (classes,) are of its type
    and lie on its device. None: classes have none.
    """

    def __init__(self, loss_fn: nn.Module, class_weights: Tensor | None) -> None:
        super().__init__()
        self.loss_fn = loss_fn
        self.class_weights = class_weights

    def forward(self, scores: Tensor, target: Tensor, row_weights: Tensor | None = None) -> Tensor:
        """The loss (scalar) of `scores` beside `target` (rows,); `row_weights` are (rows,)."""
        losses: Tensor = self.loss_fn(scores, target)
        if self.class_weights is not None:
            losses = self.class_weights[target] * losses
        return (losses if row_weights is None else row_weights * losses).mean()
