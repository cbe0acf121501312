"""A tool of training, called as from a shell."""

from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

from stages.tools.training_tool import Training
from tests.conftest import Project
from tests.support.samples import Linear, classification, train_params

Call = Callable[..., None]


def some_training(**changes: Any) -> Training:
    """Four batches an epoch of the smallest model, if a batch has 16 rows."""
    return Training(Linear(), classification(num_rows=50), train_params(**changes), seed=3)


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch) -> Call:
    """Calls a tool in a project, with these arguments."""

    def run(tool: ModuleType, project: Project, *arguments: str) -> None:
        monkeypatch.chdir(project.path)
        monkeypatch.setattr("sys.argv", [tool.__name__.rpartition(".")[2], *arguments])
        tool.main()

    return run


@pytest.fixture
def refused(call: Call, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Calls a tool that stops with a mistake; what it says of it."""

    def run(tool: ModuleType, project: Project, *arguments: str) -> str:
        with pytest.raises(SystemExit) as ended:
            call(tool, project, *arguments)
        assert ended.value.code == 1
        return capsys.readouterr().err

    return run
