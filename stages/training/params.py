"""The section `train` of `params.yaml`."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Discriminator, Field, Tag, model_validator

from stages.common.config import MAX_COUNT, MAX_NUMBER, ClassSpec, Config, Value
from stages.common.yamlfile import yaml_text

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
        others = ", ".join(yaml_text(name) for name in weights if not isinstance(name, str))
        raise ValueError(f"names beside others that are text must be in quotes: {others}")
    return {yaml_text(k) if isinstance(k, bool | int) else k: v for k, v in weights.items()}


def _tag(weights: object) -> str:
    """Which of the two is meant, so that a mistake is told in its terms alone."""
    return "by name" if isinstance(weights, Mapping) else "rule"


ByName = Annotated[dict[str, Weight], Field(min_length=1), BeforeValidator(_spell_keys)]
ClassWeights = Annotated[
    Annotated[Literal["balanced"], Tag("rule")] | Annotated[ByName, Tag("by name")],
    Discriminator(_tag),
]


class EnsembleMember(Config):
    """One of the recipes whose weighted mean is served."""

    weight: Annotated[float, Field(ge=1e-6, le=1e6)]
    """The share of its prediction in the mean, beside the weights of the others."""
    set: dict[str, Value]
    """The keys that it changes in this file, by paths under `build.model` and `train`, as
    `tune.space` has them: `{train.optimizer.lr: 1e-3, build.model.width: 64}`.
    """


def _tag_ensemble(ensemble: object) -> str:
    return "proposed" if isinstance(ensemble, str) else "listed"


Members = Annotated[list[EnsembleMember], Field(min_length=1, max_length=100)]
AskedEnsemble = Annotated[
    Annotated[Literal["tune"], Tag("proposed")] | Annotated[Members, Tag("listed")],
    Discriminator(_tag_ensemble),
]


class EarlyStopping(Config):
    """Which epoch's weights are kept, and when to stop."""

    metric: Literal["loss", "accuracy", "rmse"]
    """The validation metric that picks the best epoch; `accuracy` for classes, `rmse` for
    values.
    """
    patience: Positive | None
    """The number of epochs to wait for a better one; null: all epochs are trained, and the best
    one's weights are kept.
    """


class CalibrationParams(Config):
    """The calibration, fitted on validation rows after training; classification alone."""

    temperature: bool
    """If true, scores are divided by a number, so that probabilities are as sure as they are
    right.
    """
    threshold: ThresholdMetric | None
    """Of two classes: the metric for which the probability is chosen above which the second one
    is predicted; `f1` is that of the second. null: the likelier class is predicted.
    """


class Augment(Config):
    """Random variations of the train rows, new in each epoch; 0: none."""

    flip: Annotated[float, Field(ge=0, le=1)] = 0.0
    """The share of images that are mirrored left to right."""
    shift: Annotated[int, Field(ge=0, le=10_000)] = 0
    """The number of pixels that an image moves at most, each way."""
    noise: Annotated[float, Field(ge=0, le=1000)] = 0.0
    """The standard deviation of what is added to numeric columns and images, which are
    standardised.
    """
    crop: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """The share of an image that is cut off at most; what is left is brought to the full size, up
    to a third wider or narrower than it was.
    """
    turn: Annotated[float, Field(ge=0, le=180)] = 0.0
    """The degrees that an image is turned at most, each way."""
    colour: Annotated[float, Field(ge=0, le=1)] = 0.0
    """By how much the contrast of each channel changes at most, as a share, and its brightness, in
    standard deviations.
    """
    cutout: Annotated[float, Field(ge=0, le=1)] = 0.0
    """The side of a square of an image that is set to its mean, as a share of the shorter side."""


class Group(Config):
    """Weights that a pattern names."""

    match: Annotated[str, Field(min_length=1)]
    """A pattern of names, such as `output.*`; the first group that matches a weight has it."""
    lr: Rate | None
    """The group's own learning rate; null: the optimizer's."""
    frozen: bool
    """If true, these weights stay as they are."""

    @model_validator(mode="after")
    def _move_or_not(self) -> Self:
        if self.frozen and self.lr is not None:
            raise ValueError("frozen weights have no learning rate: make lr null, or frozen false")
        return self


class Swa(Config):
    """The mean of the weights at the ends of epochs."""

    start: Positive
    """The epoch from whose end on weights are averaged; the first is 1."""
    lr: Rate | None
    """The learning rate from the beginning of that epoch on; null: the schedule continues."""


