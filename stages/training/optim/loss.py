"""The loss by its name in `params.yaml`: torch's, or one of `stages/zoo/losses.py`.

The loop adds up a batch from parts, those of micro-batches and of processes, each with its share
of the rows. That holds for a loss which is the mean over rows, and for no other.
"""

import inspect

import torch
from torch import Tensor, nn

from stages.common.errors import Problem, UserError
from stages.common.user_code import own_errors, problem_of
from stages.training.optim.class_weights import WeightedLoss
from stages.training.optim.registry import losses_of, resolve
from stages.training.params import NUM_CLASSES, TrainParams

NUM_ROWS = 6


def make_loss(
    params: TrainParams,
    task: str,
    weights: Tensor | None = None,
    num_classes: int = NUM_CLASSES,
    *,
    by_row: bool = False,
) -> nn.Module:
    """The loss, as a mean over rows; `weights` (classes,) say how much those of each class count.

    With `by_row` each row has a weight of its own, which the loss is called with.

    Raises UserError when it isn't one for the task, and for values that it does not take.
    """
    loss_class, arguments = resolve("loss", params.loss)
    name, fitting = params.loss.name, losses_of(task)
    if name not in fitting:
        message = f"{name} is no loss for {task}, which the target asks for"
        message += "; where it does not, prepare.task says which it is"
        raise UserError(Problem(message, "train.loss.name", name, fitting))
    try:
        with own_errors(f"the loss {name} can't be used", loss_class):
            loss: nn.Module = loss_class(**arguments)
            # Some values are looked at only when the loss is computed.
            fault = find_fault(loss, task, num_classes)
    except UserError:
        raise
    except (ValueError, TypeError, RuntimeError) as error:
        raise UserError(Problem(str(error), key="train.loss")) from None
    if fault is not None:
        message = f"{name} can't be used: {fault}"
        raise problem_of(message, loss_class, Problem(message, "train.loss.name", name))
    weighs = task == "classification" and params.class_weights is not None
    if weighs and "reduction" not in inspect.signature(loss_class).parameters:
        message = f"class weights need the loss of each row, and {name} takes no reduction='none'"
        value = str(params.class_weights)
        raise UserError(Problem(message, "train.class_weights", value, ("null",)))
    if by_row and "reduction" not in inspect.signature(loss_class).parameters:
        message = f"weights of rows need the loss of each row, and {name} takes no reduction='none'"
        raise UserError(Problem(message, "prepare.weight", allowed=("null",)))
    if weights is None and not by_row:
        return loss
    return WeightedLoss(loss_class(**arguments, reduction="none"), weights)


def find_fault(loss: nn.Module, task: str, num_classes: int) -> str | None:
    """The reason why the loop can't add a loss up from parts; None: it can."""
    if next(loss.parameters(), None) is not None:
        return "it has weights of its own, which no step moves; they belong in the model"
    scores, target = _rows(task, num_classes)
    whole = loss(scores, target)
    if not isinstance(whole, Tensor) or whole.shape != ():
        shape = tuple(whole.shape) if isinstance(whole, Tensor) else type(whole).__name__
        return f"it gives {shape} in place of one number, the mean over rows"
    if not whole.requires_grad:
        return "it has no gradient by the scores"
    if not whole.isfinite():
        return f"it gives {whole.item()} in place of a finite number"
    alone = [loss(scores[row : row + 1], target[row : row + 1]) for row in range(NUM_ROWS)]
    mean = torch.stack(alone).mean()
    if not mean.isfinite():
        return f"it gives {mean.item()} in place of a finite number where a batch is one row"
    if not torch.allclose(whole, mean, rtol=1e-4, atol=1e-6):
        return (
            f"it is no mean over rows: of {NUM_ROWS} rows together it is {whole:.4g}, and the mean "
            f"of what it is of each is {mean:.4g}"
        )
    return None


def _rows(task: str, num_classes: int) -> tuple[Tensor, Tensor]:
    """Scores and targets that differ from row to row; nothing is drawn for them."""
    if task == "regression":
        target = torch.linspace(-2.0, 1.5, NUM_ROWS)
        return torch.linspace(1.0, -1.7, NUM_ROWS).requires_grad_(), target
    numbers = torch.arange(NUM_ROWS * num_classes, dtype=torch.float32)
    scores = torch.sin(numbers).reshape(NUM_ROWS, num_classes)
    return scores.requires_grad_(), torch.arange(NUM_ROWS) % num_classes
