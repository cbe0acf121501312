"""Loggers beside TensorBoard: what they are told, that they change nothing, that they may fail.

Small doubles in `tests/support/fakes` stand for both libraries; where the real ones are installed,
they are asked as well.
"""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from stages.common.errors import UserError
from stages.common.files import read_csv, read_json
from stages.train.checkpoints.checkpointer import PREEMPTED
from stages.train.logs.logger import asked_loggers, without_secrets
from stages.training.step.divergence import DivergedError
from tests.conftest import ROOT, Project
from tests.support.samples import mixed_table, run_stages, set_params, small_project

FAKES = ROOT / "tests/support/fakes"
NAMES = {
    "loss/train": "train_loss",
    "loss/validation": "validation_loss",
    "accuracy/validation": "validation_accuracy",
    "learning_rate": "learning_rate",
    "gradient_norm": "gradient_norm",
}


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project after a training without loggers."""
    project = small_project(tmp_path_factory.mktemp("plain") / "project", mixed_table(), {})
    run_stages(project, "prepare", "build", "tune", "train")
    return project


@pytest.fixture
def project(plain: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A copy of it, with both loggers asked for; their libraries are the doubles."""
    shutil.copytree(plain.path, tmp_path / "project")
    monkeypatch.setenv("REPRISE_LOGGERS", "mlflow, wandb")
    monkeypatch.setenv("PYTHONPATH", str(FAKES))
    monkeypatch.syspath_prepend(str(FAKES))
    return Project(tmp_path / "project")


@pytest.fixture
def train_as_plain(
    project: Project, plain: Project, capfd: pytest.CaptureFixture[str]
) -> Callable[[], str]:
    """Train to the bytes of the training without loggers; return what was printed."""

    def train() -> str:
        run_stages(project, "train")
        assert project.outputs() == plain.outputs()
        said = capfd.readouterr()
        return said.out + said.err

    return train


def mlflow_runs(project: Project) -> dict[str, Any]:
    runs: dict[str, Any] = read_json(project.path / "fake-mlflow.json")["runs"]
    return runs


def wandb_runs(project: Project) -> dict[str, Any]:
    runs: dict[str, Any] = read_json(project.path / "fake-wandb.json")
    return runs


def history(project: Project) -> list[tuple[int, dict[str, float]]]:
    """What a logger should have been told after each epoch."""
    rows = read_csv(project.path / "data/train/history.csv")
    return [(int(row["epoch"]), {n: float(row[c]) for n, c in NAMES.items()}) for row in rows]


def kept(project: Project) -> dict[str, float]:
    metrics = read_json(project.path / "data/train/metrics.json")
    names = ("validation_loss", "validation_accuracy")
    return {f"kept/{name}": pytest.approx(metrics[name], rel=1e-6) for name in names}


def points(rows: list[tuple[int, dict[str, float]]]) -> list[list[Any]]:
    return [[name, step, value] for step, values in rows for name, value in values.items()]


def test_both_are_told_the_history_and_change_no_byte(project: Project, plain: Project) -> None:
    run_stages(project, "train")
    assert project.outputs() == plain.outputs()
    (folder,) = (project.path / "data/tensorboard").iterdir()

    (run,) = mlflow_runs(project).values()
    assert run["points"][:-2] == points(history(project))
    assert {name: value for name, step, value in run["points"][-2:]} == kept(project)
    assert (run["name"], run["states"]) == (folder.name, ["RUNNING", "FINISHED"])
    assert run["params"]["train.optimizer.lr"] == "0.003"
    assert run["params"]["model"] == "mlp"

    (run,) = wandb_runs(project).values()
    assert [(step, values) for step, values in run["rows"]] == history(project)
    assert run["summary"] == kept(project)
    assert run["exits"] == [0]
    assert run["given"]["name"] == folder.name
    assert run["given"]["config"]["train.optimizer.lr"] == 0.003


def test_without_addresses_both_stay_in_the_ignored_folder(project: Project) -> None:
    before = {path.name for path in project.path.iterdir()}
    run_stages(project, "train")
    (uri,) = read_json(project.path / "fake-mlflow.json")["uris"]
    assert uri == f"sqlite:///{project.path / '.reprise/mlflow.db'}"
    (run,) = wandb_runs(project).values()
    assert (run["given"]["mode"], run["given"]["dir"]) == ("offline", ".reprise")
    assert run["given"]["settings"]["disable_git"]
    new = {path.name for path in project.path.iterdir()} - before
    assert new == {"fake-mlflow.json", "fake-wandb.json"}


