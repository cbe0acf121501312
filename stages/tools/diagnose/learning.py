"""The reason why a loss does not fall: the rate, the model, or rows that don't tell the label.

A model and a rate that work learn 32 rows by heart within some hundred steps. A forest of decision
trees, which has no rate at all, tells whether the rows hold what is to be learned.
"""

import copy
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from stages.common.config import ClassSpec
from stages.features.schema import APART, Array, load_arrays
from stages.tools.diagnose.measured import Measured, quiet, training_of
from stages.tools.training_tool import Training
from stages.training.data.source import TensorSource
from stages.training.recipe import PREPARED
from stages.training.state import State
from stages.training.step.divergence import DivergedError

NUM_ROWS, NUM_STEPS = 32, 200
# Of the loss of the best constant answer.
BY_HEART = 0.2
FACTORS = (10.0, 100.0, 1000.0, 0.1, 0.01)
MAX_SECONDS = 25.0
FOREST_ROWS = 2000
MARGIN = 0.05
SAME = "the model predicts the same for every row"
LOW = "a rate that is too low"
SHUFFLED = "labels that do not belong to their rows"


@dataclass(frozen=True)
class Trial:
    """A short training: the loss of its first step and of its last one."""

    first: float
    last: float

    @property
    def fell_to(self) -> float:
        """The last loss as a share of the first."""
        return self.last / self.first if self.first > 0 and math.isfinite(self.last) else math.inf


def measure() -> Iterator[Measured]:
    """Learn 32 rows by heart; if that fails with other rates, and if not ask the rows."""
    started, training = time.monotonic(), training_of()
    few = of_few_rows(training)
    own = try_rate(few, 1.0)
    rate = training.params.optimizer.arguments.get("lr")
    if own.fell_to <= BY_HEART:
        said = f"the model learns {NUM_ROWS} rows by heart in {NUM_STEPS} steps"
        yield Measured("ok", f"{said} (loss {own.first:.3g} to {own.last:.3g})")
        yield from ask_the_rows(training)
        return
    said = f"in {NUM_STEPS} steps the loss of {NUM_ROWS} rows goes from {own.first:.3g}"
    said = f"{said} to {own.last:.3g}"
    for factor in FACTORS:
        if rate is None or time.monotonic() - started > MAX_SECONDS:
            break
        other = try_rate(few, factor)
        if other.fell_to <= min(BY_HEART, 0.5 * own.fell_to):
            better = f"at {rate * factor:.1e} to {other.last:.3g}"
            what = f"{said}, and {better}; train.optimizer.lr is {rate:g}"
            cause = LOW if factor > 1 else SAME
            yield Measured("wrong", what, cause, (f"train.optimizer.lr: {rate * factor:.1e}",))
            return
    what = f"{said}, and no better at other rates: it can't learn even these by heart"
    yield Measured("wrong", f"{what}, so look at the model", SAME)


def of_few_rows(training: Training) -> Training:
    """The same training on its first rows alone, all in each step, at a rate that stays."""
    batch, target = training.data.train.take(slice(0, NUM_ROWS))
    few = replace(training.data, train=TensorSource(batch, target))
    plain = {
        "batch_size": NUM_ROWS,
        "micro_batch_size": None,
        "dataset": None,
        "augment": None,
        "ema": None,
        "swa": None,
        "schedule": ClassSpec(name="ConstantLR", factor=1.0),
    }
    return replace(training, data=few, params=training.params.model_copy(update=plain))


def try_rate(training: Training, factor: float) -> Trial:
    """Train a copy of the model with so many times the rate."""
    optimizer = training.params.optimizer
    named = optimizer.model_dump()
    if "lr" in named:
        named["lr"] = named["lr"] * factor
    params = training.params.model_copy(update={"optimizer": ClassSpec(**named)})
    losses: list[float] = []

    def after(state: State) -> None:
        rows = float(state.totals.rows)
        losses.append(float(state.totals.loss) / rows if rows else math.inf)

    model = copy.deepcopy(training.model)
    try:
        with quiet():
            replace(training, model=model, params=params).take_steps(
                NUM_STEPS, lambda _: None, after
            )
    except DivergedError:
        losses.append(math.inf)
    return Trial(losses[0], losses[-1])


def ask_the_rows(training: Training) -> Iterator[Measured]:
    """Yield whether a forest learns from the train rows what holds for those of validation."""
    train, validation = (load_arrays(PREPARED / name) for name in ("train", "validation"))
    labels = len(training.data.classes) > 0
    score, guess = forest_score(train, validation, classes=labels)
    what = "of the validation rows right" if labels else "of the spread explained"
    said = f"a forest of decision trees gets {score:.0%} {what}, the best guess {guess:.0%}"
    if score < guess + MARGIN * (1 - guess):
        yield Measured("wrong", f"{said}: these rows do not tell the target", SHUFFLED)
    else:
        yield Measured("ok", f"{said}: the rows tell the target")


def forest_score(
    train: dict[str, Array], validation: dict[str, Array], *, classes: bool
) -> tuple[float, float]:
    """The score of a forest on validation, and that of the best constant answer."""
    from sklearn.ensemble import ExtraTreesClassifier, ExtraTreesRegressor

    kind = ExtraTreesClassifier if classes else ExtraTreesRegressor
    forest = kind(n_estimators=50, random_state=0, n_jobs=1)
    known, asked = flatten(train), flatten(validation)
    answers, truth = train["target"][:FOREST_ROWS], validation["target"][:FOREST_ROWS]
    forest.fit(known, answers)
    score = float(forest.score(asked, truth))
    if not classes:
        return score, 0.0
    values, counts = np.unique(answers, return_counts=True)
    return score, float((truth == values[counts.argmax()]).mean())


def flatten(arrays: dict[str, Array]) -> Array:
    """The features of the first rows, all kinds beside each other (rows, numbers)."""
    parts = [
        np.asarray(array[:FOREST_ROWS], np.float32).reshape(min(len(array), FOREST_ROWS), -1)
        for kind, array in arrays.items()
        if kind not in APART
    ]
    return np.concatenate(parts, axis=1)
