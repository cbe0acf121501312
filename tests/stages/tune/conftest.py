"""A space of two parameters, and a project that can be tuned."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.conftest import Project
from tests.support.samples import mixed_table, run_stages, set_params, small_project

CopiesMade = Callable[[], list[psutil.Process]]
LR, WIDTH = "train.optimizer.lr", "build.model.width"
SPACE: dict[str, Any] = {LR: {"low": 1e-4, "high": 1.0, "log": True}, WIDTH: [8, 16, 32, 64]}


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Everything before tune has run, on a recipe that leaves something to find."""
    project = small_project(
        tmp_path_factory.mktemp("built") / "project",
        mixed_table(),
        {
            "prepare.key": "id",
            "build.model": {"name": "mlp", "width": 3},
            "train.optimizer": {"name": "Adam", "lr": 1e-5},
            "tune.epochs": 4,
            "tune.batch": 2,
            "tune.portfolio": False,
            "train.epochs": 4,
        },
    )
    run_stages(project, "prepare", "build")
    return project


@pytest.fixture
def project(built: Project, tmp_path: Path) -> Project:
    shutil.copytree(built.path, tmp_path / "project")
    return Project(tmp_path / "project")


@pytest.fixture
def copies() -> CopiesMade:
    """Return the processes that the test has made; other tests may have left some for them all."""
    before = psutil.Process().children()
    return lambda: [child for child in psutil.Process().children() if child not in before]


def tune(project: Project, trials: int, sampler: str, space: dict[str, Any]) -> None:
    set_params(project, {"tune.trials": trials, "tune.sampler": sampler, "tune.space": space})
    run_stages(project, "tune")
