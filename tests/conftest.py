"""One prepared example for the whole session: a clone in which `dvc repro` has run.

Tests that change something take a copy of it (`clone`); nothing writes into the repository.
One Prefect server, too, for those that ask for it (`prefect_server`).
"""

import atexit
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

import pytest

from tests.support.order import find_rank
from tests.support.session_process import start_for_session
from tests.support.warm.server import WARM, start_servers

ROOT = Path(__file__).resolve().parent.parent
# What is read by those who need it, never at a program's start.
LATER = ("PREFECT_API_URL", "REPRISE_", "PET_", "HTTP_PROXY", "http_proxy")
# What a command of a test may take before it counts as hanging.
TIMEOUT_SECONDS = 300
# Before torch is loaded here, and for what tests start: threads that wait for one another spin, and
# several workers' on the same cores take longer than the work. No result goes by this: a training
# sets its threads itself.
os.environ["OMP_NUM_THREADS"] = "1"
# What is started in a copy of the project finds its modules compiled.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
# A shell has its background jobs ignore it, and what they start does so too.
signal.signal(signal.SIGINT, signal.default_int_handler)
# Copies of the project are thousands of small files; ext4 takes longer to make one where many were
# deleted before. So all folders of tests lie in memory where there is room for them.
MEMORY, ROOM_BYTES = Path("/dev/shm"), 4 << 30
if "TMPDIR" not in os.environ and MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > ROOM_BYTES:
    os.environ["TMPDIR"] = str(MEMORY)
    tempfile.tempdir = None
