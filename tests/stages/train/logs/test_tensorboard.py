"""What TensorBoard shows of a training."""

import math
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from safetensors.numpy import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from stages.common.files import read_csv, read_json
from stages.tools.rebuild_tensorboard import rebuild
from stages.train.logs.tensorboard import histogram
from tests.conftest import Project
from tests.support.samples import ready_to_train, run_stages, set_params


def events(project: Project) -> EventAccumulator:
    (folder,) = (project.path / "data/tensorboard").iterdir()
    board = EventAccumulator(str(folder), size_guidance={"tensors": 0, "histograms": 0})
    board.Reload()
    return board


SCALARS = {
    "loss/train": "train_loss",
    "loss/validation": "validation_loss",
    "accuracy/validation": "validation_accuracy",
    "learning_rate": "learning_rate",
    "gradient_norm": "gradient_norm",
}


def assert_scalars_are_the_history(board: EventAccumulator, project: Project) -> None:
    rows = read_csv(project.path / "data/train/history.csv")
    for tag, column in SCALARS.items():
        points = [(event.step, event.value) for event in board.Scalars(tag)]
        expected = [(int(row["epoch"]), float(np.float32(row[column]))) for row in rows]
        assert points == expected, tag


def test_tensorboard_shows_the_training(trained: Project) -> None:
    board = events(trained)
    tags = board.Tags()
    assert_scalars_are_the_history(board, trained)
    assert set(SCALARS) <= set(tags["scalars"])
    assert sorted(tags["histograms"]) == [
        "weights/hidden.0.bias",
        "weights/hidden.0.weight",
        "weights/output.bias",
        "weights/output.weight",
    ]
    assert len(board.Histograms("weights/output.bias")) == 3
    weights = load_file(trained.path / "data/train/model.safetensors")
    for name, weight in weights.items():
        shown = board.Histograms(f"weights/{name}")[-1].histogram_value
        assert (shown.num, sum(shown.bucket)) == (weight.size, weight.size)
    assert {"y/ill", "y/well", "inputs/text_summary"} <= set(tags["tensors"])
    nodes = {node.name for node in board.Graph().node}
    assert any("hidden" in name for name in nodes)
    assert any("output" in name for name in nodes)


@pytest.mark.parametrize(("spread", "around"), [(1.0, 0.0), (1e-30, 0.0), (1e-16, 1.0), (0, 1e20)])
def test_a_histogram_has_every_number_in_its_bucket(spread: float, around: float) -> None:
    values = around + spread * np.random.default_rng(0).normal(size=(30, 7))
    raw = histogram(values)
    limits, counts = raw["bucket_limits"], raw["bucket_counts"]
    assert len(limits) == len(counts) == 51
    assert counts[0] == 0
    edges = [*limits[:-1], math.inf]
    for low, high, count in zip(edges, edges[1:], counts[1:], strict=False):
        assert ((values >= low) & (values < high)).sum() == count
    assert (raw["num"], sum(counts)) == (210, 210)
    assert (raw["min"], raw["max"]) == (values.min(), values.max())
    assert raw["sum"] == pytest.approx(values.sum(), rel=1e-12)
    assert raw["sum_squares"] == pytest.approx((values**2).sum(), rel=1e-12)


def test_tensorboard_shows_hyper_parameters_with_the_best_epochs_metrics(trained: Project) -> None:
    board = events(trained)
    content = {tag: bytes(content) for tag, content in board.PluginTagToContent("hparams").items()}
    assert set(content) == {
        "_hparams_/experiment",
        "_hparams_/session_start_info",
        "_hparams_/session_end_info",
    }
    for chosen in (b"train.optimizer.lr", b"build.model.width", b"train.batch_size"):
        assert chosen in content["_hparams_/session_start_info"]
    metrics = read_json(trained.path / "data/train/metrics.json")
    for name in ("validation_loss", "validation_accuracy"):
        (event,) = board.Scalars(f"kept/{name}")
        assert event.value == pytest.approx(metrics[name], rel=1e-6)


def test_tensorboard_shows_images_that_go_in(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    images = pl.Series(random.integers(17, size=(60, 4, 4), dtype=np.uint8).tolist())
    table = pl.DataFrame({"id": range(60), "image": images, "y": ["a", "b", "c"] * 20})
    project = ready_to_train(
        tmp_path / "images", {"build.model": {"name": "cnn", "channels": [4]}}, table
    )
    run_stages(project, "train")
    board = events(project)
    num_rows = len(np.load(project.path / "data/prepare/train/key.npy"))
    assert board.Tags()["images"] == ["inputs/image"]
    (grid,) = board.Images("inputs/image")
    # Rows of eight; each image of 4 by 4 has a frame of one pixel.
    assert (grid.width, grid.height) == (8 * 6, math.ceil(num_rows / 8) * 6)
    assert 32 < num_rows < 64


def test_the_events_of_a_recipe_replace_its_own_and_stand_beside_anothers(
    trained: Project, tmp_path: Path
) -> None:
    project = ready_to_train(tmp_path / "project", {"train.epochs": 1})
    run_stages(project, "train")
    (first,) = (project.path / "data/tensorboard").iterdir()
    before = {file.name for file in first.iterdir()}
    run_stages(project, "train")
    after = {file.name for file in first.iterdir()}
    assert len(after) == len(before)
    assert not after & before
    set_params(project, {"train.optimizer.lr": 0.5})
    run_stages(project, "train")
    runs = list((project.path / "data/tensorboard").iterdir())
    assert len(runs) == 2
    assert first in runs


def test_lost_events_are_rebuilt_from_the_history(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    project = ready_to_train(tmp_path / "project", {"train.epochs": 3})
    run_stages(project, "train")
    monkeypatch.chdir(project.path)
    (folder,) = Path("data/tensorboard").iterdir()
    for file in folder.iterdir():
        file.unlink()
    folder.rmdir()
    rebuild()
    board = events(project)
    assert_scalars_are_the_history(board, project)
    metrics = read_json(Path("data/train/metrics.json"))
    (event,) = board.Scalars("kept/validation_loss")
    assert event.value == pytest.approx(metrics["validation_loss"], rel=1e-6)
    assert list(Path("data/tensorboard").iterdir()) == [folder]
    written = [file.name for file in folder.iterdir()]
    rebuild()
    assert [file.name for file in folder.iterdir()] == written
    assert "has its events already" in capsys.readouterr().out
    # A folder alone, as a killed start leaves it, shows nothing.
    for name in written:
        (folder / name).unlink()
    rebuild()
    assert_scalars_are_the_history(events(project), project)
    Path("data/train/history.csv").unlink()
    shutil.rmtree(folder)
    rebuild()
    assert "there is no data/train/history.csv" in capsys.readouterr().out
