"""Rows of two revisions that are paired: what counts as the same target, and as the same class."""

import numpy as np
import numpy.typing as npt
import polars as pl
import pytest

from stages.compare.compare import compare
from stages.features.schema import Moments, TargetTransform
from stages.features.target_scale import to_scale, to_units, transform

KEYS = np.arange(300)
LOGNORMAL = np.exp(np.random.default_rng(0).normal(3, 1.5, 500))


def through_float32(
    values: npt.NDArray[np.float64], name: TargetTransform | None, num_train: int
) -> npt.NDArray[np.float64]:
    """The values as predictions.parquet has them, learned from the last `num_train`."""
    learned = transform(values[-num_train:], name)
    scale = Moments(mean=float(learned.mean()), deviation=float(learned.std()), transform=name)
    return to_units(to_scale(values, scale).astype(np.float32), scale)[: len(KEYS)]


def rows(target: npt.NDArray[np.float64]) -> pl.DataFrame:
    return pl.DataFrame({"id": KEYS, "target": target, "prediction": target * 1.1})


@pytest.mark.parametrize("values", [LOGNORMAL, LOGNORMAL * 1e4, 1.7e9 + LOGNORMAL])
@pytest.mark.parametrize("names", [(None, None), ("log1p", None), ("log1p", "log1p")])
def test_a_target_is_the_same_whatever_float32_made_of_it(
    values: npt.NDArray[np.float64], names: tuple[TargetTransform | None, TargetTransform | None]
) -> None:
    before, after = (
        through_float32(values, name, size) for name, size in zip(names, (200, 199), strict=True)
    )
    assert (before != after).any()
    found = compare(rows(before), rows(after), ["rmse"])
    assert found["why_not"] is None
    assert found["rows"] == {"before": 300, "after": 300, "shared": 300, "relabelled": 0}
    # A thousandth of the deviation is another value.
    after[:7] += values.std() / 1000
    assert compare(rows(before), rows(after), ["rmse"])["rows"]["relabelled"] == 7


def truths(right: int, *, old: bool) -> pl.DataFrame:
    """Predictions of true and false, with these names of the classes or, of old, Python's."""
    target = KEYS % 3 == 0
    predicted = np.where(right > KEYS, target, ~target)
    names = ("False", "True") if old else ("false", "true")
    sure = {f"probability_{n}": np.where(predicted == k, 0.9, 0.1) for k, n in enumerate(names)}
    return pl.DataFrame({"id": KEYS, "target": target, "prediction": predicted, **sure})


@pytest.mark.parametrize("old", [(True, True), (True, False), (False, True)])
def test_classes_that_earlier_versions_called_true_and_false(old: tuple[bool, bool]) -> None:
    before, after = truths(200, old=old[0]), truths(290, old=old[1])
    found = compare(before, after, ["accuracy"], ([before] * 3, [after] * 3))
    assert found["why_not"] is None
    assert found["flips"]["fixed"] == 90
    assert found["metrics"]["accuracy"]["change"]["value"] == pytest.approx(0.3)
