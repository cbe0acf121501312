"""`reprise check` asks torch's own constructors and the model, in a process of their own."""

import subprocess
from pathlib import Path

import polars as pl
import pytest
from PIL import Image

from pipeline.deps.import_closure import find_closure
from pipeline.params import rehearsal
from stages.common.yamlfile import read_yaml
from stages.tools.rehearse import rehearse
from tests.conftest import ROOT
from tests.support.samples import mixed_table, set_params, small_project


def test_arguments_that_are_wrong_together_and_a_model_of_other_data(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(ROOT)
    tree = read_yaml(Path("params.yaml"))
    assert rehearse(tree) == []
    tree["train"]["optimizer"] = {"name": "SGD", "lr": 0.1, "nesterov": True}
    tree["prepare"] |= {"source": "data/raw/breast_cancer.parquet", "target": "diagnosis"}
    optimizer, model = rehearse(tree)
    assert optimizer.key == "train.optimizer"
    assert "momentum" in optimizer.message
    assert model.key == "build.model.name"
    assert "takes images alone" in model.message
    tree["build"]["model"] = {"name": "cnn", "channels": [8] * 6}
    tree["prepare"] |= {"source": "data/raw/digits.parquet", "target": "label"}
    assert [problem.key for problem in rehearse(tree)] == [
        "train.optimizer",
        "build.model.channels",
    ]


def test_a_model_is_asked_about_images_beside_other_columns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(rehearsal, "STAMP", tmp_path / "rehearsed.json")
    pets = tmp_path / "pets"
    pets.mkdir()
    Image.new("RGB", (9, 8)).save(pets / "a.png")
    kinds = {"photo": ["a.png"] * 4, "age": [1.5, 2.5, 3.5, 4.0], "kind": ["cat", "dog"] * 2}
    pl.DataFrame(kinds).write_csv(pets / "manifest.csv")
    tree = read_yaml(Path("params.yaml"))
    tree["prepare"] |= {"source": str(pets), "target": "kind", "key": None}
    tree["prepare"] |= {"image": {"height": 8, "width": 8}}
    (problem,) = rehearse(tree)
    assert problem.message == "cnn takes images alone, and the data holds numeric, image"
    assert problem.allowed == ("mixed", "linear", "mlp")
    tree["build"]["model"] = {"name": "mixed"}
    assert rehearse(tree) == []
    tree["build"]["model"] = {"name": "cnn"}
    assert [each.message for each in rehearsal.rehearse(tree)] == [problem.message]
    # An edit in place, which the folder's own time does not show.
    pl.DataFrame(kinds).drop("age").write_csv(pets / "manifest.csv")
    assert rehearsal.rehearse(tree) == []


def test_it_is_asked_again_only_when_something_has_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = {"train.optimizer": {"name": "SGD", "lr": 0.1, "nesterov": True}}
    project = small_project(tmp_path, mixed_table(60), bad)
    monkeypatch.chdir(tmp_path)
    tree = read_yaml(Path("params.yaml"))
    found = rehearsal.rehearse(tree)
    assert [problem.key for problem in found] == ["train.optimizer"]

    def start(*_: object, **__: object) -> None:
        raise AssertionError("a process was started")

    monkeypatch.setattr(subprocess, "run", start)
    assert rehearsal.rehearse(tree) == found
    # What it does not look at may change.
    set_params(project, {"evaluate.metrics": ["accuracy"], "train.epochs": 9})
    assert rehearsal.rehearse(read_yaml(Path("params.yaml"))) == found
    set_params(project, {"build.model": {"name": "mlp", "width": 9}})
    with pytest.raises(AssertionError, match="started"):
        rehearsal.rehearse(read_yaml(Path("params.yaml")))


def test_an_edit_of_any_code_that_answers_asks_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    files = set(find_closure("stages.tools.rehearse").files)
    assert Path("stages/training/optim/preflight.py") in files
    assert files - set(rehearsal.code_files()) == set()
