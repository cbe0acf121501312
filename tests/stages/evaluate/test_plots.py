"""The data of the plots: curves, calibration, residuals, and what does not apply."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from sklearn.metrics import roc_auc_score

from stages.common.files import read_csv, rounded
from stages.evaluate.measure.metrics import compute_metrics
from stages.evaluate.measure.predictions import Classified, Predicted
from stages.evaluate.outputs.plots import COLUMNS, MAX_RESIDUALS, NUM_POINTS, write_plots
from stages.features.schema import Class
from tests.stages.evaluate.measured import CLASSIFICATION, Floats, area_under_roc, guesses


def plots(
    folder: Path, classes: list[Class] | None, target: npt.NDArray[Any], predicted: Predicted
) -> dict[str, list[dict[str, str]]]:
    write_plots(folder, classes, target, predicted)
    return {file.stem: read_csv(file) for file in sorted(folder.iterdir())}


def points(rows: list[dict[str, str]]) -> Floats:
    return np.array([[float(value) for value in row.values()] for row in rows])


def test_every_plot_is_written_and_one_that_does_not_apply_is_a_header(tmp_path: Path) -> None:
    target, probabilities = guesses(3)
    classes = plots(tmp_path / "classes", ["a", "b", "c"], target, probabilities)
    values = plots(tmp_path / "values", None, target.astype(np.float64), probabilities[:, 0])
    assert set(classes) == set(values) == set(COLUMNS)
    left = {name for name, rows in classes.items() if not rows}
    assert left == {"residuals", "predicted", "calibration_before"}
    assert {name for name, rows in values.items() if rows} == {"residuals", "predicted"}
    for name, columns in COLUMNS.items():
        for folder in ("classes", "values"):
            header = (tmp_path / folder / f"{name}.csv").read_text("utf-8").splitlines()[0]
            assert header == ",".join(columns)


def test_the_confusion_plot_has_a_row_for_each_prediction(tmp_path: Path) -> None:
    target, probabilities = guesses(3)
    rows = plots(tmp_path / "plots", ["ill", "so so", "well"], target, probabilities)["confusion"]
    names = np.array(["ill", "so so", "well"])
    assert [row["actual"] for row in rows] == names[target].tolist()
    assert [row["predicted"] for row in rows] == names[probabilities.argmax(1)].tolist()


@pytest.mark.parametrize("num_classes", [2, 4])
def test_the_curves_are_those_of_the_second_class_or_of_all_pooled(
    tmp_path: Path, num_classes: int
) -> None:
    target, probabilities = guesses(num_classes)
    hits, scores = target == 1, probabilities[:, 1]
    if num_classes > 2:
        hits, scores = np.eye(num_classes, dtype=bool)[target].ravel(), probabilities.ravel()
    drawn = plots(tmp_path / "plots", list(range(num_classes)), target, probabilities)
    roc, curve = points(drawn["roc"]), points(drawn["precision_recall"])
    assert roc[0].tolist() == [0, 0]
    assert roc[-1].tolist() == [1, 1]
    assert (np.diff(roc, axis=0) >= 0).all()
    area = np.trapezoid(roc[:, 1], roc[:, 0])
    assert area == pytest.approx(area_under_roc(hits, scores), abs=1e-6)
    # From no recall to all of it; each point is a threshold's.
    assert curve[0].tolist() == [0, 1]
    assert curve[-1, 0] == 1
    assert curve[-1, 1] == pytest.approx(hits.mean(), abs=1e-6)
    by_hand = {(0.0, 1.0)}
    for threshold in set(scores.tolist()):
        chosen = scores >= threshold
        recall, precision = hits[chosen].sum() / hits.sum(), hits[chosen].mean()
        by_hand.add((rounded(float(recall)), rounded(float(precision))))
    assert {(x, y) for x, y in curve.tolist()} <= by_hand
    if len(curve) < NUM_POINTS:
        assert {(x, y) for x, y in curve.tolist()} == by_hand


def test_a_long_curve_keeps_its_ends_and_its_area(tmp_path: Path) -> None:
    target, probabilities = guesses(2, num_rows=20_000)
    probabilities = np.random.default_rng(0).dirichlet([1, 1], 20_000) * 0.3 + probabilities * 0.7
    drawn = plots(tmp_path / "plots", ["a", "b"], target, probabilities)
    for name in ("roc", "precision_recall"):
        assert len(drawn[name]) == NUM_POINTS
    roc = points(drawn["roc"])
    assert roc[[0, -1]].tolist() == [[0, 0], [1, 1]]
    area = np.trapezoid(roc[:, 1], roc[:, 0])
    assert area == pytest.approx(roc_auc_score(target, probabilities[:, 1]), abs=2e-3)


def test_calibration_compares_what_was_said_with_what_came(tmp_path: Path) -> None:
    # Bins of a fifteenth: 0.533 to 0.6, 0.733 to 0.8, 0.933 to 1.
    said = [0.55, 0.57, 0.55, 0.74, 0.76, 1.0, 0.96]
    came = [True, False, True, True, True, True, False]
    probabilities = np.array([[p, 1 - p] for p in said])
    target = np.array([0 if right else 1 for right in came])
    rows = points(plots(tmp_path / "plots", ["a", "b"], target, probabilities)["calibration"])
    expected = [[(0.55 + 0.57 + 0.55) / 3, 2 / 3], [0.75, 1.0], [0.98, 0.5]]
    np.testing.assert_allclose(rows, expected, rtol=1e-6)


def test_what_a_temperature_has_changed_is_drawn_beside_it(tmp_path: Path) -> None:
    target, probabilities = guesses(3)
    before = probabilities**3 / (probabilities**3).sum(axis=1, keepdims=True)
    write_plots(tmp_path / "after", ["a", "b", "c"], target, probabilities, before)
    write_plots(tmp_path / "before", ["a", "b", "c"], target, before)
    drawn = (tmp_path / "after/calibration_before.csv").read_text(encoding="utf-8")
    assert drawn == (tmp_path / "before/calibration.csv").read_text(encoding="utf-8")
    assert drawn != (tmp_path / "after/calibration.csv").read_text(encoding="utf-8")


def test_a_model_that_knows_what_it_knows_is_on_the_diagonal(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    chance = random.random(200_000)
    target = (random.random(200_000) < chance).astype(np.int64)
    probabilities = np.stack([1 - chance, chance], axis=1)
    rows = points(plots(tmp_path / "plots", ["a", "b"], target, probabilities)["calibration"])
    # The chance of the class that was chosen: half or more.
    assert len(rows) == 8
    np.testing.assert_allclose(rows[:, 0], rows[:, 1], atol=0.01)


def test_residuals_are_what_is_left_to_explain(tmp_path: Path) -> None:
    values, predicted = np.array([1.0, 2.0, 4.0]), np.array([1.5, 2.0, 3.0])
    drawn = plots(tmp_path / "plots", None, values, predicted)
    assert points(drawn["residuals"]).tolist() == [[1.5, -0.5], [2.0, 0.0], [3.0, 1.0]]
    assert points(drawn["predicted"]).tolist() == [[1.0, 1.5], [2.0, 2.0], [4.0, 3.0]]


@pytest.mark.parametrize("num_rows", [MAX_RESIDUALS, MAX_RESIDUALS + 1, 3 * MAX_RESIDUALS])
def test_a_scatter_plot_has_no_more_rows_than_can_be_seen(tmp_path: Path, num_rows: int) -> None:
    values = np.arange(num_rows, dtype=np.float64)
    rows = points(plots(tmp_path / "plots", None, values, values)["predicted"])
    assert MAX_RESIDUALS / 2 <= len(rows) <= MAX_RESIDUALS
    # Evenly from the whole of them.
    assert len(set(np.diff(rows[:, 0]).tolist())) == 1
    assert rows[-1, 0] >= num_rows - 4


def test_metrics_follow_the_class_that_is_predicted(tmp_path: Path) -> None:
    target, probabilities = guesses(2, num_rows=300)
    codes = (probabilities[:, 1] > 0.2).astype(np.int64)
    assert (codes != probabilities.argmax(axis=1)).sum() > 30
    found = compute_metrics(
        list(CLASSIFICATION), "classification", target, Classified(codes, probabilities)
    )
    of_chances = compute_metrics(list(CLASSIFICATION), "classification", target, probabilities)
    # As if all doubt were gone: of the codes alone.
    of_codes = compute_metrics(list(CLASSIFICATION), "classification", target, np.eye(2)[codes])
    of_ranks = ("roc_auc", "average_precision", "ks")
    for name in ("log_loss", "brier", "ece", *of_ranks):
        assert found[name] == of_chances[name] != of_codes[name], name
    for name in sorted(set(CLASSIFICATION) - {"log_loss", "brier", "ece"}):
        if name not in of_ranks:
            assert found[name] == of_codes[name] != of_chances[name], name
    drawn = plots(tmp_path, ["a", "b"], target, Classified(codes, probabilities))
    assert [row["predicted"] for row in drawn["confusion"]] == ["ab"[code] for code in codes]
    of_all = plots(tmp_path, ["a", "b"], target, probabilities)
    for name in ("roc", "precision_recall", "calibration"):
        assert drawn[name] == of_all[name]
