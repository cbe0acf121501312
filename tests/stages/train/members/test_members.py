"""Several trainings in the stage's own process: one after the other, or packed within rounding."""

import re
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from stages.common.errors import UserError
from stages.common.files import read_csv, read_json
from stages.train.checkpoints.checkpointer import PREEMPTED
from stages.train.members.said_by import said_by
from stages.training.packed.rule import Sizes, choose_way, estimate
from tests.conftest import Project
from tests.support.samples import (
    mixed_table,
    run_stages,
    set_params,
    small_project,
    trained_files,
    training,
)
from tests.support.training.said import read_until

CHANGES: dict[str, Any] = {
    "train.epochs": 12,
    "train.early_stopping": {"metric": "loss", "patience": 4},
    "train.optimizer": {"name": "AdamW", "lr": 0.01},
    "train.calibration": {"temperature": True, "threshold": None},
    "train.ema": 0.9,
    "build.model": {"name": "mlp", "width": 8, "dropout": 0.2},
}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A small project before its training. 203 rows to train on and validate: folds differ."""
    made = small_project(tmp_path_factory.mktemp("members"), mixed_table(254), CHANGES)
    run_stages(made, "prepare", "build", "tune")
    return made


def train(project: Project, monkeypatch: pytest.MonkeyPatch, **variables: str) -> dict[str, bytes]:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    run_stages(project, "train")
    for name in variables:
        monkeypatch.delenv(name)
    return trained_files(project)


def assert_close(ours: Path, theirs: Path) -> None:
    """What two ways of training have written into these folders agrees within rounding."""
    names = {str(file.relative_to(ours)) for file in ours.rglob("*") if file.is_file()}
    assert names == {str(file.relative_to(theirs)) for file in theirs.rglob("*") if file.is_file()}
    for name, weight in load_file(ours / "model.safetensors").items():
        other = load_file(theirs / "model.safetensors")[name]
        np.testing.assert_allclose(weight, other, rtol=1e-3, atol=1e-4, err_msg=name)
    for one, other in zip(
        read_csv(ours / "history.csv"), read_csv(theirs / "history.csv"), strict=True
    ):
        for name, value in one.items():
            assert float(value) == pytest.approx(float(other[name]), rel=1e-3, abs=1e-4), name
    found, expected = read_json(ours / "recipe.json"), read_json(theirs / "recipe.json")
    assert found["train"].pop("packed") is True
    assert found == expected


@pytest.mark.parametrize("several", [{"folds": 3}, {"replicas": 2, "folds": 2}, {"replicas": 3}])
def test_a_pack_comes_to_what_each_training_comes_to_alone(
    project: Project,
    several: dict[str, int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    count = {"folds": None, "replicas": 1, **several}
    changes = {f"train.{key}": value for key, value in count.items()}
    set_params(project, {**CHANGES, **changes, "train.packed": False})
    train(project, monkeypatch, REPRISE_AT_ONCE="1")
    (project.path / "data/train").rename(tmp_path / "in_turn")
    capfd.readouterr()
    set_params(project, {"train.packed": True})
    # Of the three replicas one is a pack by itself.
    if several == {"replicas": 3}:
        monkeypatch.setattr("stages.train.members.here.MAX_MEMBERS", 2)
    train(project, monkeypatch)
    said = capfd.readouterr().out
    number = several.get("folds", 1) * several.get("replicas", 1)
    packs = [int(size) for size in re.findall(r"^a pack of (\d+);", said, re.MULTILINE)]
    assert packs == ([2, 1] if several == {"replicas": 3} else [number])
    assert len(re.findall(r"^(?:replica|fold) .* │ best epoch", said, re.MULTILINE)) == number
    folders = [Path(), *(Path(f"replicas/{k}") for k in range(several.get("replicas", 1)))]
    for folder in folders if "replicas" in several else folders[:1]:
        assert_close(project.path / "data/train" / folder, tmp_path / "in_turn" / folder)


def test_what_can_t_be_packed_is_refused_or_said(
    project: Project, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    changes = {"train.folds": None, "train.replicas": 2, "train.epochs": 1, "train.packed": True}
    swa = {"train.ema": None, "train.swa": {"start": 1, "lr": None}}
    set_params(project, {**CHANGES, **changes, **swa})
    with pytest.raises(UserError, match=r"can't be packed: train.swa averages weights") as raised:
        run_stages(project, "train")
    assert raised.value.problems[0].key == "train.packed"
    set_params(project, {"train.swa": None, "train.ema": 0.9, "train.packed": "auto"})
    monkeypatch.setattr("stages.training.packed.rule.PACK_STEP", 0.0)
    with monkeypatch.context() as patch:
        patch.setattr("stages.train.members.fit_packed.why_no_step", lambda _: "it is odd")
        train(project, monkeypatch)
    assert "not packed, but one after the other: it is odd" in capfd.readouterr().out

    def fill_memory(*_: object) -> None:
        raise RuntimeError("DefaultCPUAllocator: not enough memory")

    monkeypatch.setattr("stages.training.packed.loop.take_step", fill_memory)
    train(project, monkeypatch)
    assert "not packed, but one after the other: the memory is full" in capfd.readouterr().out
    monkeypatch.setenv("REPRISE_AT_ONCE", "none")
    with pytest.raises(UserError, match="REPRISE_AT_ONCE is 'none'"):
        run_stages(project, "train")


def test_one_that_diverges_is_named(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    lost = {"train.optimizer": {"name": "SGD", "lr": 1e30}, "train.replicas": 2}
    for packed in (True, False):
        set_params(project, {**CHANGES, **lost, "train.folds": None, "train.packed": packed})
        with pytest.raises(UserError, match=r"replica 0: the loss"):
            train(project, monkeypatch, REPRISE_AT_ONCE="1")


def test_the_rule_packs_small_steps_and_gives_long_large_ones_processes() -> None:
    def way(**sizes: int) -> str:
        given = {"num_trainings": 8, "products": 500_000, "num_steps": 1000, "at_once": 2}
        return choose_way(Sizes(**{**given, **sizes}), may_pack=True).name

    assert way() == "packed"
    # The digits that a pack moves are not worth a few percent.
    assert way(num_trainings=2, products=40_000) == "in turn"
    # A process takes longer to start than a training of few large steps.
    assert way(products=50_000_000, num_steps=100) == "in turn"
    assert way(products=50_000_000, num_steps=10_000) == "processes"
    assert way(products=50_000_000, num_steps=10_000, at_once=1) == "in turn"
    sizes = Sizes(num_trainings=8, products=500_000, num_steps=1000, at_once=2)
    assert choose_way(sizes, may_pack=False).name == "in turn"
    assert estimate(sizes)["packed"] < estimate(sizes)["in turn"]


def test_lines_of_a_training_stand_under_its_name(capsys: pytest.CaptureFixture[str]) -> None:
    with said_by("fold 1"):
        print("one\ntwo", end="")
        print(" more")
        print("no end", end="")
    assert capsys.readouterr().out == "fold 1 │ one\nfold 1 │ two more\nfold 1 │ no end\n"


def checkpoints(project: Project) -> set[str]:
    folder = project.path / ".reprise/checkpoints"
    return {path.name for path in folder.iterdir() if path.is_dir()}


@pytest.mark.soak
def test_a_pack_that_is_told_to_stop_or_killed_ends_with_the_same_bytes(
    project: Project, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    long = {"train.epochs": 150, "train.early_stopping": {"metric": "loss", "patience": 120}}
    several = {"train.replicas": 3, "train.folds": None, "train.packed": True}
    set_params(project, {**CHANGES, **long, **several})
    whole = train(project, monkeypatch)
    before = checkpoints(project)
    with training(project) as process:
        read_until(process, "│ epoch  25/150")
        process.send_signal(signal.SIGTERM)
        said = process.communicate(timeout=60)[0]
        assert process.returncode == PREEMPTED, said
    with training(project) as process:
        said = read_until(process, "resumes from")
        read_until(process, "│ epoch  75/150")
        process.kill()
        process.wait(timeout=60)
    assert len(checkpoints(project)) == len(before) + 1
    capfd.readouterr()
    assert train(project, monkeypatch) == whole
    assert "resumes from" in capfd.readouterr().out
    assert checkpoints(project) == before
