"""The changes of keys that are tried, by the axis that they lie on."""

import inspect
from collections.abc import Callable, Iterator, Mapping
from itertools import zip_longest
from typing import Any, Literal

import numpy as np

from stages.common.config import ClassSpec, Overrides
from stages.common.errors import UserError
from stages.features.target_scale import has_long_tail
from stages.model.model import ZOO, arguments_class, make_model, make_spec
from stages.tools.advise.measure.arms import LR, MODEL, Arm, Incumbent, set_keys
from stages.tools.advise.measure.rows import Change, Pool
from stages.training.optim.registry import resolve
from stages.training.params import TrainParams
from stages.tune.portfolio import read_portfolio

# Of the learning rate, wide enough to find one that is far off.
RATES = (8, 1 / 8, 32, 1 / 32, 2, 1 / 2)
# Of a wider model or another one: a rate of its own may suit it.
OWN_RATES = (1 / 3, 3)
# Of an ensemble: as many seeds as luck is known by.
NUM_MEMBERS = 3
# Metrics of two classes that a threshold can be chosen by, and those that a temperature moves.
BY_THRESHOLD = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced_accuracy",
    "f1": "f1",
    "f1_macro": "f1",
    "matthews_corrcoef": "matthews_corrcoef",
}
BY_TEMPERATURE = ("log_loss", "brier", "ece")
TRANSFORM = "prepare.target_transform"


def list_arms(incumbent: Incumbent) -> list[Arm]:
    """All changes of keys that make a recipe, those of each axis in turn: the likeliest first."""
    makers: list[Callable[[Incumbent], Iterator[Arm]]] = [
        optimizer_arms,
        model_arms,
        loss_arms,
        data_arms,
    ]
    found: list[Arm] = []
    by_axis = [list(make(incumbent)) for make in makers]
    for arm in (arm for arms in zip_longest(*by_axis) for arm in arms if arm is not None):
        try:
            incumbent.check(arm.overrides)
        except UserError:
            # Of this model, loss or task there is no such change.
            continue
        found.append(arm)
    return found


