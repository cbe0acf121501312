"""A folder in which `reprise up` can start."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT, Project
from tests.pipeline.server.servers import of


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    """What `reprise up` needs of a repository; whatever runs there at the end is ended."""
    project = Project(tmp_path / "project")
    (project.path / "stages").mkdir(parents=True)
    (project.path / "dvc.yaml").write_text("stages: {}\n")
    shutil.copy2(ROOT / "prefect.yaml", project.path)
    shutil.copytree(ROOT / "pipeline", project.path / "pipeline")
    monkeypatch.chdir(project.path)
    yield project
    for process in of(project):
        process.kill()
