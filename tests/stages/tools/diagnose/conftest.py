"""A small project that has trained, and what a measurement tells of it."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from stages.tools.diagnose.__main__ import measure_all
from stages.tools.diagnose.measured import Measured
from tests.conftest import Once, Project
from tests.support.samples import mixed_table, ready_to_train, run_stages

Measure = Callable[[Project, str], list[Measured]]


@pytest.fixture(scope="session")
def built(once: Once) -> Project:
    """A small project that has trained: two classes, 400 rows. It is shared: only look at it."""
    changes = {"build.model": {"name": "mlp", "width": 32}, "train.optimizer.lr": 1e-2}

    def make(folder: Path) -> None:
        run_stages(ready_to_train(folder, changes, mixed_table(400)), "train")

    return once("diagnosed", make)


@pytest.fixture
def project(built: Project, tmp_path: Path) -> Project:
    """A copy of it to change."""
    shutil.copytree(built.path, tmp_path / "project")
    return Project(tmp_path / "project")


@pytest.fixture
def measure(monkeypatch: pytest.MonkeyPatch) -> Measure:
    """Measures in a project; what is passing is left out."""

    def run(project: Project, name: str) -> list[Measured]:
        told: list[Measured] = []
        monkeypatch.chdir(project.path)
        monkeypatch.setattr("stages.tools.diagnose.__main__.tell", told.append)
        monkeypatch.setattr("stages.tools.diagnose.memory.tell", lambda _: None)
        measure_all([name])
        return told

    return run
