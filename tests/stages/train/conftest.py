"""A project that has trained, for the tests of the stage to read."""

import pytest

from tests.conftest import Project
from tests.support.samples import ready_to_train, run_stages


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """It is shared: read it, don't change it."""
    project = ready_to_train(tmp_path_factory.mktemp("trained") / "project", {})
    run_stages(project, "train")
    return project
