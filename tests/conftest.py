"""One prepared example for the whole session: a clone in which `dvc repro` has run.

Tests that change something take a copy of it (`clone`); nothing writes into the repository.
"""

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
# What a command of a test may take before it counts as hanging.
TIMEOUT_SECONDS = 300


@dataclass(frozen=True)
class Project:
    """A working copy of the project somewhere else, and how to run commands in it."""

    path: Path

    def run(
        self, *command: str, ok: bool | None = True, env: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in the project; `ok` says whether it must succeed, None either."""
        done = subprocess.run(
            command,
            cwd=self.path,
            env={**project_environment(), **(env or {})},
            capture_output=True,
            text=True,
            timeout=TIMEOUT_SECONDS,
        )
        said = f"{' '.join(command)}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        if ok is not None:
            assert (done.returncode == 0) == ok, said
        return done

    def repro(self, *arguments: str, **options: object) -> list[str]:
        """Run `dvc repro`; return the stages that ran or came from the cache."""
        done = self.run("dvc", "repro", *arguments, **options)  # type: ignore[arg-type]
        return [
            line.split("'")[1]
            for line in done.stdout.splitlines()
            if line.startswith("Running stage '")
        ]

    def edit(self, file: str, old: str, new: str) -> None:
        """Replace the one place where `old` stands in a file."""
        path = self.path / file
        text = path.read_text(encoding="utf-8")
        assert text.count(old) == 1, f"{old!r} stands {text.count(old)} times in {file}"
        path.write_text(text.replace(old, new), encoding="utf-8")

    def outputs(self) -> dict[str, bytes]:
        """Every output of every stage with its bytes."""
        data = self.path / "data"
        apart = {"raw", "tensorboard", ".writing"}
        return {
            str(file.relative_to(self.path)): file.read_bytes()
            for file in sorted(data.rglob("*"))
            if file.is_file() and file.relative_to(data).parts[0] not in apart
        }

    def commit(self, message: str) -> None:
        """Commit everything that git does not ignore."""
        self.run("git", "add", "--all")
        self.run("git", "commit", "--quiet", "--allow-empty", "--message", message)


def project_environment() -> dict[str, str]:
    """The tests' own interpreter first on PATH, a git identity, nothing that changes results."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("REPRISE_", "PET_", "GIT_"))}
    return {
        **kept,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "GIT_AUTHOR_NAME": "test",
        "GIT_AUTHOR_EMAIL": "test@example.org",
        "GIT_COMMITTER_NAME": "test",
        "GIT_COMMITTER_EMAIL": "test@example.org",
    }


def copy_project(target: Path) -> Project:
    """A fresh repository with what the working tree holds: tracked files and new ones."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        check=True,
        text=True,
    )
    for name in filter(None, listed.stdout.split("\0")):
        source = ROOT / name
        if source.is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target / name)
    project = Project(target)
    project.run("git", "init", "--quiet", "--initial-branch", "main")
    project.commit("start")
    return project


@pytest.fixture(scope="session")
def example(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Project:
    """The example after `dvc repro`, committed. Shared by all workers: read it, don't change it."""
    base = tmp_path_factory.getbasetemp()
    shared = base if worker_id == "master" else base.parent
    target = shared / "example"
    with (shared / "example.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (shared / "example.ready").exists():
            target.mkdir()
            project = copy_project(target)
            project.run("dvc", "repro")
            project.commit("reproduced")
            (shared / "example.ready").touch()
    return Project(target)


@pytest.fixture
def clone(example: Project, tmp_path: Path) -> Project:
    """A copy of the example that a test may change, its DVC cache included."""
    target = tmp_path / "clone"
    shutil.copytree(example.path, target, symlinks=True)
    return Project(target)


@pytest.fixture
def fresh(tmp_path: Path) -> Callable[[str], Project]:
    """Makes a fresh repository with the project's files and an empty cache."""

    def make(name: str) -> Project:
        (tmp_path / name).mkdir()
        return copy_project(tmp_path / name)

    return make


@pytest.fixture(autouse=True)
def _own_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test depends on what the caller's shell has set for the machine."""
    for name in ("REPRISE_DEVICE", "REPRISE_THREADS", "PET_NPROC_PER_NODE"):
        monkeypatch.delenv(name, raising=False)