class TrainParams(Config):
    """The training."""

    epochs: Annotated[int, Field(ge=1, le=1_000_000)]
    """The number of times to go over the train rows."""
    batch_size: Positive
    """Rows of a step."""
    micro_batch_size: Positive | None
    """Rows that go through the model at once, where a batch does not fit the memory: the same
    training within rounding. null: the whole batch.
    """
    dataset: ClassSpec | None
    """Train rows from code of your own: the name of a file in `stages/zoo/datasets/`, and its
    arguments. null: the rows as prepared.
    """
    augment: Augment | None
    """Random variations of the train rows, new in each epoch, such as `{flip: 0.5, shift: 1, noise:
    0.1}`; null: not at all.
    """
    loss: ClassSpec
    """A class of `torch.nn` or of `stages/zoo/losses.py`, and its arguments: `{name:
    CrossEntropyLoss}`.
    """
    objective: ClassSpec
    """The number that a step makes less, of model and loss: the name of a file in
    `stages/zoo/objectives/`, and its arguments: `{name: supervised}` is the loss of the rows as
    they are.
    """
    class_weights: ClassWeights | None
    """The weight of the rows of a class: `{rare: 3}` by the name of the class, or `balanced`:
    the rarer a class, the more. null: all rows alike.
    """
    optimizer: ClassSpec
    """A class of `torch.optim`, and its arguments: `{name: AdamW, lr: 3e-3, weight_decay:
    0.01}`.
    """
    groups: Annotated[list[Group], Field(min_length=1)] | None
    """Weights by patterns of their names, with a learning rate of their own or frozen: `[{match:
    'output.*', lr: 1e-3, frozen: false}]`. null: all alike.
    """
    schedule: ClassSpec
    """A class of `torch.optim.lr_scheduler` or of `stages/zoo/schedules.py`, and its arguments:
    `{name: CosineAnnealingLR}`.
    """
    clip_norm: Clip | None
    """The norm that a longer gradient is scaled down to; null: no limit."""
    clip_value: Clip | None
    """Each number of the gradient is then cut to within ± this; null: no limit."""
    ema: Annotated[float, Field(gt=0, lt=1)] | None
    """The decay per step of a moving average of the weights, such as 0.999, which is validated
    and kept in place of the last weights; null: none.
    """
    swa: Swa | None
    """The mean of the weights at the ends of the last epochs, which is kept: `{start: 20, lr:
    1e-3}`. Not together with `ema`. null: none.
    """
    precision: Precision
    """The digits that the forward pass computes in; `auto`: bf16 on a GPU that has it, else
    fp32.
    """
    compile: Choice
    """If true, torch writes code for this model; `auto`: on a GPU, where the training is long
    enough to repay it.
    """
    channels_last: Choice
    """The order of images in memory; `auto`: channels last on a GPU in half precision."""
    parallel: Parallel
    """The work of several processes: each holds the whole model (`ddp`), or they divide its weights
    (`fsdp`), for a model that one device does not hold. The saved model is the same file.
    """
    deterministic: bool
    """If true, a GPU gives the same bits every time, at some cost in speed.

    A CPU does so anyway.
    """
    early_stopping: EarlyStopping | None
    """The end of the training, and the epoch whose weights are kept; null: all epochs are trained,
    and the last weights are kept.
    """
    calibration: CalibrationParams
    """The calibration, fitted on the validation rows once the weights are there, to the same
    weights; classification alone.
    """
    folds: Annotated[int, Field(ge=2, le=100)] | None
    """The number of trainings that each validate on another part of the train and validation rows;
    the mean of their predictions is served. For small tables. null: one training.
    """
    ensemble: AskedEnsemble | None
    """Recipes that are all trained, and whose weighted mean is served: `tune`, the members that the
    search proposes, or a list of them, each on top of this file: `[{weight: 2, set: {}}, {weight:
    1, set: {build.model.width: 64}}]`. null: one recipe, with tune's best trial on top.
    """
    replicas: Annotated[int, Field(ge=1, le=1000)]
    """The number of trainings of the same recipe that differ in the seed; 3 or more tell a change
    from luck. The first one is served.
    """
    packed: Choice
    """If true, replicas, folds and trials take their steps together, as one batched program; each
    comes to what it comes to alone, within rounding. `auto`: where that pays.
    """
