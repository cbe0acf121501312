"""What is printed: to a reader who leaves, and to a terminal that knows ASCII alone."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import ROOT, Project, project_environment
from tests.support.dags import know_answers

ASCII = {"PYTHONIOENCODING": "ascii"}
# A stage's own start and end around work that prints; in a file, as a stage is.
STAGE = """\
import sys
from stages.common.errors import UserError
from stages.runtime.stage import run_stage

def work(params, folder):
    print("2 × 3", flush=True)
    (folder / "done").touch()
    if sys.argv[1:] == ["stop"]:
        raise UserError("a name that is no UTF-8: \\udcff, and ×")

run_stage("prepare", work)
"""


def exit_to_nobody(project: Path, *command: str) -> int:
    """The exit code of a command whose reader has left before it printed anything."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        return subprocess.run(
            command, cwd=project, env=project_environment(), stdout=writer, stderr=writer
        ).returncode
    finally:
        os.close(writer)


@pytest.fixture
def project(fresh: Callable[[str], Project]) -> Project:
    project = fresh("project")
    know_answers(project)
    (project.path / "stages/prepare/__main__.py").write_text(STAGE, encoding="utf-8")
    return project


@pytest.mark.soak
def test_a_reader_who_leaves_changes_no_exit_code(project: Project) -> None:
    for argument in ("plan", "--help"):
        assert exit_to_nobody(project.path, "reprise", argument) == 0, argument
    # What is at work goes on to its end.
    assert exit_to_nobody(project.path, sys.executable, "-m", "stages.prepare") == 0
    assert (project.path / "data/prepare/done").exists()
    assert exit_to_nobody(project.path, sys.executable, "-m", "stages.prepare", "stop") == 1


def test_what_is_said_unbuffered_is_there_when_the_process_is_killed() -> None:
    code = (
        "import os, signal; from stages.common.terminal import keep_printing; keep_printing();"
        "print('said', end=''); os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-u", "-c", code], cwd=ROOT, capture_output=True)
    assert done.stdout == b"said"


def test_a_terminal_of_ascii_shows_what_it_can(project: Project) -> None:
    done = project.run(sys.executable, "-m", "stages.prepare", env=ASCII)
    assert "2 \\xd7 3" in done.stdout
    stopped = project.run(sys.executable, "-m", "stages.prepare", "stop", env=ASCII, ok=False)
    assert "no UTF-8: \\udcff, and \\xd7" in stopped.stderr
    assert "Traceback" not in stopped.stderr
    # UTF-8 does not know half of a name either.
    utf8 = {"PYTHONIOENCODING": "utf-8"}
    stopped = project.run(sys.executable, "-m", "stages.prepare", "stop", env=utf8, ok=False)
    assert "no UTF-8: \\udcff, and ×" in stopped.stderr
