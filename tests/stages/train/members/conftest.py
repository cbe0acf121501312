"""A small project before its search."""

import shutil
from pathlib import Path

import pytest

from tests.conftest import Once, Project
from tests.support.samples import mixed_table, run_stages, small_project
from tests.support.stages.ensembles import CHANGES


@pytest.fixture(scope="session")
def built(once: Once) -> Project:
    """A small project before its search. It is shared: take a copy of it."""

    def make(folder: Path) -> None:
        made = small_project(folder, mixed_table(), CHANGES)
        run_stages(made, "prepare", "build", "tune")

    return once("ensemble", make)


@pytest.fixture
def project(built: Project, tmp_path: Path) -> Project:
    shutil.copytree(built.path, tmp_path / "project")
    return Project(tmp_path / "project")
