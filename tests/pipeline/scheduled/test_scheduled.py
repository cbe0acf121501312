"""Deployments, with a real Prefect server and worker: each run in a clone of its own."""

import json
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from pipeline.scheduled.workspace import WORKSPACES
from pipeline.server.prefect_api import request
from pipeline.server.register import ZOMBIES, ensure_automation
from tests.conftest import Project, project_environment
from tests.support.dags import DEAF, END_SECONDS, family
from tests.support.remotes import branches, make_tiny, snapshot

WAIT_SECONDS = 120.0
# In a process of its own, as a worker runs it; the parameters come as JSON.
RUN = """\
import json, sys
from pipeline.scheduled.flow import scheduled
states = [scheduled(**parameters, return_state=True) for parameters in json.loads(sys.argv[1])]
print(json.dumps([[state.type.name, state.message] for state in states]))
"""


def environment_of(project: Project, url: str) -> dict[str, str]:
    own = {"PREFECT_API_URL": url, "REPRISE_BASE": str(project.path)}
    own |= {"PREFECT_WORKER_QUERY_SECONDS": "1", "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30"}
    return {**project_environment(), **own}


def run_flows(
    project: Project, url: str, *runs: dict[str, object]
) -> tuple[list[tuple[str, str]], str]:
    """Each run's end: the type of its state and its message; and the log of all."""
    command = [sys.executable, "-c", RUN, json.dumps(runs)]
    done = project.run(*command, env=environment_of(project, url))
    return json.loads(done.stdout.splitlines()[-1]), done.stderr


