"""Validation rows beside train rows: a forest guesses from which of both a row is."""

from collections.abc import Iterator

import numpy as np

from stages.features.schema import APART, Array, load_arrays, read_schema
from stages.tools.diagnose.learning import flatten
from stages.tools.diagnose.measured import Measured, columns_of
from stages.training.recipe import PREPARED

CAUSE = "validation rows unlike the train rows"
MAX_ROWS = 1500
# Of the area under the curve, for which 0.5 is a guess; and how many of its errors above a guess.
CLEAR, MIN_ERRORS = 0.65, 4.0
MAX_NAMED = 3


def measure() -> Iterator[Measured]:
    """Compare the prepared rows of both splits, and the shares of their classes."""
    train, validation = (load_arrays(PREPARED / name) for name in ("train", "validation"))
    area, telling = tell_apart(train, validation)
    few = min(len(train["target"]), len(validation["target"]), MAX_ROWS)
    clear = max(CLEAR, 0.5 + MIN_ERRORS * np.sqrt(1 / (12 * few)) * 1.5)
    if area > clear:
        named = ", ".join(f"'{name}' ({share:.0%})" for name, share in telling)
        what = f"a forest tells validation rows from train rows ({area:.2f}, a guess is 0.50)"
        yield Measured("wrong", f"{what}; by {named}", CAUSE)
    else:
        yield Measured("ok", f"validation rows look like train rows ({area:.2f}, a guess is 0.50)")
    yield from compare_targets(train["target"], validation["target"])


def tell_apart(
    train: dict[str, Array], validation: dict[str, Array]
) -> tuple[float, list[tuple[str, float]]]:
    """The area under the curve, by rows that the forest has not seen; the columns that tell."""
    from sklearn.ensemble import ExtraTreesClassifier
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    size = min(len(train["target"]), len(validation["target"]), MAX_ROWS)
    draw = np.random.default_rng(0)
    sides = []
    for arrays in (train, validation):
        rows = flatten(arrays)
        sides.append(rows[draw.permutation(len(rows))[:size]])
    rows = np.concatenate(sides)
    which = np.repeat([0, 1], [len(side) for side in sides])
    forest = ExtraTreesClassifier(n_estimators=60, min_samples_leaf=3, random_state=0, n_jobs=1)
    folds = StratifiedKFold(3, shuffle=True, random_state=0)
    chances = cross_val_predict(forest, rows, which, cv=folds, method="predict_proba")[:, 1]
    forest.fit(rows, which)
    shares = dict.fromkeys(dict.fromkeys(names := number_names(train)), 0.0)
    for name, share in zip(names, forest.feature_importances_, strict=True):
        shares[name] += float(share)
    telling = sorted(shares.items(), key=lambda pair: -pair[1])[:MAX_NAMED]
    return float(roc_auc_score(which, chances)), telling


def number_names(arrays: dict[str, Array]) -> list[str]:
    """The column of each number of a row, in the order of `flatten`."""
    columns = columns_of()
    names: list[str] = []
    for kind, array in arrays.items():
        if kind in APART:
            continue
        width = int(np.prod(array.shape[1:]))
        known = columns.get(kind, [])
        names += known if len(known) == width else [_whole(kind)] * width
    return names


def _whole(kind: str) -> str:
    """The columns of a kind whose numbers don't belong to one each, such as an image's."""
    schema = read_schema(PREPARED)
    return " and ".join(feature.name for feature in schema.features if feature.kind == kind)


def compare_targets(train: Array, validation: Array) -> Iterator[Measured]:
    """Yield where classes are far more frequent in one split, or values have moved."""
    if train.dtype.kind == "f":
        known, asked = np.asarray(train, np.float64), np.asarray(validation, np.float64)
        shift = abs(float(asked.mean() - known.mean())) / (float(known.std()) or 1.0)
        if shift > 0.5:
            yield Measured("wrong", f"the target's mean is {shift:.2g} deviations apart", CAUSE)
        return
    classes = np.unique(np.concatenate([train, validation]))
    apart = [float((validation == c).mean() - (train == c).mean()) for c in classes]
    if 0.5 * sum(abs(share) for share in apart) > 0.2:
        worst = int(np.argmax(np.abs(apart)))
        name = (read_schema(PREPARED).target.classes or [])[int(classes[worst])]
        shares = [f"{float((split == classes[worst]).mean()):.0%}" for split in (train, validation)]
        what = f"class {name!r} is {shares[0]} of the train rows and {shares[1]} of validation"
        yield Measured("wrong", what, CAUSE)
