"""How much the rows of each class count in the loss: `train.class_weights`.

torch's own `weight` divides by the weights of the rows at hand, so the parts of a batch (of
micro-batches, of processes) would not add up to it. Here it is the mean over rows of weight times
loss, with weights whose mean over the train rows is 1: the learning rate means what it meant.
"""

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from stages.common.schema import Class
from stages.common.yamlfile import spell


def weigh_classes(
    asked: Literal["balanced"] | Mapping[str, float], classes: Sequence[Class], target: Tensor
) -> Tensor:
    """The weight of each class (classes,) in float64, on the CPU.

    `target` (rows,) are the codes of the train rows. `balanced`: n / (k * rows of the class), as
    in scikit-learn, of n rows and of k classes that have some. A class that a mapping does not
    name has 1 beside those that it does. A class without train rows has 1 in the end.
    """
    counts = torch.bincount(target.cpu(), minlength=len(classes)).double()
    ones = torch.ones_like(counts)
    if isinstance(asked, str):
        weights = torch.where(counts > 0, 1 / counts, ones)
    else:
        named = [asked.get(spell(name), 1.0) for name in classes]
        weights = torch.tensor(named, dtype=torch.float64)
    mean = (weights * counts).sum() / counts.sum()
    return torch.where(counts > 0, weights / mean, ones)


def tell_weights(weights: Tensor, classes: Sequence[Class], target: Tensor) -> list[str]:
    """What the weights come to, in lines for a person."""
    lightest, heaviest = int(weights.argmin()), int(weights.argmax())
    lines = [
        f"class weights: {weights[lightest]:.3g} ({spell(classes[lightest])}) to "
        f"{weights[heaviest]:.3g} ({spell(classes[heaviest])}); the loss of validation has them too"
    ]
    counts = torch.bincount(target.cpu(), minlength=len(classes)).tolist()
    if unseen := [spell(name) for name, n in zip(classes, counts, strict=True) if n == 0]:
        lines.append(f"no train row is of the class {', '.join(unseen)}: its weight is 1")
    return lines


class WeightedLoss(nn.Module):
    """The mean over rows of a row's loss times the weight of its class.

    `loss_of` gives a loss for each row (rows,); `weights` (classes,) are of its type and lie on
    its device.
    """

    def __init__(self, loss_of: nn.Module, weights: Tensor) -> None:
        super().__init__()
        self.loss_of = loss_of
        self.weights = weights

    def forward(self, scores: Tensor, target: Tensor) -> Tensor:
        """The loss () of `scores` (rows, classes) beside the codes `target` (rows,)."""
        mean: Tensor = (self.weights[target] * self.loss_of(scores, target)).mean()
        return mean
