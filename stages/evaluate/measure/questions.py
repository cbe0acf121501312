"""The questions that metrics on test rows raise, for the log and for the card."""

from collections.abc import Iterator
from dataclasses import dataclass

from stages.evaluate.measure.baseline import ask_at_constant, measure_constant
from stages.evaluate.measure.coverage import Covered, ask_at_coverage
from stages.evaluate.measure.perfection import ask_at_perfect, is_perfect
from stages.evaluate.measure.predictions import Predicted, values_of
from stages.evaluate.measure.row_weights import count_equal
from stages.evaluate.measure.weighted_metrics import Floats
from stages.features.schema import Array

# Of the predictions: as many may lie a little below 0.
MAX_BELOW = 0.01
# In deviations: a 0 that was standardised in float32 comes back so far off.
ROUNDED = 1e-5


@dataclass(frozen=True)
class Judged:
    """The first metric, and what it was measured on.

    `train_target` (train rows,) and `target` (test rows,) are class codes or values, of which
    `num_classes` is None; `predicted` are those of the test rows, `weights` (test rows,) say how
    much a row counts. `is_tilted`: the model was asked for other probabilities or classes than the
    likely ones (class weights, a threshold); `is_transformed`: its target is transformed.
    """

    name: str
    value: float
    train_target: Array
    target: Array
    predicted: Predicted
    num_classes: int | None
    weights: Floats | None
    is_tilted: bool
    is_transformed: bool


def find_questions(
    judged: Judged,
    covered: Covered | None,
    asked: float | None,
    num_validation: int,
    most_important: str | None,
) -> Iterator[str]:
    """Yield the questions that the first metric and the coverage raise.

    `asked` is the coverage that was asked for, `num_validation` the rows that it was made by, and
    `most_important` the column that the model leans on most.
    """
    is_amount = judged.num_classes is None
    task = "regression" if is_amount else "classification"
    if is_perfect(judged.name, judged.value, task, judged.target):
        yield ask_at_perfect(judged.name, len(judged.target), most_important)
    constant = None
    if not judged.is_tilted:
        targets = judged.train_target, judged.target
        constant = measure_constant(judged.name, *targets, judged.num_classes, judged.weights)
    if constant is not None:
        question = ask_at_constant(judged.name, task, judged.value, constant)
        if question is not None:
            yield question
    if is_amount and not judged.is_transformed:
        question = ask_below_zero(judged.train_target, values_of(judged.predicted))
        if question is not None:
            yield question
    if covered is not None and asked is not None:
        num_test = count_equal(len(judged.target), judged.weights)
        question = ask_at_coverage(covered, asked, num_test, num_validation)
        if question is not None:
            yield question


def ask_below_zero(train_target: Array, predicted: Floats) -> str | None:
    """The question where amounts are predicted below 0 that never are; else None.

    `train_target` (train rows,) and `predicted` (test rows,) are in the target's units.
    """
    num_below = int((predicted < 0).sum())
    known = train_target.astype("float64")
    if num_below <= MAX_BELOW * len(predicted) or known.min() < -ROUNDED * known.std():
        return None
    return (
        f"{num_below:,} of {len(predicted):,} test rows are predicted below 0, as no train row is: "
        "is the target never below it? Then prepare.target_transform: log1p keeps predictions and "
        "intervals above -1"
    )
