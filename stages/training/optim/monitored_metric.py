"""The validation metric that plateaus, pruning and early stopping look at."""

from stages.common.errors import Problem, UserError
from stages.training.params import TrainParams


def metric_of(task: str) -> str:
    """The validation metric that is reported beside the loss."""
    return "accuracy" if task == "classification" else "rmse"


def monitored_metric(params: TrainParams) -> str:
    """The validation metric that plateaus, pruning and early stopping look at."""
    return "loss" if params.early_stopping is None else params.early_stopping.metric


def monitored_direction(params: TrainParams, task: str) -> str:
    """'min' or 'max': what better means for the watched metric. Raises UserError."""
    name = monitored_metric(params)
    allowed = ("loss", metric_of(task))
    if name not in allowed:
        message = f"there is no validation metric '{name}' for {task}"
        raise UserError(Problem(message, "train.early_stopping.metric", name, allowed))
    return "max" if name == "accuracy" else "min"
