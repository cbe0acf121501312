"""A small project that has predicted, and its predictor."""

from pathlib import Path

import pytest

from stages.model.predictor import Predictor, load_predictor
from tests.conftest import Once, Project
from tests.support.samples import run_stages, small_project
from tests.support.stages.new_rows import TABLE


@pytest.fixture(scope="session")
def project(once: Once) -> Project:
    """It is shared: read it, don't change it."""

    def make(folder: Path) -> None:
        made = small_project(folder, TABLE, {"prepare.key": "id"})
        run_stages(made, "prepare", "build", "tune", "train", "infer")

    return once("new_rows", make)


@pytest.fixture(scope="module")
def predictor(project: Project) -> Predictor:
    return load_predictor(project.path / "data")
