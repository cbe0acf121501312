"""A target that is learned as its logarithm: what comes out is in its own units everywhere."""

import contextlib
import shutil
from itertools import pairwise
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from pipeline.doctor.guess import find_guess
from pipeline.params.check import find_problems
from pipeline.serve.bundle import load_bundle
from stages.common.errors import UserError
from stages.common.files import read_json
from stages.common.yamlfile import read_yaml
from stages.compare.compare import compare
from stages.features.encode import encode
from stages.features.schema import load_arrays, read_statistics
from stages.features.target_scale import to_units
from stages.infer.export.torch_program import load_program
from stages.infer.export.verify import feeds, tensors_of
from stages.model.attribution import attribute
from stages.model.predictor import Predictor, load_predictor
from tests.conftest import Project
from tests.support.samples import run_stages, set_params, small_project

KEY = "prepare.target_transform"
CHANGES = {
    "prepare.target": "price",
    "prepare.key": None,
    "prepare.columns": {},
    "prepare.split": {"seed": 0, "validation": 0.2, "test": 0.2},
    "build.model": {"name": "mlp", "width": 16},
    "train.loss": {"name": "MSELoss"},
    "train.optimizer": {"name": "AdamW", "lr": 0.01},
    "train.early_stopping": {"metric": "rmse", "patience": None},
    "train.epochs": 6,
    "train.replicas": 2,
    "train.folds": 2,
    "evaluate.metrics": ["mae", "rmse"],
    "evaluate.gates": {},
    "evaluate.coverage": 0.9,
    "infer.input": "data/raw/table.parquet",
    "infer.export": ["onnx", "program"],
}


