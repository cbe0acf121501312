"""Scores as predictions: classes with their probabilities, values in the target's units."""

import numpy as np
import torch

from stages.features.schema import Feature, Moments, Schema, Statistics, Target
from stages.model.calibration import to_probabilities
from stages.model.predictor import Predictor
from tests.stages.features.encoded import CLASSES, VALUE

NO_STATISTICS = Statistics(numeric={}, image=[], target=None)


def predictor(target: Target, moments: Moments | None = None) -> Predictor:
    schema = Schema(key=None, features=[Feature(name="x", kind="numeric")], target=target)
    statistics = NO_STATISTICS.model_copy(update={"target": moments})
    return Predictor(torch.nn.Identity(), schema, statistics)


def test_scores_of_classes_become_the_class_and_its_probabilities() -> None:
    scores = np.array([[1.0, 3.0], [1000.0, 0.0], [0.0, 0.0]])
    table = predictor(CLASSES).decode(scores)
    chance = 1 / (1 + np.exp(-2.0))
    assert table.columns == ["prediction", "probability_ill", "probability_well"]
    assert table["prediction"].to_list() == ["well", "ill", "ill"]
    np.testing.assert_allclose(table["probability_well"], [chance, 0.0, 0.5])
    np.testing.assert_allclose(to_probabilities(scores).sum(axis=1), 1.0)


def test_a_value_comes_back_in_the_targets_units() -> None:
    table = predictor(VALUE, Moments(mean=100.0, deviation=15.0)).decode(np.array([[0.0], [2.0]]))
    assert table["prediction"].to_list() == [100.0, 130.0]
