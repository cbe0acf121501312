"""The questions that metrics on test rows raise, for the log and for the card."""

from collections.abc import Iterator

from stages.evaluate.measure.baseline import ask_at_constant, measure_constant
from stages.evaluate.measure.coverage import Covered, ask_at_coverage
from stages.evaluate.measure.perfection import ask_at_perfect, is_perfect
from stages.evaluate.measure.weighted_metrics import Floats
from stages.features.schema import Array


def find_questions(
    name: str,
    value: float,
    task: str,
    train_target: Array,
    target: Array,
    *,
    weights: Floats | None,
    covered: Covered | None,
    asked: float | None,
    most_important: str | None,
) -> Iterator[str]:
    """Yield the questions that the first metric, `name`, and the coverage raise.

    `train_target` (train rows,) and `target` (test rows,) are class codes or values, `weights`
    (test rows,) say how much a row counts; `asked` is the coverage that was asked for, and
    `most_important` the column that the model leans on most.
    """
    if is_perfect(name, value, task, target):
        yield ask_at_perfect(name, len(target), most_important)
    constant = measure_constant(name, task, train_target, target, weights)
    if constant is not None and (question := ask_at_constant(name, task, value, constant)):
        yield question
    if covered is None or asked is None:
        return
    if question := ask_at_coverage(covered, asked):
        yield question