def prices(num_rows: int, seed: int = 0) -> pl.DataFrame:
    """Prices whose logarithm the columns tell."""
    random = np.random.default_rng(seed)
    rooms, area = random.normal(size=(2, num_rows))
    price = np.exp(5 + 1.2 * rooms + 0.8 * area * rooms + 0.3 * random.normal(size=num_rows))
    return pl.DataFrame({"rooms": rooms, "area": area, "price": price})


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project that has gone through all stages with the transform: two replicas of two folds."""
    folder = tmp_path_factory.mktemp("transform") / "project"
    project = small_project(folder, prices(400), {**CHANGES, KEY: "log1p"})
    run_stages(project, "prepare", "build", "tune", "train", "evaluate", "infer")
    return project


@pytest.fixture
def predictor(trained: Project) -> Predictor:
    return load_predictor(trained.path / "data", coverage=0.9)


def test_metrics_and_predictions_are_in_the_units_of_the_target(trained: Project) -> None:
    data = trained.path / "data"
    found = pl.read_parquet(data / "evaluate/predictions.parquet")
    actual = prices(400)["price"].to_numpy()[found["row"].to_numpy()]
    np.testing.assert_allclose(found["target"].to_numpy(), actual, rtol=1e-5)
    metrics = read_json(data / "evaluate/metrics.json")
    errors = found["prediction"].to_numpy() - actual
    assert metrics["mae"] == pytest.approx(np.abs(errors).mean(), rel=1e-4)
    assert metrics["rmse"] == pytest.approx(np.sqrt(np.square(errors).mean()), rel=1e-4)
    # Far better than the mean of all, and than half a dozen epochs could be by chance.
    assert metrics["mae"] < 0.6 * np.abs(actual - actual.mean()).mean()
    inside = (found["low"].to_numpy() <= actual) & (actual <= found["high"].to_numpy())
    assert inside.mean() > 0.8
    assert found["low"].min() > -1  # type: ignore[operator]
    # An interval around a large price is wider.
    widths = (found["high"] - found["low"]).to_numpy()
    assert np.corrcoef(widths, found["prediction"].to_numpy())[0, 1] > 0.99


def test_training_judges_in_units_alone_packed_and_joined(trained: Project, tmp_path: Path) -> None:
    scale = read_statistics(trained.path / "data/prepare").target
    assert scale is not None
    assert scale.transform == "log1p"
    rows = load_arrays(trained.path / "data/train/validation")
    scores, target = (to_units(np.array(rows[n]), scale) for n in ("scores", "target"))
    rmse = np.sqrt(np.square(scores[:, 0] - target).mean())
    metrics = read_json(trained.path / "data/train/metrics.json")
    assert metrics["validation_rmse"] == pytest.approx(rmse, rel=1e-4)
    # One after the other, the trainings of a pack have the same history.
    alone = Project(tmp_path / "alone")
    shutil.copytree(trained.path, alone.path)
    set_params(alone, {"train.packed": False})
    run_stages(alone, "train")
    unpacked = read_json(alone.path / "data/train/metrics.json")
    assert unpacked == pytest.approx(metrics, rel=1e-3)


def test_a_report_pairs_the_rows_of_another_scale(trained: Project, tmp_path: Path) -> None:
    def predicted(project: Project) -> pl.DataFrame:
        return pl.read_parquet(project.path / "data/evaluate/predictions.parquet")

    plain = {**CHANGES, "train.epochs": 1, "train.replicas": 1, "train.folds": None, KEY: None}
    # Another train row moves mean and deviation, and with these the last digits of a target.
    more = pl.concat([prices(400), prices(1, seed=9)])
    others = [
        small_project(tmp_path / "null", prices(400), plain),
        small_project(tmp_path / "more", more, {**plain, "infer.input": None}),
    ]
    for project in others:
        run_stages(project, "prepare", "build", "tune", "train", "evaluate")
    tables = [predicted(trained), *map(predicted, others)]
    for before, after in pairwise(tables):
        assert (before["target"] != after["target"]).any()
        found = compare(before, after, ["mae"])
        assert found["why_not"] is None
        assert found["rows"]["relabelled"] == 0
        assert found["rows"]["shared"] >= 79


def test_files_for_elsewhere_predict_the_same(trained: Project, predictor: Predictor) -> None:
    import onnxruntime

    table = prices(30, seed=3).drop("price")
    expected = predictor.predict(table).drop("row").to_numpy().T
    bundle = (trained.path / "data/infer/model.onnx").read_bytes()
    session = onnxruntime.InferenceSession(bundle, providers=["CPUExecutionProvider"])
    found = session.run(None, feeds(table, predictor.schema, "infer.input"))
    np.testing.assert_allclose(np.stack(found), expected, rtol=1e-4)
    served = load_bundle(trained.path / "data/infer")
    assert [output.name for output in served.signature.outputs] == ["prediction", "low", "high"]
    assert read_json(trained.path / "data/infer/signature.json")["target_transform"] == "log1p"
    program = load_program((trained.path / "data/infer/model.pt2").read_bytes())
    with torch.inference_mode():
        given = program(tensors_of(table, predictor.schema, "infer.input"))
    np.testing.assert_allclose(np.stack([each.numpy() for each in given]), expected, rtol=1e-4)


def test_what_moved_a_prediction_adds_up_in_units(predictor: Predictor) -> None:
    table = prices(20, seed=4).drop("price")
    arrays = encode(table, predictor.schema, predictor.statistics, "infer.input")
    found = attribute(predictor, arrays, np.zeros(20, np.int64))
    nothing = {kind: np.zeros_like(array[:1]) for kind, array in arrays.items()}
    baseline = predictor.decode(predictor.scores(nothing))["prediction"][0]
    predicted = predictor.decode(predictor.scores(arrays))["prediction"].to_numpy()
    gaps = np.abs(found.values.sum(axis=1) - (predicted - baseline))
    assert found.believed.all()
    assert (gaps <= 0.02 * np.abs(found.values).sum(axis=1) + 1e-3 * predicted).all()


def test_the_doctors_guess_is_in_units(trained: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(trained.path)
    target = np.load("data/train/validation/target.npy")
    scale = read_statistics(Path("data/prepare")).target
    assert scale is not None
    fold = np.load("data/train/validation/fold.npy")
    values = to_units(target, scale)
    of_folds = [np.square(values[fold == n] - values.mean()).mean() ** 0.5 for n in (0, 1)]
    assert find_guess().metric == pytest.approx(np.mean(of_folds), rel=1e-6)


def test_values_that_have_no_logarithm_are_named_before_anything_runs(tmp_path: Path) -> None:
    table = prices(100).with_columns(
        pl.when(pl.int_range(pl.len()) % 40 == 3).then(-2.5).otherwise("price").alias("price")
    )
    project = small_project(tmp_path / "p", table, {**CHANGES, KEY: "log1p"})
    (project.path / "None").touch()
    said = "log1p takes values above -1, and the target 'price' is -1 or less in 3 rows, the"
    with contextlib.chdir(project.path):
        problems = find_problems(read_yaml(Path("params.yaml")))
    (found,) = [problem for problem in problems if problem.key == KEY]
    assert said in found.message
    assert found.message.endswith("smallest -2.5")
    with pytest.raises(UserError, match=said):
        run_stages(project, "prepare")
    set_params(project, {KEY: None})
    run_stages(project, "prepare")
    # Without a transform nothing is written of it.
    assert "transform" not in (project.path / "data/prepare/statistics.json").read_text()
    classes = table.with_columns((pl.col("price") > 100).cast(pl.String))
    other = small_project(tmp_path / "q", classes, {**CHANGES, KEY: "log1p"})
    with contextlib.chdir(other.path):
        problems = find_problems(read_yaml(Path("params.yaml")))
    assert any("the target 'price' is a class" in problem.message for problem in problems)
    with pytest.raises(UserError, match="the target 'price' is a class"):
        run_stages(other, "prepare")