@pytest.mark.parametrize("mode", ["offline", "online"])
def test_a_training_that_resumes_resumes_its_run(
    project: Project, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    monkeypatch.setenv("WANDB_MODE", mode)
    with monkeypatch.context() as patched:
        # Told to stop in the third epoch, at its first step.
        patched.setattr("stages.train.fit.Checkpointer._is_due", lambda _self: False)
        told = iter([False] * 12 + [True])
        patched.setattr(
            "stages.train.checkpoints.checkpointer.Checkpointer.__call__", _stop_when(told)
        )
        with pytest.raises(SystemExit) as stopped:
            run_stages(project, "train")
    assert stopped.value.code == PREEMPTED
    (first,) = mlflow_runs(project).values()
    assert first["states"] == ["RUNNING", "KILLED"]
    assert 0 < len(first["points"]) < 3 * len(NAMES)
    (identity,) = wandb_runs(project)
    assert wandb_runs(project)[identity]["exits"] == [1]

    run_stages(project, "train")
    (run,) = mlflow_runs(project).values()
    assert run["states"] == ["RUNNING", "KILLED", "RUNNING", "FINISHED"]
    assert run["points"][:-2] == points(history(project))
    assert list(wandb_runs(project)) == [identity]
    run = wandb_runs(project)[identity]
    assert [(step, values) for step, values in run["rows"]] == history(project)
    assert run["summary"].items() >= kept(project).items()
    # What the first left is gone: two files of one run would be two uploads.
    left = [path.name for path in (project.path / ".reprise").glob("wandb/*")]
    assert len(left) == (1 if mode == "offline" else 0)

    # It has ended: another one is another run.
    run_stages(project, "train")
    assert len(mlflow_runs(project)) == len(wandb_runs(project)) == 2


def _stop_when(told: Any) -> Any:
    from stages.train.checkpoints.checkpointer import Checkpointer

    save = Checkpointer.__call__

    def call(saver: Checkpointer, state: Any) -> None:
        saver.stop_signal = lambda: next(told)
        save(saver, state)

    return call


def test_one_that_fails_is_said_once_and_changes_nothing(
    project: Project, train_as_plain: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_FAILS_AT", "2")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://me:hunter22@host/mlflow")
    monkeypatch.setenv("WANDB_API_KEY", "0123456789")
    said = train_as_plain()
    (line,) = [line for line in said.splitlines() if "failed" in line]
    assert line == (
        "mlflow failed and is left out; the training continues "
        "(MlflowException: no route to https://…@host/mlflow with …)"
    )
    assert "hunter22" not in said
    assert "0123456789" not in said
    # The other one is told all of it; with a key it is online.
    (run,) = wandb_runs(project).values()
    assert len(run["rows"]) == 3
    assert run["given"]["mode"] == "online"


@pytest.mark.parametrize("when", ["at once", "at exit"])
def test_one_that_hangs_is_left_at_the_end(
    train_as_plain: Callable[[], str], monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    monkeypatch.setenv("REPRISE_LOGGERS", "mlflow")
    monkeypatch.setenv("FAKE_HANGS", when)
    monkeypatch.setattr("stages.train.logs.logger.END_SECONDS", 0.5)
    assert train_as_plain().count("mlflow: not all that was logged could be passed on") == 1


def test_a_training_that_fails_is_told_as_failed(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_params(project, {"train.optimizer": {"name": "SGD", "lr": 1e30}, "train.clip_norm": None})
    with pytest.raises(DivergedError):
        run_stages(project, "train")
    (run,) = mlflow_runs(project).values()
    assert run["states"] == ["RUNNING", "FAILED"]


def test_a_training_that_was_killed_is_told_as_killed(project: Project) -> None:
    run = {"name": "mlp-1", "token": "abc", "chosen": {"seed": 0}}
    lines = [run, [1, {"loss/train": 0.5}]]
    # It died in the middle of a line.
    text = "".join(json.dumps(line) + "\n" for line in lines) + '[2, {"loss/tr'
    done = subprocess.run(
        [sys.executable, "-m", "stages.train.logs.logger_process", "mlflow"],
        input=text,
        cwd=project.path,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0
    (found,) = mlflow_runs(project).values()
    assert found["points"] == [["loss/train", 1, 0.5]]
    assert found["states"] == ["RUNNING", "KILLED"]


def test_wrong_and_missing_ones_are_refused_together(
    plain: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What an uninstalled one has left in the folder is no library.
    (plain.path / "wandb").mkdir()
    monkeypatch.setattr("sys.path", [str(plain.path)])
    monkeypatch.setenv("REPRISE_LOGGERS", "mlflw,wandb")
    before = plain.outputs()
    with pytest.raises(UserError) as refused:
        run_stages(plain, "train")
    assert str(refused.value).splitlines() == [
        "REPRISE_LOGGERS names no logger: 'mlflw'",
        "  allowed  mlflow, wandb",
        "  did you mean 'mlflow'?",
        "REPRISE_LOGGERS asks for 'wandb', which is not installed",
        "  pip install --constraint constraints.txt --editable '.[wandb]'",
    ]
    assert plain.outputs() == before
    monkeypatch.setenv("REPRISE_LOGGERS", "")
    assert asked_loggers() == []


def test_secrets_are_left_out_of_what_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "s3cret-token")
    said = "GET https://a:b@host/x?token=s3cret-token from http://host"
    assert without_secrets(said) == "GET https://…@host/x?token=… from http://host"
    # A password as SQLAlchemy takes it, and a secret that begins with another.
    monkeypatch.setenv("A_KEY", "s3cret")
    said = "no postgresql://me:pa/ss@w@host/runs with s3cret-token"
    assert without_secrets(said) == "no postgresql://…@host/runs with …"


@pytest.mark.skipif(find_spec("mlflow") is None, reason="the extra 'mlflow' is not installed")
def test_the_real_mlflow_keeps_every_point_once(
    plain: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REPRISE_LOGGERS", "mlflow")
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    run_stages(plain, "train")
    code = f"""
import json, mlflow.tracking
client = mlflow.tracking.MlflowClient({uri!r})
(run,) = client.search_runs([client.get_experiment_by_name("reprise").experiment_id])
points = client.get_metric_history(run.info.run_id, "loss/train")
print(json.dumps([run.info.status, [[point.step, point.value] for point in points]]))
"""
    asked = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    state, found = json.loads(asked.stdout)
    assert state == "FINISHED"
    assert found == [[step, values["loss/train"]] for step, values in history(plain)]


@pytest.mark.skipif(find_spec("wandb") is None, reason="the extra 'wandb' is not installed")
def test_the_real_wandb_writes_an_offline_run(
    plain: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REPRISE_LOGGERS", "wandb")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    run_stages(plain, "train")
    (written,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    assert b"kept/validation_loss" in written.read_bytes()