def optimizer_arms(incumbent: Incumbent) -> Iterator[Arm]:
    """Learning rate, length, decay, schedule, batch, averages of the weights."""
    train, _ = incumbent.recipe({})
    lr = find_rate(train)
    if lr is not None:
        for factor in RATES:
            yield set_keys("optimizer", LR, {LR: scaled(lr, factor)})
    yield set_keys("optimizer", "train.epochs", {"train.epochs": train.epochs * 2})
    decay = train.optimizer.arguments.get("weight_decay")
    for value in (0.1, 0.01) if not decay else (scaled(decay, 10), 0.0):
        path = "train.optimizer.weight_decay"
        yield set_keys("optimizer", path, {path: value})
    for schedule in (
        {"name": "CosineAnnealingLR"},
        {"name": "ConstantLR", "factor": 1.0},
        {"name": "warmup_cosine"},
    ):
        if schedule["name"] != train.schedule.name:
            yield set_keys("optimizer", "train.schedule", {"train.schedule": schedule})
    for size in (train.batch_size * 2, train.batch_size // 2):
        if 1 <= size <= len(incumbent.pool) // 2:
            yield set_keys("optimizer", "train.batch_size", {"train.batch_size": size})
    if train.swa is None:
        ema = 0.99 if train.ema is None else None
        yield set_keys("optimizer", "train.ema", {"train.ema": ema})
    if train.clip_norm is None:
        yield set_keys("optimizer", "train.clip_norm", {"train.clip_norm": 1.0})
    if train.epochs > 1:
        yield set_keys("optimizer", "train.epochs", {"train.epochs": (train.epochs + 1) // 2})


def model_arms(incumbent: Incumbent) -> Iterator[Arm]:
    """Size, depth, dropout, embeddings, other families; of larger ones with rates of their own."""
    train, spec = incumbent.recipe({})
    lr, arguments = find_rate(train), spec.arguments
    defaults = arguments_class(spec.name)().model_dump()
    for name in ("width", "channels"):
        if name not in arguments:
            continue
        path, now = f"{MODEL}.{name}", arguments[name]
        values = [resized(now, 4), defaults[name], resized(now, 2), resized(now, 0.5)]
        for number, value in enumerate(values):
            if value != now and value not in values[:number]:
                yield set_keys("model", path, {path: value})
                for rate in own_rates(lr) if number < 2 else ():
                    yield set_keys("model", path, {path: value, LR: rate})
    if not incumbent.is_averaged:
        title = f"train.ensemble of {NUM_MEMBERS} trainings of this recipe"
        members = [{"weight": 1.0, "set": {}}] * NUM_MEMBERS
        applies = {"train.ensemble": members}
        yield Arm("model", "train.ensemble", title, {}, None, applies, num_draws=NUM_MEMBERS)
    yield from family_arms(incumbent, train)
    for name in ("layers", "depth"):
        if name in arguments:
            path = f"{MODEL}.{name}"
            for step in (1, -1):
                yield set_keys("model", path, {path: arguments[name] + step})
    if "dropout" in arguments:
        path = f"{MODEL}.dropout"
        for dropout in (0.1, 0.3, 0.0):
            if dropout != arguments["dropout"]:
                yield set_keys("model", path, {path: dropout})
    for name in ("embedding", "members"):
        if name in arguments:
            path = f"{MODEL}.{name}"
            yield set_keys("model", path, {path: arguments[name] * 2})


def family_arms(incumbent: Incumbent, train: TrainParams) -> Iterator[Arm]:
    """Other models of the zoo that take the data, as the portfolio knows them or by default."""
    schema, lr = incumbent.pool.schema, find_rate(train)
    for path in sorted(ZOO.glob("[!_]*.py")):
        if path.stem == incumbent.spec.name:
            continue
        try:
            spec = make_spec(ClassSpec(name=path.stem), schema)
            make_model(spec, 0)
        except UserError:
            continue
        model = {"name": spec.name, **spec.arguments}
        topic = f"{MODEL}.name: {spec.name}"
        yield set_keys("model", topic, {MODEL: {"name": spec.name}})
        for overrides in _of_portfolio(incumbent, model):
            yield set_keys("model", topic, overrides)
            break
        else:
            for rate in own_rates(lr):
                yield set_keys("model", topic, {MODEL: {"name": spec.name}, LR: rate})


def _of_portfolio(incumbent: Incumbent, model: Mapping[str, Any]) -> Iterator[Overrides]:
    current = {f"{MODEL}.{name}": value for name, value in model.items()}
    watched = incumbent.tree["early_stopping"] or {}
    task = incumbent.pool.schema.target.task

    def gather(overrides: Overrides) -> Overrides:
        own = {k.removeprefix(f"{MODEL}."): v for k, v in overrides.items() if k.startswith(MODEL)}
        others = {k: v for k, v in overrides.items() if not k.startswith(MODEL)}
        return {MODEL: {**model, **own}, **others}

    def check(overrides: Overrides) -> None:
        incumbent.check(gather(overrides))

    entries = read_portfolio(model["name"], task, current, watched.get("metric", "loss"), check)
    for overrides in entries.values():
        yield gather(overrides)


def loss_arms(incumbent: Incumbent) -> Iterator[Arm]:
    """Smoothing, weights of classes, other losses, transforms; threshold and temperature."""
    train, _ = incumbent.recipe({})
    if incumbent.pool.schema.target.task == "regression":
        yield from transform_arms(incumbent.pool)
        for loss in ("HuberLoss", "MSELoss", "L1Loss"):
            if loss != train.loss.name:
                yield set_keys("loss", "train.loss", {"train.loss": {"name": loss}})
        return
    weights = "balanced" if train.class_weights is None else None
    yield set_keys("loss", "train.class_weights", {"train.class_weights": weights})
    num_classes = len(incumbent.pool.schema.target.classes or ())
    threshold = BY_THRESHOLD.get(incumbent.metric)
    if num_classes == 2 and threshold and train.calibration.threshold != threshold:
        path = "train.calibration.threshold"
        yield set_keys("loss", path, {path: threshold})
    if incumbent.metric in BY_TEMPERATURE and not train.calibration.temperature:
        path = "train.calibration.temperature"
        yield set_keys("loss", path, {path: True})
    plain: dict[str, object] = {"name": "CrossEntropyLoss"}
    now = {"name": train.loss.name, **train.loss.arguments}
    for tree in ({**plain, "label_smoothing": 0.1}, plain, {"name": "focal"}):
        if tree != now and (tree["name"] != train.loss.name or len(tree) != len(now)):
            yield set_keys("loss", "train.loss", {"train.loss": tree})


def transform_arms(pool: Pool) -> Iterator[Arm]:
    """The logarithm of a target with a long tail, which is learned in its place; or none."""
    target: Literal["log1p", "null"] = "log1p" if pool.data.transform is None else "null"
    if target == "log1p" and not has_long_tail(
        pool.target(np.arange(len(pool))).astype(np.float64)
    ):
        return
    applies = {TRANSFORM: None if target == "null" else target}
    yield Arm("loss", TRANSFORM, f"{TRANSFORM}: {target}", {}, Change(target=target), applies)


def data_arms(incumbent: Incumbent) -> Iterator[Arm]:
    """Variations of the rows, new in each epoch. What else the data axis has is in `data.py`."""
    train, _ = incumbent.recipe({})
    kinds = {feature.kind for feature in incumbent.pool.schema.features}
    if train.augment is not None or train.dataset is not None:
        return
    flip, shift = {"flip": 0.5, "shift": 0, "noise": 0.0}, {"flip": 0.0, "shift": 1, "noise": 0.0}
    noise = {"flip": 0.0, "shift": 0, "noise": 0.1}
    for augment in (shift, flip) if "image" in kinds else (noise,) if "numeric" in kinds else ():
        yield set_keys("data", "train.augment", {"train.augment": augment})


def find_rate(train: TrainParams) -> float | None:
    """The learning rate; None where the optimizer has none as a number."""
    rate = train.optimizer.arguments.get("lr")
    if rate is None:
        optimizer_class, _ = resolve("optimizer", train.optimizer)
        rate = inspect.signature(optimizer_class).parameters["lr"].default
    return float(rate) if isinstance(rate, int | float) else None


def own_rates(lr: float | None) -> list[float]:
    """The rates that a model of another size is tried with, beside that of the recipe."""
    return [] if lr is None else [scaled(lr, factor) for factor in OWN_RATES]


def scaled(value: float, factor: float) -> float:
    """A multiple, to two digits."""
    return float(f"{value * factor:.2g}")


def resized(value: int | list[int], factor: float) -> int | list[int]:
    """A width, or those of several layers, by a factor; 1 at least."""
    if isinstance(value, list):
        return [max(1, int(each * factor)) for each in value]
    return max(1, int(np.floor(value * factor)))
