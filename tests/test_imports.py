"""Imports run one way; these are all the edges there may be. `make check` runs this file."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.deps.import_closure import read_imports
from stages.common.yamlfile import read_yaml
from tests.conftest import ROOT

STAGES = ("prepare", "build", "tune", "train", "evaluate", "infer")
# Part of the project → what it may import besides itself and libraries, by prefix.
EDGES = {
    **{f"stages.{stage}": ("stages.common",) for stage in STAGES},
    # What it names may be our own; a model is loaded by its name alone.
    "stages.train": ("stages.common", "stages.zoo.losses", "stages.zoo.schedules"),
    # It trains: the one edge between stages.
    "stages.tune": ("stages.common", "stages.train"),
    # Audits a stage from its first import on.
    "stages.__init__": ("stages.common.audit",),
    "stages.common": (),
    # A file of the zoo stands alone: not even its neighbours.
    "stages.zoo": ("stages.common",),
    # Commands beside the stages, and what `reprise report` starts; no stage imports them.
    "stages.tools": ("stages",),
    "stages.compare": ("stages.common", "stages.evaluate"),
    # The light, typed sections, and what of one goes together; all else it starts as a process.
    "pipeline": (
        "stages.common",
        *(f"stages.{stage}.params" for stage in STAGES),
        "stages.train.together",
    ),
}
FORBIDDEN = {"stages": ("prefect", "dvc", "pipeline"), "pipeline": ("torch", "polars", "optuna")}
HEAVY = (
    "torch",
    "polars",
    "optuna",
    "sklearn",
    "great_expectations",
    "tensorboard",
    "dvc",
    "prefect",
)
# What Prefect runs; the command loads it only for a run.
FLOWS = (
    "pipeline/run/artifacts.py",
    "pipeline/run/flow.py",
    "pipeline/run/run_result.py",
    "pipeline/run/server_contact.py",
    "pipeline/run/stage_task.py",
    "pipeline/scheduled/flow.py",
)


def edges() -> Iterator[tuple[str, str, str]]:
    """(part, imported module, where) for each import of the project's own modules."""
    for file in sorted([*Path("stages").rglob("*.py"), *Path("pipeline").rglob("*.py")]):
        module = ".".join(file.with_suffix("").parts)
        part = next((p for p in EDGES if f"{module}.".startswith(f"{p}.")), None)
        for found in read_imports(file):
            yield part or module, found.name, f"{file}:{found.line}"


@pytest.fixture(autouse=True)
def _in_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def starts_with(name: str, prefixes: tuple[str, ...]) -> bool:
    return any(f"{name}.".startswith(f"{prefix}.") for prefix in prefixes)


def test_every_edge_is_on_the_list() -> None:
    wrong = []
    for part, name, where in edges():
        if not starts_with(name, ("stages", "pipeline")) or name == "stages":
            continue
        own = () if part == "stages.zoo" else (part,)
        if not starts_with(name, (*own, *EDGES.get(part, ()))):
            wrong.append(f"{where}: {part} imports {name}")
    assert wrong == []
    assert len(list(edges())) > 300, "the walk must see the project"


def test_stages_know_nothing_of_orchestration_and_pipeline_nothing_of_torch() -> None:
    wrong = [
        f"{where}: {name}"
        for part, name, where in edges()
        if starts_with(name, FORBIDDEN[part.split(".")[0]])
    ]
    assert wrong == []


def test_no_stage_imports_a_model_of_the_zoo_by_itself() -> None:
    wrong = [
        f"{where}: {name}"
        for part, name, where in edges()
        if part != "stages.zoo" and starts_with(name, ("stages.zoo.models",))
    ]
    assert wrong == []


def test_the_command_starts_without_heavy_libraries() -> None:
    names = ", ".join(
        ".".join(file.with_suffix("").parts)
        for file in sorted(Path("pipeline").rglob("*.py"))
        if file.as_posix() not in FLOWS
    )
    code = f"import sys, {names}; print([n for n in {HEAVY} if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_sections_are_light() -> None:
    names = ", ".join(f"stages.{stage}.params" for stage in STAGES)
    code = f"import sys, {names}; print([n for n in {HEAVY} if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_an_edit_of_a_tool_or_of_a_comparison_reruns_nothing() -> None:
    deps = [
        Path(dep)
        for stage in read_yaml(Path("dvc.yaml"))["stages"].values()
        for dep in stage["deps"]
    ]
    apart = [*Path("stages/tools").iterdir(), *Path("stages/compare").iterdir()]
    assert len(apart) >= 11
    for file in apart:
        assert not {file, *file.parents} & deps, file
