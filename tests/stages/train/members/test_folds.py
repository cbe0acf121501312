"""Folds: trainings on other rows of train and validation, and the mean of them as one model."""

import numpy as np
import polars as pl
import pytest
import torch

from stages.common.errors import UserError
from stages.common.files import read_csv, read_json
from stages.features.schema import load_arrays, read_statistics
from stages.model.model import load_model, read_spec
from stages.tensors.batch import to_batch
from stages.training.data.folds import Fold, assign_folds, divide
from stages.training.data.source import TensorSource
from tests.conftest import Project
from tests.support.samples import mixed_table, run_stages, set_params, small_project

COUNT = 3
CHANGES = {
    "train.epochs": 6,
    "train.folds": COUNT,
    "train.early_stopping": {"metric": "loss", "patience": None},
    "build.model": {"name": "mlp", "width": 8},
}


def fold(seed: int = 0, number: int = 0) -> Fold:
    return Fold(number, COUNT, seed)


def test_each_class_is_dealt_out_evenly_in_an_order_of_the_seed() -> None:
    strata = np.repeat([0, 1, 2], [40, 13, 4])
    found = assign_folds(len(strata), strata, None, fold())
    for code in range(3):
        counts = np.bincount(found[strata == code], minlength=COUNT)
        assert counts.max() - counts.min() <= 1
    sizes = np.bincount(found)
    assert sizes.max() - sizes.min() <= 1
    assert (found == assign_folds(len(strata), strata, None, fold())).all()
    assert (found != assign_folds(len(strata), strata, None, fold(seed=1))).any()


def test_rows_of_a_group_stay_in_one_fold_and_folds_are_about_as_large() -> None:
    random = np.random.default_rng(0)
    groups = random.integers(0, 40, 400)
    found = assign_folds(len(groups), None, groups, fold())
    assert len(set(zip(groups.tolist(), found.tolist(), strict=True))) == len(set(groups.tolist()))
    sizes = np.bincount(found, minlength=COUNT)
    assert sizes.max() - sizes.min() <= np.bincount(groups).max()
    with pytest.raises(UserError, match="2 groups of rows"):
        assign_folds(4, None, np.array([0, 0, 1, 1]), fold())


def test_the_rows_are_divided_and_weights_have_a_mean_of_one_again() -> None:
    values = torch.arange(31.0)
    rows = TensorSource({"numeric": values[:, None]}, values, np.arange(31), values + 1)
    judged = []
    for number in range(COUNT):
        learned, validated = divide(rows, None, fold(number=number))
        assert sorted([*learned.keys, *validated.keys]) == list(range(31))  # type: ignore[misc]
        for part in (learned, validated):
            assert part.keys is not None
            assert part.weight is not None
            assert part.weight.mean().item() == pytest.approx(1)
            assert part.target.tolist() == part.batch["numeric"][:, 0].tolist() == list(part.keys)
        judged += list(validated.keys)  # type: ignore[arg-type]
    assert sorted(judged) == list(range(31))


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A small project, trained in folds."""
    made = small_project(tmp_path_factory.mktemp("folds"), mixed_table(240), CHANGES)
    run_stages(made, "prepare", "build", "tune", "train")
    return made


def test_each_row_is_predicted_by_the_member_that_has_not_learned_from_it(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project.path)
    folder = project.path / "data/train"
    found = load_arrays(folder / "validation")
    splits = [load_arrays(project.path / "data/prepare" / name) for name in ("train", "validation")]
    known = np.concatenate([split["key"] for split in splits])
    assert sorted(found["key"].tolist()) == sorted(known.tolist())
    assert np.bincount(found["fold"].astype(int)).tolist() == [len(known) // COUNT] * COUNT
    statistics = read_statistics(project.path / "data/prepare")
    arrays = {k: np.concatenate([split[k] for split in splits]) for k in splits[0]}
    model, order = load_model(folder), np.argsort(known)
    batch = {
        kind: values[order][np.argsort(np.argsort(found["key"]))]
        for kind, values in to_batch(arrays, statistics).items()
    }
    with torch.inference_mode():
        members = torch.stack([member(batch) for member in model.members])  # type: ignore[union-attr]
        mean = members.softmax(dim=2).mean(dim=0)
        torch.testing.assert_close(model(batch).softmax(dim=1), mean)
    own = members[found["fold"].astype(int), torch.arange(len(known))]
    torch.testing.assert_close(
        own, torch.from_numpy(np.array(found["scores"])), rtol=1e-4, atol=1e-5
    )
    # What is said of the model is of all rows, each new to the one that has judged it.
    accuracy = (own.argmax(dim=1).numpy() == found["target"]).mean()
    metrics = read_json(folder / "metrics.json")
    assert metrics["validation_accuracy"] == pytest.approx(accuracy, abs=1e-6)
    assert read_spec(folder).members == COUNT
    folds = read_csv(folder / "replicas/folds.csv")
    assert [row["fold"] for row in folds] == ["0", "1", "2"]
    assert len({row["validation_loss"] for row in folds}) == COUNT
    history = read_csv(folder / "history.csv")
    assert [row["epoch"] for row in history] == [str(epoch) for epoch in range(1, 7)]


def test_the_mean_is_what_is_evaluated_exported_and_predicted(project: Project) -> None:
    run_stages(project, "evaluate", "infer")
    rows = pl.read_parquet(project.path / "data/evaluate/predictions.parquet")
    assert rows.height == 48
    assert (project.path / "data/infer/model.onnx").exists()


def test_rows_that_follow_one_another_have_no_folds(project: Project) -> None:
    set_params(project, {"prepare.structure": {"time": "when"}})
    done = project.run("reprise", "check", ok=False)
    set_params(project, {"prepare.structure": None})
    assert "have no folds" in done.stdout + done.stderr
    assert "train.folds" in done.stdout + done.stderr
