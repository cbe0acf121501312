"""The scale of a target with and without a transform, and the way back."""

import numpy as np
import pytest
import torch

from stages.features.schema import Moments
from stages.features.target_scale import LARGEST, steps_at, to_scale, to_units
from stages.tensors.target_errors import root_in_units, square_errors
from stages.tensors.target_errors import to_units as tensor_to_units

PLAIN = Moments(mean=100.0, deviation=15.0)
LOGARITHM = Moments(mean=3.0, deviation=1.5, transform="log1p")
VALUES = np.array([-0.999, 0.0, 1e-9, 1.0, 250.0, 1e6])


@pytest.mark.parametrize("scale", [PLAIN, LOGARITHM])
def test_a_value_comes_back_in_its_units(scale: Moments) -> None:
    scores = to_scale(VALUES, scale)
    np.testing.assert_allclose(to_units(scores, scale), VALUES, rtol=1e-9, atol=1e-12)
    of_tensors = tensor_to_units(torch.from_numpy(scores), scale).numpy()
    np.testing.assert_allclose(of_tensors, VALUES, rtol=1e-9, atol=1e-12)
    # A score that is a little larger is so much more in units.
    step = 1e-6
    more = to_units(scores + step, scale) - VALUES
    np.testing.assert_allclose(more / step, steps_at(VALUES, scale), rtol=1e-4, atol=1e-6)


def test_a_score_beyond_all_bounds_is_a_finite_value() -> None:
    scores = np.array([-1e30, 1e30])
    for found in (to_units(scores, LOGARITHM), tensor_to_units(torch.tensor(scores), LOGARITHM)):
        low, high = (float(value) for value in found)
        assert low == -1.0
        assert high == pytest.approx(np.expm1(LARGEST))


@pytest.mark.parametrize("scale", [PLAIN, LOGARITHM])
def test_errors_are_in_the_units_of_the_target(scale: Moments) -> None:
    random = np.random.default_rng(0)
    actual, predicted = np.exp(random.normal(2, 1, size=(2, 50)))
    scores, target = (
        torch.from_numpy(to_scale(each, scale)).float() for each in (predicted, actual)
    )
    found = root_in_units(float(square_errors(scores, target, scale).mean()), scale)
    rmse = float(np.sqrt(np.square(predicted - actual).mean()))
    assert found == pytest.approx(rmse, rel=1e-4)
