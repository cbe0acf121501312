"""The loss of the rows as they are: what is usually made less."""

from torch import Tensor

from stages.common.config import Config
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
    rng: DropoutRng,  # noqa: ARG001
    arguments: Arguments,  # noqa: ARG001
) -> Tensor:
    """The mean loss (scalar) of the scores of `batch` beside `target` (rows,)."""
    return loss_fn(model(batch), target)
