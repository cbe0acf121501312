"""Metrics against their formulas, written out here; plots; what the stage writes."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pytest
from pydantic import ValidationError
from sklearn.metrics import roc_auc_score

from stages.common.errors import UserError
from stages.common.files import read_csv, read_json, rounded
from stages.evaluate.measure.metrics import check_defined, compute_metrics, metrics_of
from stages.evaluate.measure.predictions import Classified, Predicted
from stages.evaluate.outputs.plots import COLUMNS, MAX_RESIDUALS, NUM_POINTS, write_plots
from stages.evaluate.params import EvaluateParams, GatedEvaluateParams
from stages.features.schema import Class
from tests.conftest import Project
from tests.support.samples import mixed_table, run_stages, set_params, small_project

Codes = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
CLASSIFICATION, REGRESSION = metrics_of("classification"), metrics_of("regression")


def guesses(num_classes: int, num_rows: int = 80) -> tuple[Codes, Floats]:
    """Class codes, and probabilities that are right more often than not, with ties."""
    random = np.random.default_rng(num_classes)
    target = random.integers(num_classes, size=num_rows)
    scores = random.normal(size=(num_rows, num_classes)) + 1.5 * np.eye(num_classes)[target]
    probabilities = np.exp(scores.round(1))
    return target, probabilities / probabilities.sum(axis=1, keepdims=True)


def confusion(target: Codes, probabilities: Floats) -> Floats:
    """Rows: what it is; columns: what it was taken for."""
    table = np.zeros((probabilities.shape[1], probabilities.shape[1]))
    for actual, row in zip(target, probabilities, strict=True):
        table[actual, row.argmax()] += 1
    return table


def area_under_roc(hits: npt.NDArray[np.bool_], scores: Floats) -> float:
    """The share of pairs in which the hit has the higher score; ties count half."""
    above = scores[hits][:, None] > scores[~hits][None]
    level = scores[hits][:, None] == scores[~hits][None]
    return float((above + 0.5 * level).mean())


def average_precision(hits: npt.NDArray[np.bool_], scores: Floats) -> float:
    """Precision at each threshold, weighed by the recall that it adds."""
    total, recall_before = 0.0, 0.0
    for threshold in sorted(set(scores.tolist()), reverse=True):
        chosen = scores >= threshold
        recall = hits[chosen].sum() / hits.sum()
        total += (recall - recall_before) * hits[chosen].mean()
        recall_before = recall
    return total


def calibration_error(target: Codes, probabilities: Floats) -> float:
    """The distance of what was said from what came, in each of 15 bins; rows count equally."""
    said, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == target
    bins = [(said >= k / 15) & (said < (k + 1) / 15 if k < 14 else True) for k in range(15)]
    return sum(abs((said[b] - right[b]).sum()) for b in bins) / len(said)


def classification_by_hand(target: Codes, probabilities: Floats) -> dict[str, float]:
    table = confusion(target, probabilities)
    right, actual, taken, n = table.diagonal(), table.sum(1), table.sum(0), table.sum()
    recall, precision = right / actual, right / taken
    f1 = 2 * right / (actual + taken)
    agreement, by_chance = right.sum() / n, (actual * taken).sum() / n**2
    covariance = right.sum() * n - (actual * taken).sum()
    spread = math.sqrt(n**2 - (taken**2).sum()) * math.sqrt(n**2 - (actual**2).sum())
    one_hot = np.eye(probabilities.shape[1])[target]
    # Of two classes the second is the one that is asked for; of more, the mean over all.
    asked = [1] if probabilities.shape[1] == 2 else list(range(probabilities.shape[1]))
    squares = ((one_hot - probabilities) ** 2).sum(axis=1)
    return {
        "accuracy": agreement,
        "balanced_accuracy": recall.mean(),
        "f1_macro": f1.mean(),
        "f1_weighted": (f1 * actual).sum() / n,
        "precision_macro": precision.mean(),
        "recall_macro": recall.mean(),
        "matthews_corrcoef": covariance / spread,
        "cohen_kappa": (agreement - by_chance) / (1 - by_chance),
        "log_loss": -np.log(probabilities[np.arange(len(target)), target]).mean(),
        "brier": squares.mean() / (2 if probabilities.shape[1] == 2 else 1),
        "ece": calibration_error(target, probabilities),
        "roc_auc": np.mean([area_under_roc(target == c, probabilities[:, c]) for c in asked]),
        "average_precision": np.mean(
            [average_precision(target == c, probabilities[:, c]) for c in asked]
        ),
    }


def regression_by_hand(values: Floats, predicted: Floats) -> dict[str, float]:
    error = values - predicted
    around_mean = ((values - values.mean()) ** 2).sum()
    return {
        "rmse": math.sqrt((error**2).mean()),
        "mae": np.abs(error).mean(),
        "median_absolute_error": np.median(np.abs(error)),
        "max_error": np.abs(error).max(),
        "mape": (np.abs(error) / np.abs(values)).mean(),
        "r2": 1 - (error**2).sum() / around_mean,
        "explained_variance": 1 - ((error - error.mean()) ** 2).sum() / around_mean,
    }


@pytest.mark.parametrize("num_classes", [2, 4])
@pytest.mark.parametrize("name", CLASSIFICATION)
def test_a_classification_metric_is_its_formula(name: str, num_classes: int) -> None:
    target, probabilities = guesses(num_classes)
    found = compute_metrics([name], "classification", target, probabilities)
    expected = classification_by_hand(target, probabilities)
    assert found[name] == pytest.approx(expected[name], rel=1e-6)
    assert 0.05 < found[name] < 2


@pytest.mark.parametrize("name", REGRESSION)
def test_a_regression_metric_is_its_formula(name: str) -> None:
    random = np.random.default_rng(0)
    values = random.normal(50, 10, 80)
    predicted = values + random.normal(1, 4, 80)
    found = compute_metrics([name], "regression", values, predicted)
    assert found[name] == pytest.approx(regression_by_hand(values, predicted)[name], rel=1e-6)


def test_metrics_come_in_the_order_in_which_they_are_named() -> None:
    names = ["log_loss", "accuracy", "brier"]
    found = compute_metrics(names, "classification", *guesses(3))
    assert list(found) == names
    # Seven digits, so that the last bits of a sum are no difference between two machines.
    assert all(value == rounded(value) for value in found.values())


def test_a_class_that_is_never_predicted_counts_as_zero() -> None:
    target = np.array([0, 0, 1, 1, 2, 2])
    probabilities = np.array([[0.8, 0.1, 0.1]] * 2 + [[0.1, 0.8, 0.1]] * 4)
    found = compute_metrics(
        ["precision_macro", "f1_macro"], "classification", target, probabilities
    )
    assert found["precision_macro"] == pytest.approx((1 + 0.5 + 0) / 3)
    assert found["f1_macro"] == pytest.approx((1 + 2 / 3 + 0) / 3)


def test_certainty_that_is_wrong_is_a_finite_loss() -> None:
    found = compute_metrics(
        ["log_loss"], "classification", np.array([0, 1]), np.array([[0.0, 1.0], [0.0, 1.0]])
    )
    assert 10 < found["log_loss"] < 100


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("num_classes", "target", "undefined"),
    [
        (2, [1, 1], {"roc_auc", "cohen_kappa"}),
        (3, [0, 1, 1], {"roc_auc"}),
        (3, [2], {"roc_auc", "cohen_kappa"}),
    ],
)
def test_a_metric_that_the_test_rows_do_not_define_is_told(
    num_classes: int, target: list[int], undefined: set[str]
) -> None:
    probabilities = np.eye(num_classes)[target] * 0.5 + 0.5 / num_classes
    names = ["accuracy", "roc_auc", "cohen_kappa", "log_loss"]
    found = compute_metrics(names, "classification", np.array(target), probabilities)
    with pytest.raises(UserError) as error:
        check_defined([found])
    assert {problem.value for problem in error.value.problems} == undefined
    assert error.value.problems[0].key == "evaluate.metrics.1"
    assert "no value on these test rows" in str(error.value)
    # Of any replica.
    with pytest.raises(UserError):
        check_defined([dict.fromkeys(names, 0.5), found])
    check_defined([dict.fromkeys(names, 0.5)])


def test_a_test_split_of_one_row_has_no_r2(tmp_path: Path) -> None:
    table = mixed_table(30).with_columns(y=pl.col("id") * 0.5)
    changes = {
        "prepare.key": "id",
        "prepare.split.test": 0.03,
        "train.loss": {"name": "MSELoss"},
        "evaluate.metrics": ["max_error", "r2"],
    }
    project = small_project(tmp_path, table, changes)
    run_stages(project, "prepare", "build", "tune", "train")
    said = project.run("python", "-m", "stages.evaluate", ok=False).stderr
    assert "r2 has no value" in said
    assert "Traceback" not in said
    set_params(project, {"evaluate.metrics": ["max_error"]})
    run_stages(project, "evaluate")
    assert list(read_json(project.path / "data/evaluate/metrics.json")) == ["max_error"]


@pytest.mark.parametrize(
    ("task", "name", "meant"),
    [
        ("classification", "acuracy", "accuracy"),
        ("classification", "f1", None),
        ("classification", "rmse", None),
        ("regression", "RMSE", "rmse"),
        ("regression", "accuracy", None),
    ],
)
def test_an_unknown_metric_is_told_with_those_there_are(
    task: str, name: str, meant: str | None
) -> None:
    known = metrics_of(task)
    first = next(iter(known))
    with pytest.raises(UserError) as caught:
        compute_metrics([first, name], task, *guesses(2))
    (problem,) = caught.value.problems
    assert problem.key == "evaluate.metrics.1"
    assert problem.value == name
    assert problem.allowed == tuple(known)
    if meant is not None:
        assert problem.suggestion == meant


def test_all_unknown_metrics_are_told_at_once() -> None:
    with pytest.raises(UserError) as caught:
        compute_metrics(["accuracy", "x", "y"], "classification", *guesses(2))
    assert [p.key for p in caught.value.problems] == ["evaluate.metrics.1", "evaluate.metrics.2"]


@pytest.mark.parametrize(
    ("section", "says"),
    [
        ({"metrics": [], "gates": {}}, "at least 1 item"),
        (
            {"metrics": ["accuracy"], "gates": {"accuracy": {}}},
            "a minimum, a maximum or not_worse_by",
        ),
        ({"metrics": ["accuracy"], "gates": {"accuracy": {"min": 1.0}}}, "min"),
    ],
)
def test_a_gate_has_a_bound(section: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        GatedEvaluateParams.model_validate(section)


def test_the_stage_takes_no_gates() -> None:
    # They judge a run; were they part of what the stage reads, a gate would rerun it.
    assert set(EvaluateParams.model_fields) == {"metrics", "slices"}


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


def evaluated(folder: Path, table: pl.DataFrame, changes: dict[str, Any]) -> Project:
    project = small_project(folder, table, {"prepare.key": "id", **changes})
    run_stages(project, "prepare", "build", "tune", "train", "evaluate")
    return project


LEARNING = {
    "evaluate.metrics": list(CLASSIFICATION),
    "train.optimizer": {"name": "Adam", "lr": 0.05},
    "train.epochs": 20,
}


@pytest.fixture(scope="module")
def classified(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return evaluated(tmp_path_factory.mktemp("classified") / "project", mixed_table(), LEARNING)


def test_predictions_are_those_of_the_test_rows(classified: Project) -> None:
    predictions = pl.read_parquet(classified.path / "data/evaluate/predictions.parquet")
    keys = np.load(classified.path / "data/prepare/test/key.npy")
    assert predictions.columns == [
        "id",
        "target",
        "prediction",
        "probability_ill",
        "probability_well",
    ]
    assert predictions["id"].to_list() == keys.tolist()
    actual = predictions.select("id").join(mixed_table(), on="id", maintain_order="left")
    assert predictions["target"].to_list() == actual["y"].to_list()
    likely = np.where(predictions["probability_ill"] >= 0.5, "ill", "well")
    assert predictions["prediction"].to_list() == likely.tolist()
    assert (likely == actual["y"].to_numpy()).mean() > 0.7


def test_metrics_are_those_of_the_predictions(classified: Project) -> None:
    predictions = pl.read_parquet(classified.path / "data/evaluate/predictions.parquet")
    probabilities = predictions.select("probability_ill", "probability_well").to_numpy()
    target = (predictions["target"] == "well").to_numpy().astype(np.int64)
    metrics = read_json(classified.path / "data/evaluate/metrics.json")
    assert list(metrics) == list(CLASSIFICATION)
    assert metrics == pytest.approx(classification_by_hand(target, probabilities), rel=1e-6)
    found = read_json(classified.path / "data/evaluate/intervals.json")
    assert (found["level"], found["rows"]) == (0.95, len(target))
    assert {name: entry["value"] for name, entry in found["metrics"].items()} == metrics
    for name, entry in found["metrics"].items():
        assert name == "ece" or entry["low"] <= entry["value"] <= entry["high"], name


def test_a_value_is_measured_in_the_targets_units(tmp_path: Path) -> None:
    table = mixed_table().with_columns(y=1000.0 + 50 * pl.col("size").fill_null(10.0))
    project = evaluated(
        tmp_path / "project",
        table,
        {
            "build.model": {"name": "linear"},
            "train.loss": {"name": "MSELoss"},
            "train.optimizer": {"name": "Adam", "lr": 0.1},
            "train.epochs": 20,
            "evaluate.metrics": list(REGRESSION),
        },
    )
    predictions = pl.read_parquet(project.path / "data/evaluate/predictions.parquet")
    assert predictions.columns == ["id", "target", "prediction"]
    actual = predictions.select("id").join(table, on="id", maintain_order="left")["y"].to_numpy()
    # Through a standardised float32 and back.
    np.testing.assert_allclose(predictions["target"], actual, rtol=1e-5)
    metrics = read_json(project.path / "data/evaluate/metrics.json")
    by_hand = regression_by_hand(
        predictions["target"].to_numpy(), predictions["prediction"].to_numpy()
    )
    assert metrics == pytest.approx(by_hand, rel=1e-6)
    assert metrics["r2"] > 0.9
    assert read_csv(project.path / "data/evaluate/plots/residuals.csv")


def test_two_evaluations_in_two_places_write_the_same_bytes(
    classified: Project, tmp_path: Path
) -> None:
    other = evaluated(tmp_path / "other" / "place", mixed_table(), LEARNING)
    assert other.outputs() == classified.outputs()


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
    for name in ("log_loss", "brier", "ece", "roc_auc", "average_precision"):
        assert found[name] == of_chances[name] != of_codes[name], name
    for name in sorted(set(CLASSIFICATION) - {"log_loss", "brier", "ece"}):
        if name not in ("roc_auc", "average_precision"):
            assert found[name] == of_codes[name] != of_chances[name], name
    drawn = plots(tmp_path, ["a", "b"], target, Classified(codes, probabilities))
    assert [row["predicted"] for row in drawn["confusion"]] == ["ab"[code] for code in codes]
    of_all = plots(tmp_path, ["a", "b"], target, probabilities)
    for name in ("roc", "precision_recall", "calibration"):
        assert drawn[name] == of_all[name]
