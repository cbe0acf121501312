"""The section `train` of `params.yaml`."""

from typing import Annotated, Literal

from pydantic import Field

from stages.common.errors import Problem
from stages.common.section import Named, Section

Positive = Annotated[int, Field(ge=1)]
Precision = Literal["auto", "fp32", "bf16", "fp16"]
ThresholdMetric = Literal["accuracy", "balanced_accuracy", "f1", "matthews_corrcoef"]
NUM_CLASSES = 2


class EarlyStopping(Section):
    """Which validation metric picks the best epoch, and how long to wait for a better one.

    `patience` is in epochs; null trains all of them and still keeps the best one's weights.
    """

    metric: Literal["loss", "accuracy", "rmse"]
    patience: Positive | None


class CalibrationParams(Section):
    """What is fitted on validation once the weights are there; classification alone.

    `temperature` divides the scores, so that probabilities are as sure as they are right.
    `threshold`, of two classes: the metric for which the probability is chosen above which the
    second one is predicted (`f1` is that of the second); null: the likelier one is.
    """

    temperature: bool
    threshold: ThresholdMetric | None


class Augment(Section):
    """How train rows are varied anew in each epoch; 0: not so.

    `flip` is the share of images that are mirrored left to right, `shift` how many pixels they
    move at most, each way; `noise` the standard deviation of what is added to numeric columns and
    images, which are standardised.
    """

    flip: Annotated[float, Field(ge=0, le=1)]
    shift: Annotated[int, Field(ge=0)]
    noise: Annotated[float, Field(ge=0)]


class TrainParams(Section):
    """How to train. Names are classes of `torch.nn`, `torch.optim`, `torch.optim.lr_scheduler`.

    Without early stopping all epochs are trained and the last weights are kept. A batch goes
    through the model whole, or in parts of `micro_batch_size` rows that fit a small memory. A
    gradient longer than `clip_norm` is scaled down to it; then each of its numbers is cut to
    within ±`clip_value`. `ema` keeps an average of the weights over the steps, with that decay,
    in place of the last ones. `precision` is that of the forward pass; `auto`: bf16 on a GPU that
    computes in it, else fp32. `deterministic` has the same bits every time on a GPU too, where it
    takes some speed. `replicas` are trainings of the same recipe that differ in the seed; the
    first is served.
    """

    epochs: Positive
    batch_size: Positive
    micro_batch_size: Positive | None
    augment: Augment | None
    loss: Named
    optimizer: Named
    schedule: Named
    clip_norm: Annotated[float, Field(gt=0)] | None
    clip_value: Annotated[float, Field(gt=0)] | None
    ema: Annotated[float, Field(gt=0, lt=1)] | None
    precision: Precision
    deterministic: bool
    early_stopping: EarlyStopping | None
    calibration: CalibrationParams
    replicas: Positive


def check_calibration(
    params: CalibrationParams, task: str, num_classes: int | None = None
) -> list[Problem]:
    """What of a calibration the target does not have; None: the number of classes is not known."""
    problems, at = [], "train.calibration"
    if params.temperature and task == "regression":
        message = "a temperature is for the probabilities of classes, which regression has not"
        problems.append(Problem(message, f"{at}.temperature", "true", ("false",)))
    if params.threshold is not None:
        what = "it is regression" if task == "regression" else f"it has {num_classes} classes"
        if task == "regression" or num_classes not in (NUM_CLASSES, None):
            message = f"a threshold is for a target of two classes; {what}"
            problems.append(Problem(message, f"{at}.threshold", params.threshold, ("null",)))
    return problems
