"""A repository with its remotes, and workers of a pool in clones of their own."""

import os
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from pipeline.server.prefect_api import request
from tests.conftest import Project, project_environment
from tests.support.dags import started

# A run of a test that says nothing for as long has died.
SILENT_SECONDS = 12


@dataclass(frozen=True)
class Place:
    """Our clone, its bare `origin` and DVC remote beside it, and the name of a work pool."""

    project: Project
    url: str
    pool: str

    @property
    def folder(self) -> Path:
        return self.project.path.parent

    @property
    def origin(self) -> Path:
        return self.folder / "origin.git"

    def environment(self, stage: str, **variables: str) -> dict[str, str]:
        return {
            "PREFECT_API_URL": self.url,
            f"REPRISE_WORK_POOL_{stage}": self.pool,
            "REPRISE_SILENT_SECONDS": str(SILENT_SECONDS),
            **variables,
        }

    def run(self, stage: str, *arguments: str, ok: bool | None = True, **env: str) -> str:
        """`reprise run` with one stage in the pool; what it said."""
        done = self.project.run(
            "reprise", "run", *arguments, ok=ok, env=self.environment(stage, **env)
        )
        return done.stdout + done.stderr

    @contextmanager
    def started(self, stage: str, *arguments: str, **env: str) -> "Iterator[subprocess.Popen[str]]":
        with started(
            self.project, self.url, *arguments, **self.environment(stage, **env)
        ) as process:
            yield process

    def refs(self) -> list[str]:
        """The refs of origin, those of runs among them."""
        done = Project(self.origin).run("git", "for-each-ref", "--format=%(refname)")
        return done.stdout.split()

    def runs(self) -> list[dict[str, Any]]:
        """The runs of the pool, the newest last."""
        body = {"work_pools": {"name": {"any_": [self.pool]}}, "sort": "EXPECTED_START_TIME_ASC"}
        found: list[dict[str, Any]] = request(self.url, "/flow_runs/filter", body)
        return found


def make_place(project: Project, url: str) -> Place:
    """Remotes for a project that has none, all in the folder beside it, and a work pool."""
    folder, pool = project.path.parent, f"pool-{uuid.uuid4().hex[:8]}"
    project.run("dvc", "remote", "add", "--default", "store", str(folder / "store"))
    project.commit("a remote")
    project.run("git", "init", "--quiet", "--bare", "--initial-branch", "main", "../origin.git")
    project.run("git", "remote", "add", "origin", str(folder / "origin.git"))
    project.run("git", "push", "--quiet", "origin", "HEAD:main")
    request(url, "/work_pools/", {"name": pool, "type": "process"})
    return Place(project, url, pool)


def clone_for_worker(place: Place, name: str = "worker") -> Project:
    """A clone of origin as a worker has it, with a DVC cache of its own."""
    Project(place.folder).run("git", "clone", "--quiet", "origin.git", name)
    return Project(place.folder / name)


@contextmanager
def worker(place: Place, clone: Project, **variables: str) -> Iterator[psutil.Process]:
    """A worker of the pool, ended with all that it has started."""
    command = [sys.executable, "-m", "prefect", "--no-prompt", "worker", "start"]
    command += ["--pool", place.pool, "--type", "process", "--install-policy", "never"]
    own = {"PREFECT_API_URL": place.url, "REPRISE_BASE": str(clone.path)}
    own |= {"PREFECT_WORKER_QUERY_SECONDS": "1", "PREFECT_LOGGING_TO_API_BATCH_INTERVAL": "0.5"}
    with (place.folder / f"{clone.path.name}.log").open("ab") as output:
        process = subprocess.Popen(
            command,
            env={**project_environment(), **own, **variables},
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        yield psutil.Process(process.pid)
    finally:
        with suppress(psutil.NoSuchProcess):
            for child in psutil.Process(process.pid).children(recursive=True):
                with suppress(psutil.NoSuchProcess):
                    child.terminate()
        process.terminate()
        process.wait(30)


def log_of(place: Place, name: str = "worker") -> str:
    """What a worker and its runs have said."""
    return (place.folder / f"{name}.log").read_text(errors="replace")


def going_for(place: Place) -> list[str]:
    """The processes of runs, on both sides, that live."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            variables = process.environ()
            cwd = process.cwd()
            ours = "REPRISE_RUN" in variables and cwd.startswith(str(place.folder))
            if ours and process.status() != psutil.STATUS_ZOMBIE and process.pid != os.getpid():
                found.append(" ".join(process.cmdline()))
    return found


def wait_for_nobody(place: Place, seconds: float) -> float:
    """Wait until no process of a run is left; the seconds that it took."""
    begin = time.monotonic()
    while left := going_for(place):
        assert time.monotonic() - begin < seconds, left
        time.sleep(0.2)
    return time.monotonic() - begin
