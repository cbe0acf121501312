"""A profile of some steps: what it counts, the trace, the command."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from stages.tools import profile
from stages.tools.profile import MARK, NUM_ROWS, NUM_WARM, as_long, measure
from tests.stages.tools.conftest import Call, some_training
from tests.support.samples import mixed_table, run_stages, set_params, small_project


def steps_of(trace: Path) -> list[dict[str, Any]]:
    """The profiler's marks, in order."""
    events = json.loads(trace.read_text(encoding="utf-8"))["traceEvents"]
    name = MARK.replace("*", "#")
    marks = [e for e in events if e["name"].startswith(name) and e.get("cat") == "user_annotation"]
    return sorted(marks, key=lambda event: event["ts"])


def test_it_profiles_the_steps_after_the_warm_up_and_no_others(tmp_path: Path) -> None:
    # Four steps an epoch: the profile goes over the ends of epochs.
    found = measure(some_training(batch_size=16), 6, tmp_path / "trace.json")
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
    made = some_training(epochs=7, batch_size=16, compile="auto")
    long = as_long(made)
    assert asked == [("auto", (15 * 16, 7 * 4))]
    assert long.params == made.params.model_copy(update={"compile": True})


def test_the_command_writes_a_trace_and_one_screen_and_nothing_else(
    tmp_path: Path,
    call: Call,
    refused: Callable[..., str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    project = small_project(tmp_path / "project", mixed_table(), {})
    assert "run 'dvc repro build' first" in refused(profile, project)

    run_stages(project, "prepare", "build")
    before = project.outputs()
    capsys.readouterr()
    call(profile, project, "--steps", "3")
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
    assert "did you mean 'AdamW'?" in refused(profile, project)
