"""The reason why a loss does not fall: the rate, the model, or rows that don't tell the label.

A model and a rate that work learn 32 rows by heart within some hundred steps. A forest of decision
trees, which has no rate at all, tells whether the rows hold what is to be learned.
"""

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from stages.features.schema import WORDS, Array, load_arrays
from stages.tools.diagnose import by_heart
from stages.tools.diagnose.by_heart import of_few_rows, try_rate
from stages.tools.diagnose.measured import Measured, training_of
from stages.tools.diagnose.sample import draw_split
from stages.tools.training_tool import Training
from stages.training.recipe import PREPARED

# Of the loss of the best constant answer.
BY_HEART = 0.2
FACTORS = (10.0, 100.0, 1000.0, 0.1, 0.01)
MAX_SECONDS = 25.0
FOREST_ROWS = 2000
MARGIN = 0.05
LEAVES = 100
# Of its own errors, above 0. A forest of rows that tell nothing comes to 0.7 of these by luck.
SURE = 1.5
SAME = "the model predicts the same for every row"
LOW = "a rate that is too low"
SHUFFLED = "labels that do not belong to their rows"


@dataclass(frozen=True)
class Score:
    """The score of a forest on rows that it has not seen, and that of the best constant answer.

    `errors`: by how many of its own standard errors what it says goes with the truth.
    """

    forest: float
    guess: float
    errors: float

    @property
    def tells(self) -> bool:
        """Check whether the rows tell the target, by the score or by what is surer than luck.

        Of a rare class the score hardly moves, and of values that are hard to predict neither.
        """
        above = self.forest >= self.guess + MARGIN * (1 - self.guess)
        return above or self.errors >= SURE


def measure() -> Iterator[Measured]:
    """Learn 32 rows by heart; if that fails with other rates, and if not ask the rows."""
    started, training = time.monotonic(), training_of()
    few = of_few_rows(training)
    num_rows, num_steps = len(few.data.train), by_heart.NUM_STEPS
    own = try_rate(few, 1.0)
    rate = training.params.optimizer.arguments.get("lr")
    if own.fell_to <= BY_HEART:
        said = f"the model learns {num_rows} rows by heart in {num_steps} steps"
        yield Measured("ok", f"{said} (loss {own.first:.3g} to {own.last:.3g})")
        yield from ask_the_rows(training)
        return
    said = f"in {num_steps} steps the loss of {num_rows} rows goes from {own.first:.3g}"
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


def ask_the_rows(training: Training) -> Iterator[Measured]:
    """Yield whether a forest learns from the train rows what holds for those of validation."""
    train, validation = (load_arrays(PREPARED / name) for name in ("train", "validation"))
    labels = len(training.data.classes) > 0
    score = forest_score(train, validation, classes=labels)
    what = "of the validation rows right" if labels else "of the spread explained"
    said = f"a forest of decision trees gets {score.forest:.0%} {what}"
    said += f", the best guess {score.guess:.0%}"
    if score.tells:
        yield Measured("ok", f"{said}: the rows tell the target")
    elif {"image", *WORDS} & train.keys():
        # A forest asks one pixel, or one place of a text, at a time.
        yield Measured("note", f"{said}; of images and texts that may say little", SHUFFLED)
    else:
        yield Measured("wrong", f"{said}: these rows do not tell the target", SHUFFLED)


def forest_score(
    train: Mapping[str, Array], validation: Mapping[str, Array], *, classes: bool
) -> Score:
    """The score of a forest, of rows that are drawn from both splits."""
    from sklearn.ensemble import ExtraTreesClassifier, ExtraTreesRegressor

    kind = ExtraTreesClassifier if classes else ExtraTreesRegressor
    (known, rows), (asked, of_asked) = (draw_split(s, FOREST_ROWS) for s in (train, validation))
    answers, truth = train["target"][rows], validation["target"][of_asked]
    # Leaves of one row each would learn the noise where the target is hard to predict.
    leaf = max(1, len(rows) // LEAVES)
    forest = kind(n_estimators=50, min_samples_leaf=leaf, random_state=0, n_jobs=1)
    forest.fit(known, answers)
    score = float(forest.score(asked, truth))
    if not classes:
        return Score(score, 0.0, count_errors(forest.predict(asked)[:, None], truth[:, None]))
    values, counts = np.unique(answers, return_counts=True)
    guess = float((truth == values[counts.argmax()]).mean())
    is_of = truth[:, None] == forest.classes_[None, :]
    return Score(score, guess, count_errors(forest.predict_proba(asked), is_of))


def count_errors(said: Array, truth: Array) -> float:
    """The standard errors by which the covariance of both, (rows, outputs), lies above 0.

    It is that of predictions which have nothing to do with the truth, however rare a class is.
    """
    said, truth = (np.asarray(each, np.float64) for each in (said, truth))
    together = ((said - said.mean(axis=0)) * (truth - truth.mean(axis=0))).sum(axis=1)
    error = float(together.std()) / np.sqrt(len(together))
    return float(together.mean()) / error if error > 0 else 0.0
