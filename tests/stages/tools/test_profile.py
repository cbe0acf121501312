"""A profile of some steps: what it counts, the trace, the command."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from stages.tools import profile
from stages.tools.profile import MARK, NUM_ROWS, NUM_WARM, as_long, measure
from stages.tools.training_tool import Training
from tests.conftest import Project
from tests.support.samples import (
    Linear,
    classification,
    mixed_table,
    run_stages,
    set_params,
    small_project,
    train_params,
)


def steps_of(trace: Path) -> list[dict[str, Any]]:
    """The profiler's marks, in order."""
    events = json.loads(trace.read_text(encoding="utf-8"))["traceEvents"]
    name = MARK.replace("*", "#")
    marks = [e for e in events if e["name"].startswith(name) and e.get("cat") == "user_annotation"]
    return sorted(marks, key=lambda event: event["ts"])


def test_it_profiles_the_steps_after_the_warm_up_and_no_others(tmp_path: Path) -> None:
    # Four steps an epoch: the profile goes over the ends of epochs.
    data, params = classification(num_rows=50), train_params(batch_size=16)
    found = measure(Training(Linear(), data, params, seed=0), 6, tmp_path / "trace.json")
    marks = steps_of(tmp_path / "trace.json")
    names = [mark["name"] for mark in marks]
    assert names == [f"ProfilerStep#{NUM_WARM + number}" for number in range(6)]
    seconds = sum(mark["dur"] for mark in marks) / 1e6
    assert found.step_ms == pytest.approx(1000 * seconds / 6, rel=0.01)
    # One backward and one step of the optimizer a step; all parts of a step are its whole.
    calls = {operator.name: operator.calls for operator in found.operators}
    assert calls["AddmmBackward0"] == calls["Optimizer.step#SGD.step"] == 6
    assert sum(o.cpu_ms for o in found.operators) == pytest.approx(found.step_ms, rel=0.1)
    assert [o.cpu_ms for o in found.operators] == sorted(
        (o.cpu_ms for o in found.operators), reverse=True
    )


def test_it_is_compiled_if_the_whole_training_would_be(monkeypatch: pytest.MonkeyPatch) -> None:
    # On a GPU this would depend on the number of steps, which a profile has few of.
    asked = []

    def choose(asked_for: str, device: torch.device, *numbers: int) -> tuple[bool, str]:
        asked.append((asked_for, numbers))
        return True, "compiled"

    monkeypatch.setattr(profile, "choose_compile", choose)
    params = train_params(epochs=7, batch_size=16, compile="auto")
    long = as_long(Training(Linear(), classification(num_rows=50), params, seed=0))
    assert asked == [("auto", (15 * 16, 7 * 4))]
    assert long.params == params.model_copy(update={"compile": True})


def call(project: Project, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.chdir(project.path)
    monkeypatch.setattr("sys.argv", ["profile", *arguments])
    profile.main()


def test_the_command_writes_a_trace_and_one_screen_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    project = small_project(tmp_path / "project", mixed_table(), {})
    with pytest.raises(SystemExit) as ended:
        call(project, monkeypatch)
    assert ended.value.code == 1
    assert "run 'dvc repro build' first" in capsys.readouterr().err

    run_stages(project, "prepare", "build")
    before = project.outputs()
    capsys.readouterr()
    call(project, monkeypatch, "--steps", "3")
    said = capsys.readouterr().out
    assert len(steps_of(project.path / ".reprise/profile/trace.json")) == 3
    assert len(said.splitlines()) < NUM_ROWS + 12
    assert max(len(line) for line in said.splitlines()) <= 100
    assert "aten::addmm" in said or "AddmmBackward0" in said
    assert "3 steps of " in said
    assert "open .reprise/profile/trace.json in chrome://tracing or" in said
    assert project.outputs() == before
    assert [path.name for path in (project.path / ".reprise").iterdir()] == ["profile"]

    set_params(project, {"train.optimizer.name": "AdamWW"})
    with pytest.raises(SystemExit) as ended:
        call(project, monkeypatch)
    assert ended.value.code == 1
    assert "did you mean 'AdamW'?" in capsys.readouterr().err
