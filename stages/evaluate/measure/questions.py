"""The questions that metrics on test rows raise, for the log and for the card."""

from collections.abc import Iterator

from stages.evaluate.measure.baseline import ask_at_constant, measure_constant
from stages.evaluate.measure.coverage import Covered, ask_at_coverage
from stages.evaluate.measure.perfection import ask_at_perfect, is_perfect
from stages.evaluate.measure.predictions import Predicted, values_of
from stages.evaluate.measure.weighted_metrics import Floats
from stages.features.schema import Array

# Of the predictions: as many may lie a little below 0.
MAX_BELOW = 0.01


def find_questions(
    name: str,
    value: float,
    task: str,
    train_target: Array,
    target: Array,
    predicted: Predicted,
    *,
    weights: Floats | None,
    covered: Covered | None,
    asked: float | None,
    most_important: str | None,
) -> Iterator[str]:
    """Yield the questions that the first metric, `name`, and the coverage raise.

    `train_target` (train rows,) and `target` (test rows,) are class codes or values, `predicted`
    are those of the test rows, `weights` (test rows,) say how much a row counts; `asked` is the
    coverage that was asked for, and `most_important` the column that the model leans on most.
    """
    if is_perfect(name, value, task, target):
        yield ask_at_perfect(name, len(target), most_important)
    constant = measure_constant(name, task, train_target, target, weights)
    if constant is not None and (question := ask_at_constant(name, task, value, constant)):
        yield question
    if task == "regression" and (question := ask_below_zero(train_target, values_of(predicted))):
        yield question
    if covered is None or asked is None:
        return
    if question := ask_at_coverage(covered, asked):
        yield question


def ask_below_zero(train_target: Array, predicted: Floats) -> str | None:
    """The question where amounts are predicted below 0 that never are; else None.

    `train_target` (train rows,) and `predicted` (test rows,) are in the target's units.
    """
    num_below = int((predicted < 0).sum())
    if num_below <= MAX_BELOW * len(predicted) or train_target.min() < 0:
        return None
    return (
        f"{num_below:,} of {len(predicted):,} test rows are predicted below 0, as no train row is: "
        "is the target never below it? Then prepare.target_transform: log1p keeps predictions and "
        "intervals above -1"
    )
