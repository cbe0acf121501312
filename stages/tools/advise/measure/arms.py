"""A change of a recipe that is tried, and the recipe that it changes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from stages.common.config import ClassSpec, Overrides
from stages.common.errors import UserError
from stages.model.model import ModelSpec, make_model, make_spec
from stages.tools.advise.measure.rows import Change, Pool
from stages.training.compatibility import check_calibration
from stages.training.optim.preflight import check_names
from stages.training.params import TrainParams
from stages.training.recipe import override_model, override_train

Axis = Literal["data", "model", "loss", "optimizer"]
AXES: tuple[Axis, ...] = ("data", "model", "loss", "optimizer")
LR, MODEL = "train.optimizer.lr", "build.model"


@dataclass(frozen=True)
class Arm:
    """A change. Of those of one `topic` at most one is advised.

    `overrides` are keys of params.yaml with the values that the training has; `applies` those that
    are to be written, the same unless said. `change` is what is done with the rows, `mark` tells
    apart those of one title. Of more than one draw it is the mean prediction of as many trainings
    of the recipe as it is, by several seeds.
    """

    axis: Axis
    topic: str
    title: str
    overrides: Overrides = field(default_factory=dict)
    change: Change | None = None
    applies: Mapping[str, Any] = field(default_factory=dict)
    mark: str = ""
    num_draws: int = 1

    @property
    def name(self) -> str:
        """Its name in the journal."""
        return f"{self.topic}: {self.title} {self.mark}".rstrip()

    @property
    def trains(self) -> bool:
        """Check whether a training is needed; what is fitted on its scores needs none."""
        return self.change is not None or any(
            not path.startswith("train.calibration") for path in self.overrides
        )


INCUMBENT = Arm("model", "", "as it is")


@dataclass(frozen=True)
class Incumbent:
    """The recipe as it stands: the section `train` as a tree, the model, the metric's name.

    `notes` say what of it is not as in params.yaml; `is_averaged`: there it is a mean of several.
    """

    tree: Mapping[str, Any]
    spec: ModelSpec
    pool: Pool
    metric: str
    notes: Sequence[str] = ()
    is_averaged: bool = False

    def recipe(self, overrides: Overrides) -> tuple[TrainParams, ModelSpec]:
        """The recipe with `overrides`. Raises UserError where they make none."""
        own = {k: v for k, v in overrides.items() if k.startswith("train.")}
        train, schema = override_train(self.tree, own), self.pool.schema
        if MODEL in overrides:
            return train, make_spec(ClassSpec(**overrides[MODEL]), schema)
        parts = {k: v for k, v in overrides.items() if k.startswith(f"{MODEL}.")}
        return train, override_model(self.spec, parts, schema)

    def check(self, overrides: Overrides) -> None:
        """Raise UserError where the overrides make no recipe that can be trained."""
        train, spec = self.recipe(overrides)
        target, by_row = self.pool.schema.target, self.pool.schema.weight is not None
        check_names(train, target.task, target.classes, lambda: make_model(spec, 0), by_row=by_row)
        make_model(spec, 0)
        classes = len(target.classes or ())
        if problems := check_calibration(train.calibration, target.task, classes):
            raise UserError(*problems)


def set_keys(axis: Axis, topic: str, overrides: Overrides) -> Arm:
    """The arm that sets keys; its title is how they would stand in params.yaml."""
    title = ", ".join(f"{path}: {spell(value)}" for path, value in overrides.items())
    return Arm(axis, topic, title, overrides, None, overrides)


def spell(value: object) -> str:
    """A value as it stands in params.yaml."""
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case Mapping():
            return "{" + ", ".join(f"{k}: {spell(v)}" for k, v in value.items()) + "}"
        case list():
            return "[" + ", ".join(map(spell, value)) + "]"
        case float():
            return f"{value:.6g}"
        case _:
            return str(value)