# A folder of the whole session's: the first process of pytest that comes here makes it.
SHARED = "REPRISE_TESTS_SHARED"
if SHARED not in os.environ:
    os.environ[SHARED] = tempfile.mkdtemp(prefix="reprise-tests-")
    atexit.register(shutil.rmtree, os.environ[SHARED], ignore_errors=True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes long."""
    items.sort(key=lambda item: find_rank(item.path.relative_to(ROOT / "tests")))


@dataclass(frozen=True)
class Project:
    """A working copy of the project somewhere else, and how to run commands in it."""

    path: Path

    def run(
        self,
        *command: str,
        ok: bool | None = True,
        env: dict[str, str] | None = None,
        cold: bool = False,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in the project; `ok` says whether it must succeed, None either.

        `dvc`, `reprise` and stages start warm (`tests/support/warm/`): not with a variable that may
        say how they start, and not `cold` or from another program, as from a shell.
        """
        environment = {**project_environment(), **(env or {})}
        program = "python" if command[0] == sys.executable else command[0]
        if program in WARM and not cold and all(name.startswith(LATER) for name in env or {}):
            pytest = os.getppid() if "PYTEST_XDIST_WORKER" in os.environ else os.getpid()
            programs = start_servers(Path(os.environ[SHARED]), pytest)
            environment["PATH"] = f"{programs}{os.pathsep}{environment['PATH']}"
            command = (f"{programs}/{program}", *command[1:])
        done = subprocess.run(
            command,
            cwd=self.path,
            env=environment,
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
        # As editors do: whoever reads meanwhile has the old text or the new one.
        writing = path.with_name(f"{path.name}.writing")
        writing.write_text(text.replace(old, new), encoding="utf-8")
        writing.replace(path)

    def outputs(self) -> dict[str, bytes]:
        """Every output of every stage with its bytes; not what a killed DVC has left beside it."""
        data = self.path / "data"
        apart = {"raw", "tensorboard", ".writing"}
        return {
            str(file.relative_to(self.path)): file.read_bytes()
            for file in sorted(data.rglob("*"))
            if file.is_file()
            and file.relative_to(data).parts[0] not in apart
            and not fnmatch(file.name, ".*.tmp")
        }

    def commit(self, message: str) -> None:
        """Commit everything that git does not ignore."""
        self.run("git", "add", "--all")
        self.run("git", "commit", "--quiet", "--allow-empty", "--message", message)


def project_environment() -> dict[str, str]:
    """The tests' own interpreter first on PATH, a git identity, nothing that changes results."""
    foreign = ("REPRISE_", "PET_", "GIT_", "PREFECT_")
    kept = {k: v for k, v in os.environ.items() if not k.startswith(foreign) or k == "PREFECT_HOME"}
    return {
        **kept,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "GIT_AUTHOR_NAME": "test",
        "GIT_AUTHOR_EMAIL": "test@example.org",
        "GIT_COMMITTER_NAME": "test",
        "GIT_COMMITTER_EMAIL": "test@example.org",
    }


def copy_project(target: Path) -> Project:
    """A fresh repository with what the working tree held when the first one was made."""
    original = Path(os.environ[SHARED], "project")
    with original.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not original.exists():
            making = original.with_suffix(".making")
            making.mkdir()
            _commit_files(making)
            making.rename(original)
    shutil.copytree(original, target, symlinks=True, dirs_exist_ok=True)
    return Project(target)


def _commit_files(target: Path) -> None:
    """The first commit of a repository: tracked files of the working tree, and new ones."""
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
    # One file to copy in place of hundreds.
    project.run("git", "gc", "--quiet")


def copy_of(project: Project, folder: Path) -> Project:
    """A copy with all that is ignored, too."""
    shutil.copytree(project.path, folder, symlinks=True)
    return Project(folder)


Once = Callable[[str, Callable[[Path], None]], Project]


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Once:
    """Makes a project once for all workers. It is shared: read it, don't change it."""
    base = tmp_path_factory.getbasetemp()
    shared = base if worker_id == "master" else base.parent

    def make_once(name: str, make: Callable[[Path], None]) -> Project:
        with (shared / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not (shared / f"{name}.ready").exists():
                make(shared / name)
                (shared / f"{name}.ready").touch()
        return Project(shared / name)

    return make_once


@pytest.fixture(scope="session")
def example(once: Once) -> Project:
    """The example after `dvc repro`, committed."""

    def make(folder: Path) -> None:
        folder.mkdir()
        project = copy_project(folder)
        project.run("dvc", "repro")
        # Its copies have then asked torch already, and do so again only after an edit.
        project.run("reprise", "check", cold=True)
        project.commit("reproduced")
        # One file to copy in place of hundreds.
        project.run("git", "gc", "--quiet")

    return once("example", make)


@pytest.fixture
def clone(example: Project, tmp_path: Path) -> Project:
    """A copy of the example that a test may change, its DVC cache included."""
    return copy_of(example, tmp_path / "clone")


@pytest.fixture
def shorter(example: Project, once: Once, tmp_path: Path) -> Project:
    """A copy of the example with a branch `shorter`, checked out, of one epoch: far worse."""

    def make(folder: Path) -> None:
        project = copy_of(example, folder)
        project.run("git", "switch", "--quiet", "--create", "shorter")
        project.edit("params.yaml", "epochs: 30", "epochs: 1")
        project.repro()
        project.commit("one epoch")

    return copy_of(once("shorter", make), tmp_path / "clone")


@pytest.fixture
def fresh(tmp_path: Path) -> Callable[[str], Project]:
    """Makes a fresh repository with the project's files and an empty cache."""

    def make(name: str) -> Project:
        (tmp_path / name).mkdir()
        return copy_project(tmp_path / name)

    return make


@pytest.fixture(scope="session")
def prefect_server(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> str:
    """The API's address of a Prefect server of the tests' own, shared by all workers.

    Give it to a process or to `monkeypatch` as PREFECT_API_URL. It ends with the session: a
    process of its own watches pytest's, and ends the server when that is gone.
    """
    base = tmp_path_factory.getbasetemp()
    alone = worker_id == "master"
    folder = (base if alone else base.parent) / "prefect_server"
    folder.mkdir(exist_ok=True)
    url = folder / "url"
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not url.exists():
            watched = os.getpid() if alone else os.getppid()
            module = ["-m", "tests.support.watched_server", str(watched), str(folder)]
            start_for_session([sys.executable, *module], ROOT, folder / "server.log", url)
    return url.read_text()


@pytest.fixture(autouse=True)
def _own_settings(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """No test depends on what the caller's shell or home has set: machine, loggers, Prefect."""
    machine = ("REPRISE_DEVICE", "REPRISE_THREADS", "REPRISE_DATA")
    ours = ("REPRISE_CHECKPOINT_SECONDS", "PET_NPROC_PER_NODE", "PET_NNODES")
    for name in (*machine, *ours):
        monkeypatch.delenv(name, raising=False)
    loggers = ("REPRISE_LOGGERS", "MLFLOW_", "WANDB_")
    for name in [name for name in os.environ if name.startswith(("PREFECT_", *loggers))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path_factory.getbasetemp() / "prefect_home"))


@pytest.fixture(name="one_thread")
def _one_thread() -> Iterator[None]:
    """As the rule of `environment.py` has it for small steps; two would wait for each other."""
    from stages.model.threads import one_thread

    with one_thread():
        yield
