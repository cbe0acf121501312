"""What a stage or a command reaches outside: no address but this machine's, and no file but in the
repository, its temporary folders and the known caches of the tools.

`strace` sees what libraries in C do as well, which Python's audit hook does not.
"""

import re
import shutil
import sys
import tempfile
from pathlib import Path

import pytest

from tests.conftest import Project
from tests.support.samples import mixed_table, run_stages, small_project

# Inside the home folder: what tools are known to keep between runs.
KNOWN = (".cache/matplotlib", ".cache/torch", ".config/matplotlib", ".cache/dvc", ".config/dvc")
CALLS = "connect,sendto,sendmsg,sendmmsg,openat,mkdir,mkdirat,rename,renameat,renameat2"
ADDRESS = re.compile(r'sin6?_addr=inet_(?:addr|pton)\((?:AF_INET6?, )?"([^"]*)"')
LOOPBACK = ("127.", "::1", "0.0.0.0")
WRITTEN = re.compile(r'(?:openat\([^"]*|mkdir(?:at)?\([^"]*|rename[^"]*"[^"]*", [^"]*)"([^"]*)"')

pytestmark = pytest.mark.skipif(shutil.which("strace") is None, reason="there is no strace here")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Project:
    folder = tmp_path_factory.mktemp("outside") / "p"
    changes = {"prepare.key": "id", "build.model": {"name": "linear"}, "train.epochs": 1}
    project = small_project(folder, mixed_table(), changes)
    run_stages(project, "prepare", "build", "tune", "train")
    return project


def traced(project: Project, folder: Path, *command: str) -> list[str]:
    """The system calls of a command and of all that it starts, with a home folder of its own."""
    home, trace = folder / "home", folder / "trace"
    home.mkdir()
    # Tests switch telemetry off for themselves, as CI does: a user's shell has none of it.
    bare = ["env", "-u", "ORT_DISABLE_TELEMETRY", "-u", "DO_NOT_TRACK", "-u", "CI"]
    bare += [f"HOME={home}", f"TMPDIR={tempfile.gettempdir()}"]
    strace = ["strace", "-f", "--seccomp-bpf", "-qq", "-e", f"trace={CALLS}", "-o", str(trace)]
    project.run(*bare, *strace, sys.executable, *command)
    lines = trace.read_text(encoding="utf-8", errors="replace").splitlines()
    # Else it saw nothing of the work.
    assert any("data/" in line for line in lines)
    return lines


def reached(lines: list[str], project: Project, home: Path) -> list[str]:
    """The addresses that are not this machine's, and the files elsewhere that were written."""
    found = []
    allowed = [*(home / name for name in KNOWN), Path("/dev"), Path("/proc"), Path(sys.prefix)]
    temporary = [project.path, Path(tempfile.gettempdir()), Path("/var/tmp/dvc")]
    for line in lines:
        for address in ADDRESS.findall(line):
            if not address.startswith(LOOPBACK):
                found.append(line)
        writes = "O_CREAT" in line or "O_WRONLY" in line or "O_RDWR" in line or "openat" not in line
        named = WRITTEN.search(line)
        if writes and named and " = -1 " not in line:
            path = project.path / named[1]
            # The tests' own home folder is a temporary one.
            places = allowed if path.is_relative_to(home) else [*allowed, *temporary]
            # `~/.config`, too, may be made on the way.
            known = any(path.is_relative_to(at) or at.is_relative_to(path) for at in places)
            if not known:
                found.append(line)
    return found


@pytest.mark.parametrize(
    "command",
    [
        ("-m", "stages.infer"),
        pytest.param(("-m", "stages.prepare"), marks=pytest.mark.soak),
        pytest.param(("-m", "stages.build"), marks=pytest.mark.soak),
        pytest.param(("-m", "stages.tune"), marks=pytest.mark.soak),
        pytest.param(("-m", "stages.train"), marks=pytest.mark.soak),
        pytest.param(("-m", "stages.evaluate"), marks=pytest.mark.soak),
        pytest.param(
            ("-m", "stages.tools.predict_file", "data/raw/table.parquet"), marks=pytest.mark.soak
        ),
    ],
    ids=lambda command: command[1],
)
def test_it_reaches_nothing_outside(
    made: Project, command: tuple[str, ...], tmp_path: Path
) -> None:
    lines = traced(made, tmp_path, *command)
    assert reached(lines, made, tmp_path / "home") == []
