"""The types that an objective of the zoo is called with: `train.objective`."""

from collections.abc import Callable
from typing import Protocol

from torch import Tensor

from stages.tensors.batch import Batch

# The model as an objective calls it: scores of a batch in float32 at least, (rows, classes), or
# (rows,) of a value; of a model with members (rows, members, …).
Scores = Callable[[Batch], Tensor]


class Loss(Protocol):
    """The recipe's loss, with the weights of classes and rows."""

    def __call__(self, scores: Tensor, target: Tensor, rows: Tensor | None = None) -> Tensor:
        """The mean over rows (scalar); `rows`: those that the targets are of, if not in order."""
