"""Models that are served, and a service of one of them."""

from pathlib import Path

import pytest

from pipeline.serve.bundle import Bundle, load_bundle
from pipeline.serve.service import Service, Settings
from tests.conftest import Project
from tests.support.inferred import TABLE, UP_TO_INFER, inferred
from tests.support.samples import run_stages, small_project


@pytest.fixture(scope="session")
def project() -> Project:
    return inferred()


@pytest.fixture(scope="session")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a model of other columns: a regression of `size`."""
    table = TABLE.select("town", "smoker", y="size").drop_nulls("y")
    changes = {"prepare.key": None, "train.loss": {"name": "MSELoss"}}
    made = small_project(tmp_path_factory.mktemp("serve") / "other", table, changes)
    run_stages(made, *UP_TO_INFER)
    return made.path / "data/infer"


@pytest.fixture(scope="session")
def bundle(project: Project) -> Bundle:
    return load_bundle(project.path / "data/infer")


@pytest.fixture
def service(project: Project, bundle: Bundle) -> Service:
    return Service(Settings(project.path / "data/infer"), bundle)
