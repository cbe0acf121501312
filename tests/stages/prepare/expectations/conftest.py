"""An empty working folder for each test of a suite."""

from pathlib import Path

import pytest

from tests.stages.prepare.expectations.suites import OUT


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder for each test, as a stage would find the repository's root."""
    monkeypatch.chdir(tmp_path)
    OUT.mkdir()
    return tmp_path
