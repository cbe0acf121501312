"""Projects with a DAG of small shell stages, and what Prefect's server knows of their runs."""

import fcntl
import json
import os
import re
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
from ruamel.yaml import YAML

from tests.conftest import SHARED, Project, copy_project, project_environment

# What the issue allows from a kill to the end of the last process.
END_SECONDS = 15.0
# A worker under torchrun, deaf to SIGTERM as real ones can be while they wait for each other.
DEAF = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("working", flush=True)
time.sleep(300)
"""


def know_answers(project: Project) -> None:
    """Give a fresh copy what torch says of the committed `params.yaml`: asked once a session."""
    answers = Path(os.environ[SHARED], "rehearsed.json")
    theirs = project.path / ".reprise/rehearsed.json"
    with answers.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not answers.exists():
            project.run(
                "python", "-c", "from pipeline.params.check import *; rehearse(read_yaml(PARAMS))"
            )
            shutil.copy2(theirs, answers)
    theirs.parent.mkdir(exist_ok=True)
    shutil.copy2(answers, theirs)


def make_dag(folder: Path, stages: Mapping[str, Mapping[str, Any]]) -> Project:
    """The project with `stages` in place of its own; a stage `x` writes the file `x.out`.

    `cmd` is what it does before that; `after` names the stages whose files it reads.
    """
    folder.mkdir()
    project = copy_project(folder)
    know_answers(project)
    tree: dict[str, Any] = {}
    for name, stage in stages.items():
        deps = [f"{before}.out" for before in stage.get("after", [])]
        tree[name] = {
            "cmd": f"{stage.get('cmd', 'true')} && echo {name} > {name}.out",
            "deps": [*deps, *stage.get("deps", [])] or ["Makefile"],
            "outs": [f"{name}.out"],
            **{key: stage[key] for key in ("meta", "metrics", "params") if key in stage},
        }
    with (folder / "dvc.yaml").open("w", encoding="utf-8") as file:
        yaml = YAML()
        yaml.width = 4096
        yaml.dump({"stages": tree}, file)
    (folder / "dvc.lock").unlink()
    project.commit("another pipeline")
    return project


@contextmanager
def started(
    project: Project,
    url: str,
    *arguments: str,
    program: tuple[str, ...] = ("reprise",),
    **variables: str,
) -> "Iterator[subprocess.Popen[str]]":
    """`reprise run` in the background; killed at the end if it is still there."""
    with subprocess.Popen(
        [*program, "run", *arguments],
        cwd=project.path,
        env={
            **project_environment(),
            "PREFECT_API_URL": url,
            "PATH_OF_TEST": str(project.path),
            **variables,
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_until(condition: Callable[[], object], seconds: float = 90.0) -> float:
    """Wait until `condition()` holds; the seconds that it took. Fails after `seconds`."""
    start = time.monotonic()
    while not condition():
        assert time.monotonic() - start < seconds, f"not within {seconds:g} s"
        time.sleep(0.1)
    return time.monotonic() - start


def family(project: Project) -> list[str]:
    """The command lines of the living processes that run stages of this project or its clones."""
    found = []
    for process in psutil.process_iter():
        try:
            variables = process.environ()
            root = variables.get("DVC_ROOT", variables.get("PATH_OF_TEST", ""))
            ours = f"{root}/".startswith(f"{project.path}/")
            if ours and process.status() != psutil.STATUS_ZOMBIE and process.pid != os.getpid():
                found.append(" ".join(process.cmdline()))
        except psutil.Error:
            continue
    return found


def ask(url: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
    """What Prefect's API answers; a POST when there is a body."""
    request = urllib.request.Request(
        f"{url}{path}",
        data=None if body is None else json.dumps(body).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=30) as response:
        return json.loads(response.read() or "null")


def flow_run_in(said: str) -> str:
    """The id of the flow run that a command says it is."""
    found = re.search(r"/flow-run/([0-9a-f-]{36})", said)
    assert found is not None, said
    return found[1]


def going_in(project: Project) -> str:
    """The id of the flow run that is going in the project's folder."""
    run: str = json.loads((project.path / ".reprise/run.lock").read_text())["run"]
    return run


def state_of(url: str, flow_run: str) -> str:
    """The type of a flow run's state."""
    state: str = ask(url, f"/flow_runs/{flow_run}")["state_type"]
    return state


def task_states(url: str, flow_run: str) -> dict[str, str]:
    """The name of each task's state in a flow run."""
    body = {"flow_runs": {"id": {"any_": [flow_run]}}, "limit": 200}
    return {run["name"]: run["state_name"] for run in ask(url, "/task_runs/filter", body)}
