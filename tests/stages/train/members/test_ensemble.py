"""An ensemble: members with recipes of their own, whose weighted mean is what everything serves."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from torch import Tensor, nn

from pipeline.report.show.metrics import head
from pipeline.report.show.outputs import read_run
from pipeline.serve.bundle import load_bundle
from pipeline.serve.service import Service, Settings
from stages.common.files import read_csv, read_json
from stages.features.schema import load_arrays, read_statistics
from stages.model.ensemble import Ensemble
from stages.model.model import load_model, read_spec
from stages.tensors.batch import to_batch
from stages.tools.rebuild_tensorboard import rebuild
from tests.conftest import Project
from tests.support.samples import mixed_table, run_stages, set_params, small_project, trained_files
from tests.support.serving import ask
from tests.support.stages.ensembles import CHANGES, LR, MEMBERS, WIDTH


class Says(nn.Module):
    """A model whose scores are always the same."""

    def __init__(self, scores: Tensor) -> None:
        super().__init__()
        self.scores = scores

    def forward(self, _: dict[str, Tensor]) -> Tensor:
        return self.scores


def test_the_mean_is_of_probabilities_or_of_values() -> None:
    one, other = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0))
    ensemble = Ensemble([Says(one), Says(other)], 3, [3.0, 1.0])
    expected = 0.75 * one.softmax(1) + 0.25 * other.softmax(1)
    torch.testing.assert_close(ensemble({}).exp(), expected)
    values = Ensemble([Says(one[:, :1]), Says(other[:, :1])], 1, [3.0, 1.0])
    torch.testing.assert_close(values({}), 0.75 * one[:, :1] + 0.25 * other[:, :1])
    # Weights are no tensors of the file, and equal ones are the plain mean.
    assert "weights" not in ensemble.state_dict()
    plain = Ensemble([Says(one), Says(other)], 3)
    torch.testing.assert_close(plain({}).exp(), (one.softmax(1) + other.softmax(1)) / 2)


def scores_of(project: Project, folder: Path, split: str) -> tuple[Tensor, Tensor]:
    """The scores of the model in `folder`, and those of its members (members, rows, classes)."""
    statistics = read_statistics(project.path / "data/prepare")
    batch = to_batch(load_arrays(project.path / "data/prepare" / split), statistics)
    model = load_model(folder)
    with torch.inference_mode():
        return model(batch), torch.stack([member(batch) for member in model.members])  # type: ignore[union-attr]


def test_members_of_other_shapes_are_one_model_for_all_that_follows(
    project: Project, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(project.path)
    set_params(project, {"train.ensemble": MEMBERS, "train.replicas": 2, "train.packed": True})
    run_stages(project, "train", "evaluate", "infer")
    said = capfd.readouterr().out
    # Learning rate and dropout change no shape: two members of two replicas are a pack.
    assert re.findall(r"^(.*): packed|^(a pack of \d);", said, re.MULTILINE) == [
        ("members 0, 2", ""),
        ("", "a pack of 4"),
        ("member 1", ""),
        ("", "a pack of 2"),
    ]
    folder = project.path / "data/train"
    assert [part.weight for part in read_spec(folder).parts] == [0.5, 0.25, 0.25]
    for trained in (folder, folder / "replicas/1"):
        scores, members = scores_of(project, trained, "validation")
        weights = torch.tensor([0.5, 0.25, 0.25])[:, None, None]
        mean = (members.softmax(2) * weights).sum(0)
        torch.testing.assert_close(scores.softmax(1), mean)
        rows = load_arrays(trained / "validation")
        torch.testing.assert_close(torch.from_numpy(np.array(rows["scores"])).exp(), mean)
        metrics = read_json(trained / "metrics.json")
        target = torch.from_numpy(np.array(rows["target"])).long()
        loss = nn.functional.cross_entropy(mean.log(), target).item()
        assert metrics["validation_loss"] == pytest.approx(loss, abs=1e-5)
        accuracy = (mean.argmax(1) == target).double().mean().item()
        assert metrics["validation_accuracy"] == pytest.approx(accuracy, abs=1e-6)
    table = read_csv(folder / "replicas/members.csv")
    assert [(row["replica"], row["member"]) for row in table] == [
        (replica, member) for replica in "01" for member in "012"
    ]
    assert len(read_csv(folder / "replicas/seeds.csv")) == 2
    predicted = pl.read_parquet(project.path / "data/evaluate/predictions.parquet")
    test, _ = scores_of(project, folder, "test")
    order = np.argsort(load_arrays(project.path / "data/prepare/test")["key"])
    ours = predicted.sort("id")["probability_ill"].to_numpy()
    np.testing.assert_allclose(ours, test.softmax(1)[:, 0].numpy()[order], atol=1e-6)
    card = (project.path / "data/evaluate/card.md").read_text(encoding="utf-8")
    assert "the weighted mean of 3 models" in card
    assert "`build.model.width: 12`, `build.model.layers: 2`" in card
    for name in ("model.onnx", "model.pt2"):
        assert f"{name}: differs from the model by" in said
    of_infer = project.path / "data/infer"
    service = Service(Settings(of_infer), load_bundle(of_infer))
    body = {"rows": mixed_table().drop("y").to_dicts()}
    answer = ask(service, "POST", "/predict", body).json()["predictions"]
    served = {each["id"]: each["probabilities"]["ill"] for each in answer}
    for key, probability in predicted.select("id", "probability_ill").iter_rows():
        assert served[key] == pytest.approx(probability, abs=1e-6)


def test_a_member_is_the_training_of_its_recipe(project: Project, tmp_path: Path) -> None:
    set_params(project, {"train.ensemble": MEMBERS, "train.packed": False})
    run_stages(project, "train")
    _, (ours, *_) = scores_of(project, project.path / "data/train", "validation")
    set_params(project, {"train.ensemble": None, LR: 0.01})
    run_stages(project, "train")
    rows = load_arrays(project.path / "data/train/validation")
    torch.testing.assert_close(ours, torch.from_numpy(np.array(rows["scores"])))
    # One member is no ensemble, but the recipe that it sets; equal members are other trainings.
    alone = trained_files(project)
    set_params(project, {"train.ensemble": [{"weight": 3, "set": {LR: 0.01}}], LR: 1e-3})
    run_stages(project, "train")
    assert trained_files(project) == alone
    set_params(project, {"train.ensemble": [{"weight": 1, "set": {}}, {"weight": 1, "set": {}}]})
    run_stages(project, "train")
    _, (one, other) = scores_of(project, project.path / "data/train", "validation")
    assert not torch.equal(one, other)


def test_replicas_of_folds_of_members_are_joined_row_by_row(
    project: Project, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    members = [*MEMBERS[:2], {"weight": 1, "set": {"train.loss.label_smoothing": 0.2}}]
    several = {"train.replicas": 2, "train.folds": 2, "train.class_weights": "balanced"}
    set_params(project, {"train.ensemble": members, **several})
    run_stages(project, "train", "evaluate", "infer")
    folder = project.path / "data/train"
    table = read_csv(folder / "replicas/members.csv")
    places = [(row["replica"], row["member"], row["fold"]) for row in table]
    assert places == [(r, m, f) for r in "01" for m in "012" for f in "01"]
    spec = read_spec(folder)
    assert (spec.members, [part.weight for part in spec.parts]) == (2, [0.5, 0.25, 0.25])
    for replica in ("0", "1"):
        home = folder / "replicas" / replica
        rows = load_arrays(home / "validation")
        for split in ("train", "validation"):
            assert_judged_by_others(project, home, split)
        metrics = read_json(home / "metrics.json")
        assert metrics["validation_loss"] == pytest.approx(balanced_loss(rows), rel=1e-4)
        own = [row for row in table if row["replica"] == replica]
        kept = np.average([int(row["kept_epoch"]) for row in own], weights=[2, 2, 1, 1, 1, 1])
        assert abs(metrics["kept_epoch"] - kept) <= 1
        # What one of them learns by is another loss: they have no mean.
        assert "train_loss" not in metrics
        assert not {"train_loss", "validation_loss"} & {*read_csv(home / "history.csv")[0]}
        assert read_csv(home / "plots/loss.csv") == []
        assert len(read_csv(home / "plots/metric.csv")) == CHANGES["train.epochs"]
    files = trained_files(project)
    assert files["model.safetensors"] == files["replicas/0/model.safetensors"]
    assert files["model.safetensors"] != files["replicas/1/model.safetensors"]
    card = (project.path / "data/evaluate/card.md").read_text(encoding="utf-8")
    assert "the weighted mean of 3 recipes, each trained in 2 folds;" in card
    monkeypatch.chdir(project.path)
    page = "".join(head(read_run()))
    assert "the weighted mean of 3 recipes, each trained in 2 folds" in page
    rebuild()
    assert "from data/train/history.csv" in capfd.readouterr().out


def assert_judged_by_others(project: Project, home: Path, split: str) -> None:
    """The scores of a row are those of the members of its fold, which have not learned from it."""
    rows = load_arrays(home / "validation")
    scores, by_fold = scores_of(project, home, split)
    torch.testing.assert_close(scores.softmax(1), by_fold.softmax(2).mean(0))
    keys = list(rows["key"])
    for place, key in enumerate(load_arrays(project.path / "data/prepare" / split)["key"]):
        own = keys.index(key)
        found = torch.from_numpy(np.array(rows["scores"][own]))
        of_fold = by_fold[int(rows["fold"][own]), place]
        torch.testing.assert_close(found, of_fold, rtol=1e-4, atol=1e-5)


def balanced_loss(rows: dict[str, Any]) -> float:
    """The mean over all rows of their loss, by the classes of the rows of other folds."""
    losses = np.empty(len(rows["target"]))
    for fold in (0, 1):
        judged, learned = rows["fold"] == fold, rows["fold"] != fold
        counts = np.bincount(rows["target"][learned].astype(int))
        weights = learned.sum() / (len(counts) * counts)
        codes = rows["target"][judged].astype(int)
        losses[judged] = -rows["scores"][judged][np.arange(len(codes)), codes] * weights[codes]
    return float(losses.mean())


def test_values_are_judged_in_the_units_of_the_target_by_the_weights_of_rows(
    tmp_path: Path,
) -> None:
    random = np.random.default_rng(0)
    size = random.normal(10, 3, 150)
    table = pl.DataFrame(
        {"size": size, "y": 40 * size + random.normal(0, 9, 150), "w": random.uniform(0, 3, 150)}
    )
    members = [{"weight": 3, "set": {}}, {"weight": 1, "set": {WIDTH: 4, LR: 0.05}}]
    changes = {"train.loss": {"name": "HuberLoss"}, "train.ensemble": members, LR: 0.02}
    few = {"prepare.split": CHANGES["prepare.split"], "evaluate.coverage": 0.8}
    made = small_project(
        tmp_path / "p", table, {**changes, **few, "prepare.key": None, "prepare.weight": "w"}
    )
    run_stages(made, "prepare", "build", "tune", "train", "infer")
    folder = made.path / "data/train"
    scores, (one, other) = scores_of(made, folder, "validation")
    torch.testing.assert_close(scores, 0.75 * one + 0.25 * other)
    rows = load_arrays(folder / "validation")
    target, weight = (torch.from_numpy(np.array(rows[name])) for name in ("target", "weight"))
    errors, moments = scores[:, 0] - target, read_statistics(made.path / "data/prepare").target
    assert moments is not None
    rmse = (errors.square() * weight).mean().sqrt().item() * moments.deviation
    loss = nn.HuberLoss(reduction="none")(scores[:, 0], target) * weight
    metrics = read_json(folder / "metrics.json")
    assert metrics["validation_rmse"] == pytest.approx(rmse, rel=1e-4)
    assert metrics["validation_loss"] == pytest.approx(loss.mean().item(), rel=1e-4)
