"""The section `train` of `params.yaml`."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Discriminator, Field, Tag, model_validator

from stages.common.config import MAX_COUNT, MAX_NUMBER, Named, Section
from stages.common.yamlfile import spell

Positive = Annotated[int, Field(ge=1, le=MAX_COUNT)]
Rate = Annotated[float, Field(gt=0, le=MAX_NUMBER)]
# Below it float32 rounds what is left of a gradient to zero.
Clip = Annotated[float, Field(ge=1e-30, le=MAX_NUMBER)]
# Others leave nothing of the other classes, or of this one.
Weight = Annotated[float, Field(ge=1e-6, le=1e6)]
Precision = Literal["auto", "fp32", "bf16", "fp16"]
# `auto` is a rule that follows from the kind of device, the sizes and the number of steps.
Choice = Literal["auto", True, False]
Parallel = Literal["ddp", "fsdp"]
ThresholdMetric = Literal["accuracy", "balanced_accuracy", "f1", "matthews_corrcoef"]
NUM_CLASSES = 2


def _spell_keys(weights: Any) -> Any:
    """YAML reads the names `0` and `true` as a number and a boolean; others it can't mean."""
    if not isinstance(weights, Mapping):
        return weights
    if len({isinstance(name, str) for name in weights}) > 1:
        # DVC can't put them in an order, and fails without saying where.
        others = ", ".join(spell(name) for name in weights if not isinstance(name, str))
        raise ValueError(f"names beside others that are text must be in quotes: {others}")
    return {spell(k) if isinstance(k, bool | int) else k: v for k, v in weights.items()}


def _tag(weights: object) -> str:
    """Which of the two is meant, so that a mistake is told in its terms alone."""
    return "by name" if isinstance(weights, Mapping) else "rule"


ByName = Annotated[dict[str, Weight], Field(min_length=1), BeforeValidator(_spell_keys)]
ClassWeights = Annotated[
    Annotated[Literal["balanced"], Tag("rule")] | Annotated[ByName, Tag("by name")],
    Discriminator(_tag),
]


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
    shift: Annotated[int, Field(ge=0, le=10_000)]
    noise: Annotated[float, Field(ge=0, le=1000)]


class Group(Section):
    """The weights whose names match a pattern, such as `output.*`; the first that matches has one.

    `lr` is their own learning rate, null the optimizer's; `frozen` weights stay as they are.
    """

    match: Annotated[str, Field(min_length=1)]
    lr: Rate | None
    frozen: bool

    @model_validator(mode="after")
    def _move_or_not(self) -> Self:
        if self.frozen and self.lr is not None:
            raise ValueError("frozen weights have no learning rate: make lr null, or frozen false")
        return self


class Swa(Section):
    """From the end of which epoch on (the first is 1) the weights are averaged, epoch by epoch.

    `lr` is the learning rate from the beginning of that epoch on; null: the schedule goes on.
    """

    start: Positive
    lr: Rate | None


class TrainParams(Section):
    """How to train. Names are classes of `torch.nn`, `torch.optim`, `torch.optim.lr_scheduler`.

    - `micro_batch_size`: a batch goes through the model in parts of so many rows; null: whole.
    - `dataset`: a file of `stages/zoo/datasets` that makes the rows to train and validate on.
    - `class_weights`: by name, or `balanced`: the rarer a class, the more its rows count.
    - `groups`: weights by their names, with a learning rate of their own, or frozen.
    - `clip_norm`: a gradient that is longer is scaled down to it.
    - `clip_value`: then each of its numbers is cut to within ± this.
    - `ema`: keep an average of the weights over the steps, with that decay, not the last ones.
    - `swa`: keep the mean of the weights at the ends of the last epochs; not beside `ema`.
    - `precision`: that of the forward pass; `auto`: bf16 on a GPU that computes in it, else fp32.
    - `compile`: torch writes code for this model; `auto`: on a GPU, where the training repays it.
    - `channels_last`: how images lie in memory; `auto`: so on a GPU in half precision.
    - `parallel`: several processes each hold the whole model (ddp), or divide its weights (fsdp).
    - `deterministic`: the same bits every time on a GPU too, where it takes some speed.
    - `early_stopping`: null trains all epochs and keeps the last weights.
    - `replicas`: trainings of the same recipe that differ in the seed; the first is served.
    """

    epochs: Annotated[int, Field(ge=1, le=1_000_000)]
    batch_size: Positive
    micro_batch_size: Positive | None
    dataset: Named | None
    augment: Augment | None
    loss: Named
    class_weights: ClassWeights | None
    optimizer: Named
    groups: Annotated[list[Group], Field(min_length=1)] | None
    schedule: Named
    clip_norm: Clip | None
    clip_value: Clip | None
    ema: Annotated[float, Field(gt=0, lt=1)] | None
    swa: Swa | None
    precision: Precision
    compile: Choice
    channels_last: Choice
    parallel: Parallel
    deterministic: bool
    early_stopping: EarlyStopping | None
    calibration: CalibrationParams
    replicas: Annotated[int, Field(ge=1, le=1000)]
