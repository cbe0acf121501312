"""A tiny project of nobody's settings."""

import os
from pathlib import Path

import pytest

from tests.conftest import Project
from tests.support.remotes import make_tiny


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing from the person who runs the tests: no identity, no settings of git or DVC."""
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    monkeypatch.setenv("GIT_CONFIG_SYSTEM", "/dev/null")
    monkeypatch.setenv("DVC_GLOBAL_CONFIG_DIR", str(tmp_path / "nothing"))
    for name in [name for name in os.environ if name.startswith(("GIT_AUTHOR", "GIT_COMMITTER"))]:
        monkeypatch.delenv(name)


@pytest.fixture
def tiny(tmp_path: Path) -> Project:
    return make_tiny(tmp_path / "tiny")