@contextmanager
def worker(
    project: Project, url: str, pool: str, log: Path, **variables: str
) -> Iterator[psutil.Process]:
    command = [sys.executable, "-m", "prefect", "--no-prompt", "worker", "start", "--pool", pool]
    with log.open("wb") as output:
        process = subprocess.Popen(
            # One run at a time: the second is to find what the first has left.
            [*command, "--type", "process", "--install-policy", "never", "--limit", "1"],
            env={**environment_of(project, url), **variables},
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        yield psutil.Process(process.pid)
    finally:
        with suppress(psutil.NoSuchProcess):
            for child in psutil.Process(process.pid).children(recursive=True):
                child.terminate()
        process.terminate()
        process.wait(30)


@contextmanager
def deployed(url: str, pool: str, flow: str, **settings: object) -> Iterator[str]:
    """A deployment of `flow` (a file's name and a function in it); removed at the end."""
    base = "{{ $REPRISE_BASE }}"
    step = "prefect.deployments.steps.set_working_directory"
    request(url, "/work_pools/", {"name": pool, "type": "process"})
    name = flow.partition(":")[2]
    body = {
        "name": pool,
        "flow_id": request(url, "/flows/", {"name": name})["id"],
        "entrypoint": flow,
        "work_pool_name": pool,
        "pull_steps": [{step: {"directory": base}}],
        **settings,
    }
    identifier = request(url, "/deployments/", body)["id"]
    try:
        yield identifier
    finally:
        request(url, f"/deployments/{identifier}", method="DELETE")


def runs_of(url: str, deployment: str, *states: str) -> list[dict[str, Any]]:
    body = {"deployments": {"id": {"any_": [deployment]}}, "sort": "EXPECTED_START_TIME_ASC"}
    runs: list[dict[str, Any]] = request(url, "/flow_runs/filter", body)
    return [run for run in runs if not states or run["state_type"] in states]


def wait_for(what: Callable[[], object], log: Path, seconds: float = WAIT_SECONDS) -> None:
    until = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < until, log.read_text()
        time.sleep(0.2)


def test_a_schedule_fires_and_leaves_its_branch_and_outputs_once(
    prefect_server: str, tmp_path: Path
) -> None:
    project = make_tiny(tmp_path / "tiny")
    (project.path / "flows.py").write_text("from pipeline.scheduled.flow import scheduled\n")
    # A person works here meanwhile.
    (project.path / "source.txt").write_text("half an edit")
    before = snapshot(project.path)
    pool, origin, log = f"pool-{uuid.uuid4().hex[:8]}", tmp_path / "origin.git", tmp_path / "log"
    schedule = {"schedule": {"interval": 4}, "active": True}
    with (
        deployed(prefect_server, pool, "flows.py:scheduled", schedules=[schedule]) as deployment,
        worker(project, prefect_server, pool, log),
    ):
        wait_for(lambda: len(runs_of(prefect_server, deployment, "COMPLETED", "FAILED")) >= 2, log)
        ended = runs_of(prefect_server, deployment, "COMPLETED", "FAILED")[:2]
    assert [run["state_type"] for run in ended] == ["COMPLETED", "COMPLETED"], log.read_text()
    first = f"reprise/{pool}/{ended[0]['name']}"
    assert set(branches(origin)) == {"main", first}
    shown = Project(origin).run("git", "show", "--format=%B", "--stat", first).stdout
    assert "count: lines 1" in shown
    assert "ran: count, double" in shown
    assert f"{first} holds the same results" in log.read_text()
    # Whoever fetches the branch gets its data from the DVC remote.
    reader = Project(tmp_path / "reader")
    Project(tmp_path).run("git", "clone", "--quiet", "--branch", first, str(origin), "reader")
    reader.run("dvc", "remote", "modify", "--local", "store", "url", str(tmp_path / "store"))
    reader.run("dvc", "pull", "--quiet")
    assert (reader.path / "doubled.txt").read_text() == "one\none\n"
    assert snapshot(project.path) == before


def test_a_failed_stage_publishes_nothing_and_keeps_the_workspace(
    prefect_server: str, tmp_path: Path
) -> None:
    project = make_tiny(tmp_path / "tiny")
    (project.path / "broken.txt").touch()
    project.commit("break it")
    project.run("git", "push", "--quiet", "origin", "main")
    before = snapshot(project.path)
    [(state, message)], log = run_flows(project, prefect_server, {})
    assert state == "FAILED", log
    assert "failed: count" in message
    assert list(branches(tmp_path / "origin.git")) == ["main"]
    assert not (tmp_path / "store").exists()
    (kept,) = [path for path in (project.path / WORKSPACES).iterdir() if path.is_dir()]
    assert (kept / "broken.txt").exists()
    assert str(kept) in log
    assert snapshot(project.path) == before


def test_wrong_overrides_fail_before_anything_runs(
    example: Project, prefect_server: str, tmp_path: Path
) -> None:
    # Only what is committed is needed, and nothing runs: no copy of the data.
    project = Project(tmp_path / "project")
    Project(tmp_path).run("git", "clone", "--quiet", str(example.path), "project")
    project.run("git", "remote", "remove", "origin")
    wrong = {
        "did you mean 'epochs'?": {"train.epoch": 3},
        "overrides  train.epochs: many": {"train.epochs": "many"},
        "build.model.width": {"build.model.width": -1, "seed": 1},
    }
    runs = [{"overrides": overrides} for overrides in wrong.values()]
    ended, log = run_flows(project, prefect_server, *runs)
    for (state, message), said in zip(ended, wrong, strict=True):
        assert state == "FAILED", log
        assert said in message
    assert "Traceback" not in log
    assert not any(word in log for word in ("dvc pull", "DVC cache", "Running stage")), log
    assert list(branches(project.path)) == ["main"]


@pytest.mark.soak
def test_overrides_at_a_revision_are_on_the_branch(
    example: Project, prefect_server: str, tmp_path: Path
) -> None:
    project = Project(tmp_path / "project")
    shutil.copytree(example.path, project.path, symlinks=True)
    project.run("git", "tag", "v1")
    project.edit("params.yaml", "seed: 0  ", "seed: 1  ")
    project.commit("another seed")
    before = snapshot(project.path)
    overrides = {"evaluate.metrics": ["accuracy"]}
    run = {"stages": ["evaluate"], "overrides": overrides, "revision": "v1"}
    [(state, _)], log = run_flows(project, prefect_server, run)
    assert state == "COMPLETED", log
    (branch,) = [name for name in branches(project.path) if name.startswith("reprise/")]
    shown = project.run("git", "diff", "--name-only", "v1", branch).stdout.split()
    assert shown == ["data/evaluate/metrics.json", "dvc.lock", "params.yaml"]
    difference = project.run("git", "diff", "-U0", "v1", branch, "--", "params.yaml").stdout
    assert "-  - f1_macro" in difference
    assert "seed" not in difference
    message = project.run("git", "log", "-1", "--format=%B", branch).stdout
    assert message.startswith("run: evaluate\n")
    metrics = json.loads(project.run("git", "show", f"{branch}:data/evaluate/metrics.json").stdout)
    assert f"evaluate: accuracy {metrics['accuracy']:.4f}" in message
    assert snapshot(project.path) == before


def kill_the_worker(url: str, tmp_path: Path, command: str, **variables: str) -> None:
    """A SIGKILL to the worker in the middle of a stage that has started `command`."""
    project = make_tiny(tmp_path / "tiny")
    (project.path / "flows.py").write_text("from pipeline.scheduled.flow import scheduled\n")
    (project.path / "deaf.py").write_text(DEAF)
    count = (project.path / "count.sh").read_text()
    (project.path / "count.sh").write_text(f"({command})\n")
    project.commit("a long one")
    project.run("git", "push", "--quiet", "origin", "main")
    pool, log = f"pool-{uuid.uuid4().hex[:8]}", tmp_path / "log"
    with deployed(url, pool, "flows.py:scheduled") as deployment:
        with worker(project, url, pool, log, **variables) as process:
            request(url, f"/deployments/{deployment}/create_flow_run", {})
            word = Path(command.split()[-1]).name
            wait_for(lambda: sum(word in line for line in family(project)) >= 3, log)
            process.kill()
            start = time.monotonic()
            wait_for(lambda: family(project) == [], log)
            wait_for(lambda: runs_of(url, deployment, "CRASHED"), log)
            assert time.monotonic() - start < END_SECONDS
        (project.path / "count.sh").write_text(count)
        project.commit("a short one")
        project.run("git", "push", "--quiet", "origin", "main")
        with worker(project, url, pool, log):
            request(url, f"/deployments/{deployment}/create_flow_run", {})
            wait_for(lambda: runs_of(url, deployment, "COMPLETED"), log)


@pytest.mark.soak
def test_nothing_is_left_of_a_run_whose_worker_is_killed(
    prefect_server: str, tmp_path: Path
) -> None:
    kill_the_worker(prefect_server, tmp_path, "sleep 300 & setsid sleep 300 & sleep 300")


@pytest.mark.soak
def test_nothing_is_left_of_torchrun_when_its_worker_is_killed(
    prefect_server: str, tmp_path: Path
) -> None:
    torchrun = "python -m torch.distributed.run --standalone --nproc-per-node=2"
    kill_the_worker(prefect_server, tmp_path, f"{torchrun} $REPRISE_BASE/deaf.py")


SLEEPER = """\
import time
from prefect import flow

@flow
def sleeper():
    time.sleep(600)
"""


@pytest.mark.soak
def test_a_run_that_was_killed_with_its_worker_crashes_by_its_silence(
    prefect_server: str, tmp_path: Path
) -> None:
    project = make_tiny(tmp_path / "tiny")
    (project.path / "sleeper.py").write_text(SLEEPER)
    ensure_automation(prefect_server)
    pool, log = f"pool-{uuid.uuid4().hex[:8]}", tmp_path / "log"
    with deployed(prefect_server, pool, "sleeper.py:sleeper") as deployment:
        with worker(project, prefect_server, pool, log) as process:
            request(prefect_server, f"/deployments/{deployment}/create_flow_run", {})
            wait_for(lambda: runs_of(prefect_server, deployment, "RUNNING"), log)
            time.sleep(5)  # its first heartbeat
            for child in [*process.children(recursive=True), process]:
                child.send_signal(signal.SIGKILL)
            process.wait(10)
        assert runs_of(prefect_server, deployment, "RUNNING")
        wait_for(lambda: runs_of(prefect_server, deployment, "CRASHED"), log, 200)
        (run,) = runs_of(prefect_server, deployment)
        assert run["state"]["message"] == ZOMBIES["actions"][0]["message"]
