"""The stage train: what it reads, writes and tells."""

import socket
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from safetensors.numpy import load_file, save_file

from stages.common.files import read_csv, read_json
from tests.conftest import Project
from tests.support.samples import mixed_table, ready_to_train, run_stages, set_params


# In short, `tests/stages/train/test_elastic.py` says it of two machines.
@pytest.mark.soak
def test_two_processes_train_as_one_does(tmp_path: Path) -> None:
    # A value to predict, without a kink in the model: float32 then differs by rounding alone.
    table = mixed_table().with_columns(y=pl.col("size").fill_null(10.0) * 3 + pl.col("id") % 5)
    project = ready_to_train(
        tmp_path / "project",
        {
            "build.model": {"name": "linear"},
            "train.loss": {"name": "MSELoss"},
            "train.epochs": 4,
            "train.early_stopping": {"metric": "rmse", "patience": 3},
        },
        table,
    )
    num_rows = len(np.load(project.path / "data/prepare/train/key.npy"))
    # The last batch holds one row, so one of the two processes has none.
    set_params(project, {"train.batch_size": num_rows - 1})
    run_stages(project, "train")
    alone = project.outputs()
    history = read_csv(project.path / "data/train/history.csv")
    weights = load_file(project.path / "data/train/model.safetensors")

    said = project.run("python", "-m", "stages.train", env={"PET_NPROC_PER_NODE": "2"}).stdout
    assert "2 processes" in said
    together = project.outputs()
    assert sorted(together) == sorted(alone)
    assert together["data/train/model.json"] == alone["data/train/model.json"]
    for ours, theirs in zip(
        read_csv(project.path / "data/train/history.csv"), history, strict=True
    ):
        as_numbers = {name: float(value) for name, value in ours.items()}
        expected = {name: float(value) for name, value in theirs.items()}
        assert as_numbers == pytest.approx(expected, rel=1e-5)
    for name, weight in load_file(project.path / "data/train/model.safetensors").items():
        np.testing.assert_allclose(weight, weights[name], rtol=1e-4, atol=1e-6)


@pytest.mark.soak
def test_a_mistake_that_two_processes_meet_is_told_once(tmp_path: Path) -> None:
    project = ready_to_train(
        tmp_path / "project",
        {"train.optimizer": {"name": "SGD", "lr": 1e30}, "train.clip_norm": None},
    )
    done = project.run("python", "-m", "stages.train", ok=False, env={"PET_NPROC_PER_NODE": "2"})
    assert "2 processes" in done.stdout
    assert "Traceback" not in done.stderr
    assert done.stderr.count("the loss is not finite any more") == 1
    assert "train.optimizer.lr: 1e+30" in done.stderr
    assert not list((project.path / "data/.writing").iterdir())


def test_two_trainings_in_two_places_write_the_same_bytes(trained: Project, tmp_path: Path) -> None:
    other = ready_to_train(tmp_path / "another" / "place", {})
    run_stages(other, "train")
    assert other.outputs() == trained.outputs()


def test_outputs_hold_nothing_of_the_machine(trained: Project) -> None:
    strangers = [str(trained.path), str(Path.home()), socket.gethostname(), torch.__version__]
    for name, content in trained.outputs().items():
        assert not [word for word in strangers if word.encode() in content], name


def test_what_train_writes_is_one_story(trained: Project) -> None:
    folder = trained.path / "data/train"
    history = read_csv(folder / "history.csv")
    metrics = read_json(folder / "metrics.json")
    best = min(history, key=lambda row: float(row["validation_loss"]))
    assert metrics["kept_epoch"] == int(best["epoch"])
    for name in ("train_loss", "validation_loss", "validation_accuracy"):
        assert metrics[name] == pytest.approx(float(best[name]), rel=1e-6)
    for row, loss, metric in zip(
        history,
        read_csv(folder / "plots/loss.csv"),
        read_csv(folder / "plots/metric.csv"),
        strict=True,
    ):
        assert float(loss["train"]) == pytest.approx(float(row["train_loss"]), rel=1e-6)
        assert float(loss["validation"]) == pytest.approx(float(row["validation_loss"]), rel=1e-6)
        assert float(metric["validation"]) == pytest.approx(
            float(row["validation_accuracy"]), rel=1e-6
        )


def test_a_winner_of_another_architecture_is_rebuilt(tmp_path: Path) -> None:
    winner = ready_to_train(tmp_path / "winner", {"build.model": {"name": "mlp", "width": 8}})
    (winner.path / "data/tune/best.yaml").write_text(
        "build.model.width: 5\ntrain.optimizer.lr: 0.02\n", encoding="utf-8"
    )
    run_stages(winner, "train")
    edited = ready_to_train(tmp_path / "edited", {"build.model": {"name": "mlp", "width": 5}})
    set_params(edited, {"train.optimizer.lr": 0.02})
    run_stages(edited, "train")
    ours, theirs = winner.outputs(), edited.outputs()
    of_train = [name for name in theirs if name.startswith("data/train/")]
    assert len(of_train) == 13
    # The same as if its values had stood in params.yaml from the start: the weights too.
    for name in of_train:
        assert ours[name] == theirs[name], name
    assert read_json(winner.path / "data/train/model.json")["arguments"]["width"] == 5


def test_a_training_starts_from_the_weights_of_build(tmp_path: Path) -> None:
    still = {"name": "SGD", "lr": 1e-12}
    project = ready_to_train(tmp_path / "project", {"train.epochs": 1, "train.optimizer": still})
    built = project.path / "data/build/weights.safetensors"
    # As pretrained ones: no seed gives them.
    weights = {name: weight + 0.25 for name, weight in load_file(built).items()}
    save_file(weights, built)
    run_stages(project, "train")
    for name, weight in load_file(project.path / "data/train/model.safetensors").items():
        np.testing.assert_allclose(weight, weights[name], atol=1e-9)
