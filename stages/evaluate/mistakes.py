"""What a model gets wrong: each class by itself, and the rows that it was surest about."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from stages.common.files import rounded, write_csv
from stages.common.schema import Array, Class
from stages.evaluate.bootstrap import wilson
from stages.evaluate.weighted import Codes, Floats

MAX_MISTAKES = 100
OF_CLASS = (
    *("class", "rows", "predicted", "recall", "recall_low", "recall_high"),
    *("precision", "precision_low", "precision_high", "f1"),
)
OF_VALUES = ("target", "prediction", "residual")
OF_CLASSES = ("target", "prediction", "probability", "probability_of_target")


def write_classes(
    path: Path, classes: Sequence[Class] | None, target: Array, predicted: Floats
) -> None:
    """A line for each class, with Wilson's intervals; see `compute_metrics` for the arguments.

    The shares of a class that no row has, or none is predicted to have, are empty. Of values,
    the header alone.
    """
    lines: list[tuple[object, ...]] = []
    if classes is not None:
        codes, guessed = target.astype(np.int64), predicted.argmax(axis=1)
        for code, name in enumerate(classes):
            actual, taken = int((codes == code).sum()), int((guessed == code).sum())
            right = int(((codes == code) & (guessed == code)).sum())
            f1 = rounded(2 * right / (actual + taken)) if actual + taken else None
            lines.append((name, actual, taken, *_share(right, actual), *_share(right, taken), f1))
    write_csv(path, OF_CLASS, lines)


def _share(right: int, of: int) -> tuple[float | None, ...]:
    return (rounded(right / of), *wilson(right / of, of)) if of else (None, None, None)


def write_mistakes(
    path: Path,
    key: str,
    keys: Array,
    classes: Sequence[Class] | None,
    target: Array,
    predicted: Floats,
) -> None:
    """At most 100 rows: the wrong ones by the probability of what was said, or the values by
    the distance, largest first. `key` is the name of `keys` (rows,), which name the rows.
    """
    if classes is None:
        write_csv(path, (key, *OF_VALUES), _far_off(keys, target.astype(np.float64), predicted))
    else:
        write_csv(
            path, (key, *OF_CLASSES), _wrong(keys, classes, target.astype(np.int64), predicted)
        )


def _wrong(
    keys: Array, classes: Sequence[Class], codes: Codes, chances: Floats
) -> Iterator[tuple[object, ...]]:
    guessed, said = chances.argmax(axis=1), chances.max(axis=1)
    rows = np.flatnonzero(guessed != codes)
    for row in rows[np.argsort(-said[rows], kind="stable")][:MAX_MISTAKES].tolist():
        code = codes[row]
        of_target = rounded(float(chances[row, code]))
        taken = classes[guessed[row]]
        yield keys[row], classes[code], taken, rounded(float(said[row])), of_target


def _far_off(keys: Array, values: Floats, predicted: Floats) -> Iterator[tuple[object, ...]]:
    residuals = values - predicted
    for row in np.argsort(-np.abs(residuals), kind="stable")[:MAX_MISTAKES].tolist():
        numbers = (values[row], predicted[row], residuals[row])
        yield keys[row], *(rounded(float(number)) for number in numbers)
