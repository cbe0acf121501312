"""Temperature and threshold of a training: the same wherever rows are predicted."""

import json
import re
import shutil
from pathlib import Path
from typing import Any, get_args

import numpy as np
import onnxruntime
import polars as pl
import pytest

from stages.common.errors import UserError
from stages.common.files import read_json
from stages.infer.export.verify import feeds
from stages.model.predictor import load_predictor
from stages.train.calibrate import calibrate_scores, fit_temperature
from stages.training.params import CalibrationParams, ThresholdMetric
from tests.conftest import Project
from tests.support.samples import mixed_table, run_stages, small_project

CHANGES: dict[str, Any] = {
    "prepare.key": "id",
    "train.epochs": 40,
    "train.optimizer": {"name": "Adam", "lr": 0.05},
    "train.early_stopping": None,
    "train.calibration": {"temperature": True, "threshold": "balanced_accuracy"},
    "tune.trials": 2,
    "tune.epochs": 1,
    "tune.space": {"train.optimizer.lr": [0.05, 0.06]},
    "evaluate.metrics": ["accuracy", "f1_macro", "log_loss", "roc_auc", "ece"],
}


def uneven_table() -> pl.DataFrame:
    """Few of the second class."""
    return mixed_table(800).filter((pl.col("y") == "ill") | (pl.col("id") % 4 == 0))


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    folder = tmp_path_factory.mktemp("calibrated") / "p"
    made = small_project(folder, uneven_table(), CHANGES)
    run_stages(made, "prepare", "build", "tune", "train", "evaluate", "infer")
    return made


def test_stage_predictor_and_bundle_agree(project: Project) -> None:
    calibration = read_json(project.path / "data/train/calibration.json")
    temperature, threshold = calibration["temperature"], calibration["threshold"]
    # Neither may have come out as if it had not been asked for.
    assert abs(temperature - 1) > 0.05
    assert abs(threshold - 0.5) > 0.02
    assert read_json(project.path / "data/train/metrics.json").items() >= calibration.items()
    predictor = load_predictor(project.path / "data", coverage=0.9)
    table = uneven_table()
    own = predictor.predict(table)
    probabilities = own["probability_well"].to_numpy()
    assert own["prediction"].to_list() == [
        "well" if p > threshold else "ill" for p in probabilities
    ]
    assert (own["prediction"] != np.where(probabilities > 0.5, "well", "ill")).any()
    infer = pl.read_parquet(project.path / "data/infer/predictions.parquet")
    assert infer.equals(own)
    session = onnxruntime.InferenceSession(project.path / "data/infer/model.onnx")
    names, given, sets = session.run(None, feeds(table, predictor.schema, "infer.input"))
    np.testing.assert_allclose(given, own[:, 2:4].to_numpy(), atol=1e-6)
    assert (sets == own[:, 4:].to_numpy()).all()
    sure = np.abs(probabilities - threshold) > 1e-6
    assert (names == own["prediction"].to_numpy())[sure].all()
    assert sure.sum() > len(sure) - 3
    signature = read_json(project.path / "data/infer/signature.json")
    assert signature["calibration"] == calibration
    evaluated = pl.read_parquet(project.path / "data/evaluate/predictions.parquet")
    same = evaluated.drop("target").join(own, on="id", maintain_order="left")
    assert same["prediction"].to_list() == same["prediction_right"].to_list()
    np.testing.assert_allclose(same["probability_well"], same["probability_well_right"], atol=1e-6)


def test_the_temperature_is_one_of_the_validation_rows(project: Project) -> None:
    predictor = load_predictor(project.path / "data")
    folder = project.path / "data/prepare/validation"
    arrays = {file.stem: np.load(file) for file in sorted(folder.glob("*.npy"))}
    scores = predictor.scores(arrays)
    found = fit_temperature(scores, arrays["target"])
    assert found == pytest.approx(predictor.calibration.temperature, rel=1e-4)


@pytest.mark.soak
def test_two_processes_fit_the_same(project: Project, tmp_path: Path) -> None:
    alone = read_json(project.path / "data/train/calibration.json")
    shutil.copytree(project.path, tmp_path / "p")
    made = Project(tmp_path / "p")
    said = made.run("python", "-m", "stages.train", env={"PET_NPROC_PER_NODE": "2"}).stdout
    assert "2 processes" in said
    assert said.count("\ntemperature ") == said.count("\nthreshold ") == 1
    together = read_json(made.path / "data/train/calibration.json")
    assert together == pytest.approx(alone, rel=0.01)


def test_three_classes_have_no_threshold(project: Project, tmp_path: Path) -> None:
    table = mixed_table().with_columns(y=pl.int_range(pl.len()) % 3)
    changes = {"train.calibration": {"temperature": True, "threshold": "f1"}}
    made = small_project(tmp_path / "p", table, changes)
    run_stages(made, "prepare", "build", "tune")
    with pytest.raises(UserError, match="two classes; it has 3 classes") as caught:
        run_stages(made, "train")
    assert "train.calibration.threshold: f1\n  allowed  null" in str(caught.value)


@pytest.mark.soak
def test_a_change_of_it_trains_to_the_same_weights(clone: Project) -> None:
    metrics = json.loads((clone.path / "data/evaluate/metrics.json").read_text(encoding="utf-8"))
    before = clone.outputs()
    clone.edit("params.yaml", "temperature: false", "temperature: true")
    done = clone.run("dvc", "repro").stdout
    ran = re.findall(r"^Running stage '(\w+)'", done, flags=re.MULTILINE)
    assert ran == ["train", "evaluate", "infer"]
    # Of three replicas, one each.
    lines = re.findall(r"^replica \d │ (temperature .*)", done, flags=re.MULTILINE)
    assert len(lines) == 3
    for line in lines:
        assert re.fullmatch(r"temperature [\d.]+: validation log loss [\d.]+ → [\d.]+", line)
    after = clone.outputs()
    for name in ("train/model.safetensors", "train/history.csv", "evaluate/mistakes.csv"):
        same = after[f"data/{name}"] == before[f"data/{name}"]
        assert same == (name != "evaluate/mistakes.csv"), name
    calibrated = json.loads(after["data/evaluate/metrics.json"])
    # Which digit is the likeliest is not changed by a temperature; how likely is.
    assert calibrated["accuracy"] == metrics["accuracy"]
    assert calibrated["log_loss"] != metrics["log_loss"]
    clone.run("reprise", "predict", "data/raw/digits_new.parquet", "--output", "out.parquet")
    name = "data/infer/predictions.parquet"
    assert (clone.path / "out.parquet").read_bytes() == after[name] != before[name]


def test_a_row_of_weight_n_calibrates_as_n_rows_do() -> None:
    random = np.random.default_rng(3)
    codes = (random.random(200) < 0.3).astype(np.int64)
    scores = np.stack([-codes, codes], axis=1) * 2.0 + random.normal(0, 2, (200, 2))
    copies = random.integers(0, 4, 200)
    rows = np.repeat(np.arange(200), copies)
    weights = copies / copies.mean()
    for metric in get_args(ThresholdMetric):
        asked = CalibrationParams(temperature=True, threshold=metric)
        found, lines = calibrate_scores(scores, codes, weights, asked)
        expected, their_lines = calibrate_scores(scores[rows], codes[rows], None, asked)
        assert found.temperature == pytest.approx(expected.temperature, rel=1e-5)
        assert found.threshold == pytest.approx(expected.threshold, abs=1e-5)
        assert lines == their_lines
