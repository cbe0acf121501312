"""Validation rows beside train rows: a forest guesses from which of both a row is."""

from collections.abc import Iterator, Mapping

import numpy as np

from stages.common.yamlfile import yaml_text
from stages.features.schema import APART, Array, load_arrays, read_schema
from stages.tools.diagnose.measured import Measured, columns_of
from stages.tools.diagnose.sample import draw_split
from stages.training.recipe import PREPARED

CAUSE = "validation rows unlike the train rows"
MAX_ROWS = 1500
# Of the area under the curve, for which 0.5 is a guess; and how many of its errors above a guess.
CLEAR, MIN_ERRORS = 0.65, 4.0
MAX_NAMED, FOLDS, MIN_UNITS = 3, 3, 6
# The least that counts: deviations between means of values, shares of rows of other classes.
MOVED = (0.5, 0.2)


def measure() -> Iterator[Measured]:
    """Compare the prepared rows of both splits, and the shares of their classes."""
    train, validation = (load_arrays(PREPARED / name) for name in ("train", "validation"))
    by_design = read_schema(PREPARED).ordered
    sizes = (count_units(train), count_units(validation))
    if min(sizes) < MIN_UNITS:
        what = f"{sizes[0]} groups or rows to train on and {sizes[1]} to validate on"
        yield Measured("ok", f"{what} are too few to compare the splits by")
        return
    area, telling, num_rows = tell_apart(train, validation)
    few = min(*sizes, num_rows)
    clear = max(CLEAR, 0.5 + MIN_ERRORS * np.sqrt(1 / (12 * few)) * 1.5)
    if area > clear:
        named = ", ".join(f"'{name}' ({share:.0%})" for name, share in telling)
        what = f"a forest tells validation rows from train rows ({area:.2f}, a guess is 0.50)"
        yield differ(f"{what}; by {named}", by_design=by_design)
    else:
        yield Measured("ok", f"validation rows look like train rows ({area:.2f}, a guess is 0.50)")
    for what in compare_targets(train["target"], validation["target"], sizes):
        yield differ(what, by_design=by_design)


def differ(what: str, *, by_design: bool) -> Measured:
    """The finding of a difference: of rows in the order of time later ones are meant to differ."""
    if by_design:
        said = "; they are the later ones (prepare.structure.time), as those to predict will be"
        return Measured("note", what + said, CAUSE)
    return Measured("wrong", what, CAUSE)


def count_units(split: Mapping[str, Array]) -> int:
    """The number of rows, or of the groups of which each is in one split."""
    return len(np.unique(split["group"])) if "group" in split else len(split["target"])


def tell_apart(
    train: Mapping[str, Array], validation: Mapping[str, Array]
) -> tuple[float, list[tuple[str, float]], int]:
    """The area under the curve, by rows that the forest has not seen; the columns that tell.

    And the rows of each split that it was asked for. Rows of one group are all seen or none: by
    what they share it would know their split.
    """
    from sklearn.ensemble import ExtraTreesClassifier
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold, cross_val_predict

    size = min(len(train["target"]), len(validation["target"]), MAX_ROWS)
    drawn = [draw_split(arrays, size) for arrays in (train, validation)]
    rows = np.concatenate([side for side, _ in drawn])
    which = np.repeat([0, 1], [len(side) for side, _ in drawn])
    forest = ExtraTreesClassifier(n_estimators=60, min_samples_leaf=3, random_state=0, n_jobs=1)
    groups, folds = None, StratifiedKFold(FOLDS, shuffle=True, random_state=0)
    if "group" in train:
        groups = np.concatenate(
            [s["group"][of] for s, (_, of) in zip((train, validation), drawn, strict=True)]
        )
        folds = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=0)
    chances = cross_val_predict(
        forest, rows, which, groups=groups, cv=folds, method="predict_proba"
    )[:, 1]
    forest.fit(rows, which)
    shares = dict.fromkeys(dict.fromkeys(names := number_names(train)), 0.0)
    for name, share in zip(names, forest.feature_importances_, strict=True):
        shares[name] += float(share)
    telling = sorted(shares.items(), key=lambda pair: -pair[1])[:MAX_NAMED]
    return float(roc_auc_score(which, chances)), telling, min(len(side) for side, _ in drawn)


def number_names(arrays: Mapping[str, Array]) -> list[str]:
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


def compare_targets(train: Array, validation: Array, sizes: tuple[int, int]) -> Iterator[str]:
    """Yield where classes are far more frequent in one split, or values have moved.

    `sizes` are the numbers of rows, or of groups, which say how far luck moves them.
    """
    few = 1 / sizes[0] + 1 / sizes[1]
    if train.dtype.kind == "f":
        known, asked = np.asarray(train, np.float64), np.asarray(validation, np.float64)
        shift = abs(float(asked.mean() - known.mean())) / (float(known.std()) or 1.0)
        if shift > max(MOVED[0], MIN_ERRORS * np.sqrt(few)):
            yield f"the target's mean is {shift:.2g} deviations apart"
        return
    classes = np.unique(np.concatenate([train, validation]))
    shares = [np.array([(split == c).mean() for c in classes]) for split in (train, validation)]
    apart = np.abs(shares[1] - shares[0])
    luck = 0.4 * float(np.sqrt(shares[0] * (1 - shares[0]) * few).sum())
    if 0.5 * float(apart.sum()) > max(MOVED[1], 3 * luck):
        worst = int(apart.argmax())
        name = yaml_text((read_schema(PREPARED).target.classes or [])[int(classes[worst])])
        said = [f"{float(share[worst]):.0%}" for share in shares]
        yield f"class {name!r} is {said[0]} of the train rows and {said[1]} of validation"
