"""The root of the project as the working folder."""

import pytest

from tests.conftest import ROOT


@pytest.fixture(autouse=True)
def _in_the_project(monkeypatch: pytest.MonkeyPatch) -> None:
    """The zoo is looked up from the project's root, where every stage runs."""
    monkeypatch.chdir(ROOT)
