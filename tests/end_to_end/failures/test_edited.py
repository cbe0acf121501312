"""An input that is edited while its stage runs: nothing is recorded that the stage never saw."""

import io
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
from safetensors.torch import load, save

from stages.common.errors import Problem, UserError
from stages.runtime.finished import (
    FINISHED,
    changes_explain_errors,
    stop_if_changed,
    take_finished,
)
from stages.runtime.snapshot import (
    RUNNING,
    find_input_change,
    find_input_changes,
    read_snapshot,
    take_snapshot,
    write_snapshot,
)
from tests.conftest import Project, project_environment
from tests.support.samples import mixed_table, set_params, small_project

LR = "optimizer: {name: AdamW, lr: 3e-3"
OTHER_LR = "optimizer: {name: AdamW, lr: 5e-3"


def run_and_edit(project: Project, stage: str, edit: Callable[[], None], *options: str) -> str:
    """Run `dvc repro STAGE` and edit something as soon as the stage has begun; what it says."""
    process = subprocess.Popen(
        ["dvc", "repro", "--single-item", *options, stage],
        cwd=project.path,
        env=project_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    begun = project.path / RUNNING / f"{stage}.json"
    until = time.monotonic() + 120
    while not begun.exists():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < until
        time.sleep(0.005)
    edit()
    said, _ = process.communicate(timeout=300)
    assert process.returncode != 0, said
    assert "Traceback" not in said
    return said


@pytest.mark.soak
def test_a_learning_rate_that_is_edited_while_it_trains(clone: Project) -> None:
    before = (clone.path / "dvc.lock").read_bytes()
    clone.edit("params.yaml", "  epochs: 30", "  epochs: 6")
    said = run_and_edit(clone, "train", lambda: clone.edit("params.yaml", LR, OTHER_LR))
    assert "train.optimizer.lr was 0.003 and is 0.005 now" in said
    assert "put that back, and 'dvc repro' takes it without running again" in said
    assert (clone.path / "dvc.lock").read_bytes() == before
    # As it was: the result is there already, and is the one that a training gives.
    clone.edit("params.yaml", OTHER_LR, LR)
    done = clone.run("dvc", "repro", "--single-item", "train")
    assert "an earlier run has finished this" in done.stdout
    assert "epoch" not in done.stdout
    kept = clone.outputs()
    assert clone.repro("--single-item", "--force", "train") == ["train"]
    assert clone.outputs() == kept
    assert list((clone.path / FINISHED).iterdir()) == []


@pytest.mark.soak
@pytest.mark.parametrize("stage", ["prepare", "build", "tune", "train", "evaluate", "infer"])
@pytest.mark.parametrize("kind", ["code", "data", "key", "dvc.yaml"])
def test_every_kind_of_input_of_every_stage(clone: Project, stage: str, kind: str) -> None:
    def edit() -> None:
        if kind == "code":
            with (clone.path / f"stages/{stage}/__main__.py").open("a", encoding="utf-8") as file:
                file.write("\n# edited\n")
        elif kind == "dvc.yaml":
            command = f"cmd: python -m stages.{stage}"
            clone.edit("dvc.yaml", f"{command}\n", f"{command} \n    desc: edited\n")
        elif kind == "key":
            old, new = keys[stage]
            clone.edit("params.yaml", old, new)
        else:
            path = clone.path / data[stage]
            content = path.read_bytes()
            # A cached output is a link to the cache, whose files can't be written to.
            path.unlink()
            if path.suffix == ".parquet":
                pl.read_parquet(io.BytesIO(content)).write_parquet(path, compression="gzip")
            elif path.suffix == ".safetensors":
                path.write_bytes(save(load(content), metadata={"edited": "yes"}))
            else:
                path.write_bytes(content + b" ")

    data = {
        "prepare": "data/raw/digits.parquet",
        "build": "data/prepare/schema.json",
        "tune": "data/prepare/statistics.json",
        "train": "data/build/weights.safetensors",
        "evaluate": "data/train/model.safetensors",
        "infer": "data/raw/digits_new.parquet",
    }
    keys = {
        "prepare": ("validation: 0.15", "validation: 0.16"),
        "build": ("channels: [16, 32]", "channels: [16, 33]"),
        "tune": ("trials: 0", "trials: 1"),
        "train": (LR, OTHER_LR),
        "evaluate": ("  - accuracy\n  - f1_macro\n", "  - f1_macro\n  - accuracy\n"),
        "infer": ("  - onnx\n  - program\n", "  - onnx\n"),
    }
    clone.edit("params.yaml", "  epochs: 30", "  epochs: 2")
    clone.run("dvc", "repro")
    lock = (clone.path / "dvc.lock").read_bytes()
    kept = clone.outputs()
    said = run_and_edit(clone, stage, edit, "--force")
    assert f"{stage} stopped" in said
    assert (clone.path / "dvc.lock").read_bytes() == lock
    now = clone.outputs()
    assert {name for name in kept if now[name] != kept[name]} <= {data[stage]}
    # The old outputs are those of the old inputs: the stage runs with the new ones.
    ran = clone.repro("--single-item", stage)
    assert ran == ([] if kind == "dvc.yaml" else [stage])


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    made = small_project(tmp_path / "project", mixed_table(), {})
    (made.path / "data/prepare/train").mkdir(parents=True)
    for name in ("schema.json", "statistics.json", "train/numeric.npy"):
        (made.path / "data/prepare" / name).write_bytes(b"{}")
    monkeypatch.chdir(made.path)
    return made


def test_nothing_edited_is_no_change(project: Project) -> None:
    snapshot = take_snapshot("train")
    assert "stages/training/loop.py" in snapshot.files
    assert "data/prepare/train/numeric.npy" in snapshot.files
    os.utime("stages/training/loop.py")
    # What another stage reads, and what DVC ignores, is no input of this one.
    set_params(project, {"evaluate.gates": {}})
    Path("stages/train/__pycache__").mkdir()
    Path("stages/train/__pycache__/loop.cpython-311.pyc").touch()
    assert find_input_changes(snapshot) == []
    assert find_input_change(snapshot, "stages/training/loop.py") == ""


def write(name: str, text: str | None) -> Callable[[Project], None]:
    def edit(project: Project) -> None:
        path = project.path / name
        if text is None:
            path.unlink()
        else:
            path.write_text(text, encoding="utf-8")

    return edit


@pytest.mark.parametrize(
    ("edit", "said", "mixed"),
    [
        (
            lambda project: set_params(project, {"train.clip_norm": 2.0}),
            "train.clip_norm was 1.0 and is 2.0 now",
            False,
        ),
        (
            lambda project: project.edit("params.yaml", "  clip_norm: 1.0", "  clip: 1.0"),
            "train.clip was null and is 1.0 now",
            False,
        ),
        (write("params.yaml", "train: ["), "train was {", False),
        (write("stages/training/loop.py", "x = 1"), "stages/training/loop.py was edited at", False),
        (write("stages/train/new.py", ""), "stages/train/new.py is new", False),
        (write("stages/training/loop.py", None), "stages/training/loop.py was deleted", False),
        (write("data/prepare/train/numeric.npy", "[]"), "numeric.npy was edited at", True),
        (write("dvc.yaml", None), "dvc.yaml: the stage 'train' was deleted", False),
    ],
)
def test_a_change_is_told(
    project: Project, edit: Callable[[Project], None], said: str, *, mixed: bool
) -> None:
    snapshot = take_snapshot("train")
    edit(project)
    changes = find_input_changes(snapshot)
    assert any(said in change.message for change in changes), changes
    assert {change.mixed for change in changes} == {mixed}


def test_finished_work_comes_back_once_and_only_to_the_same_inputs(project: Project) -> None:
    work = project.path / "work"
    work.mkdir()
    (work / "model.json").write_text("old", encoding="utf-8")
    snapshot = take_snapshot("train")
    set_params(project, {"train.optimizer.lr": 5e-3})
    with pytest.raises(UserError, match=r"train\.optimizer\.lr was 0\.003 and is 0\.005 now"):
        stop_if_changed(snapshot, work)
    assert not take_finished(take_snapshot("train"), work)
    set_params(project, {"train.optimizer.lr": 3e-3})
    assert take_finished(take_snapshot("train"), work)
    assert (work / "model.json").read_text(encoding="utf-8") == "old"
    assert not take_finished(take_snapshot("train"), work)


def test_work_that_may_have_read_either_is_not_kept(project: Project) -> None:
    snapshot = take_snapshot("train")
    (project.path / "data/prepare/schema.json").write_bytes(b"[]")
    with pytest.raises(UserError, match="so it is thrown away"):
        stop_if_changed(snapshot, project.path)
    assert not FINISHED.exists()


def test_an_error_that_comes_of_a_change_is_told_as_one(project: Project) -> None:
    snapshot = take_snapshot("train")
    with pytest.raises(ValueError, match="half of a file"), changes_explain_errors(snapshot):
        raise ValueError("half of a file")
    (project.path / "data/prepare/schema.json").write_bytes(b"[]")
    with (
        pytest.raises(UserError, match=r"(?s)schema\.json was edited at.*half of a file") as caught,
        changes_explain_errors(snapshot),
    ):
        raise ValueError("half of a file\nand more")
    assert "nothing is recorded" in str(caught.value)


def test_a_mistake_that_comes_of_a_change_keeps_its_place(project: Project) -> None:
    snapshot = take_snapshot("train")
    (project.path / "data/prepare/schema.json").write_bytes(b"[]")
    mistake = UserError(Problem("cannot read it", key="prepare.source"))
    with pytest.raises(UserError) as caught, changes_explain_errors(snapshot):
        raise mistake
    change, place = caught.value.problems
    assert "schema.json was edited at" in change.message
    assert place == mistake.problems[0]


def test_the_processes_of_a_stage_know_its_snapshot(project: Project) -> None:
    snapshot = take_snapshot("train")
    write_snapshot(snapshot)
    assert read_snapshot("train") == snapshot
    assert read_snapshot("tune") is None
