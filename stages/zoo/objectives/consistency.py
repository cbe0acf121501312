"""The usual loss, and beside it how far a little noise moves a prediction (Π-model, ICLR 2017).

The second part needs no targets: it asks for predictions that are alike where rows are.
"""

from typing import Annotated

from pydantic import Field
from torch import Tensor

from stages.common.config import Config
from stages.common.errors import Problem, UserError
from stages.model.dropout import DropoutRng
from stages.tensors.batch import Batch
from stages.tensors.objective import Loss, Scores

NOISY = ("numeric", "image")


class Arguments(Config):
    """`weight` of the second part; `noise` is the deviation of what is added to numbers."""

    weight: Annotated[float, Field(gt=0, le=1e6)] = 1.0
    noise: Annotated[float, Field(gt=0, le=1000)] = 0.1


def objective(
    model: Scores,
    batch: Batch,
    target: Tensor,
    loss_fn: Loss,
    rng: DropoutRng,
    arguments: Arguments,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Both parts together (scalar), and the second one by itself for the history."""
    noisy = {
        kind: values + arguments.noise * rng.draw_normal(values, *values.shape[1:])
        for kind, values in batch.items()
        if kind in NOISY
    }
    if not noisy:
        message = "there are no numeric columns and no images to add noise to"
        raise UserError(Problem(message, "train.objective.name", "consistency", ("supervised",)))
    scores, again = model(batch), model({**batch, **noisy})
    if target.is_floating_point():
        moved = (again - scores).square().mean()
    else:
        moved = (again.softmax(-1) - scores.softmax(-1)).square().sum(-1).mean()
    return loss_fn(scores, target) + arguments.weight * moved, {"moved": moved}
