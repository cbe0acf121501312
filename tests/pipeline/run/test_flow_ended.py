"""Runs that are ended, cancelled or killed, and servers that are lost: nothing is left of them."""

import os
import re
import signal
import sys
import time
from pathlib import Path

import psutil
import pytest

from pipeline.commands.run import INTERRUPTED, SERVER_LOST, TERMINATED
from pipeline.run.server_contact import LOST_SECONDS
from tests.support.dags import (
    DEAF,
    END_SECONDS,
    ask,
    family,
    going_in,
    make_dag,
    started,
    state_of,
    task_states,
    wait_until,
)
from tests.support.pipeline.flows import proxy, run


@pytest.mark.parametrize(
    "how",
    [
        *(pytest.param(how, marks=pytest.mark.soak) for how in ("cancel", "SIGTERM", "SIGINT")),
        "SIGKILL",
    ],
)
def test_nothing_is_left_of_a_run_that_is_ended(
    prefect_server: str, tmp_path: Path, how: str
) -> None:
    # A short grace period: the workers of torchrun use all of it.
    end_a_run(prefect_server, tmp_path, how, torchrun=how == "SIGKILL", REPRISE_GRACE_SECONDS="2")


@pytest.mark.soak
@pytest.mark.parametrize("how", ["cancel", "SIGTERM", "SIGKILL"] * 5)
def test_nothing_is_left_of_torchrun_every_time(
    prefect_server: str, tmp_path: Path, how: str
) -> None:
    end_a_run(prefect_server, tmp_path, how, torchrun=True)


def end_a_run(url: str, tmp_path: Path, how: str, *, torchrun: bool, **env: str) -> None:
    command = "sleep 300 & setsid sleep 300 & sleep 300"
    if torchrun:
        command = "python -m torch.distributed.run --standalone --nproc-per-node=2 deaf.py"
    project = make_dag(
        tmp_path / "dag", {"long": {"cmd": f"({command})"}, "next": {"after": ["long"]}}
    )
    (project.path / "deaf.py").write_text(DEAF)
    word = "deaf.py" if torchrun else "sleep 300"
    with started(project, url, **env) as process:
        # The launcher and both workers, or the three sleeps.
        wait_until(lambda: sum(word in line for line in family(project)) >= 3, 60)
        assert process.poll() is None
        flow_run = going_in(project)
        time.sleep(1.0 if torchrun else 0.0)
        if how == "cancel":
            state = {"state": {"type": "CANCELLING", "name": "Cancelling"}}
            ask(url, f"/flow_runs/{flow_run}/set_state", state)
        else:
            process.send_signal(getattr(signal, how))
        took = wait_until(lambda: family(project) == [], 2 * END_SECONDS)
        said, _ = process.communicate(timeout=30)
    end = "CRASHED" if how == "SIGKILL" else "CANCELLED"
    took += wait_until(lambda: state_of(url, flow_run) == end)
    if how != "SIGKILL":
        assert said.endswith("cancelled: every process of the run has ended\n")
        assert process.returncode == {"SIGTERM": TERMINATED, "SIGINT": INTERRUPTED}.get(how, 1)
    assert took < END_SECONDS
    assert "Running" not in task_states(url, flow_run).values()
    project.edit("dvc.yaml", f"({command})", "true")
    assert run(project, url)[1] == {"long": "Ran", "next": "Ran"}


@pytest.mark.soak
def test_a_cancel_does_not_wait_for_a_retry(prefect_server: str, tmp_path: Path) -> None:
    meta = {"retries": 1, "retry_delay_seconds": 600}
    broken = {"cmd": "echo tried >> tries && false", "meta": meta}
    project = make_dag(tmp_path / "dag", {"broken": broken})
    with started(project, prefect_server) as process:
        wait_until(lambda: (project.path / "tries").exists())
        flow_run = going_in(project)
        wait_until(
            lambda: (
                "AwaitingRetry" in str(task_states(prefect_server, flow_run))
                or "Retrying" in str(task_states(prefect_server, flow_run))
            )
        )
        state = {"state": {"type": "CANCELLING", "name": "Cancelling"}}
        ask(prefect_server, f"/flow_runs/{flow_run}/set_state", state)
        process.wait(30)
    assert state_of(prefect_server, flow_run) == "CANCELLED"
    assert (project.path / "tries").read_text() == "tried\n"


@pytest.mark.soak
def test_a_refused_run_leaves_params_as_they_are(prefect_server: str, tmp_path: Path) -> None:
    project = make_dag(tmp_path / "dag", {"long": {"cmd": "(touch here; sleep 300)"}})
    before = (project.path / "params.yaml").read_bytes()
    with started(project, prefect_server) as process:
        wait_until(lambda: (project.path / "here").exists())
        env = {"PREFECT_API_URL": prefect_server}
        project.run("reprise", "run", "--set", "train.epochs=3", ok=False, env=env)
        process.terminate()
    project.run("reprise", "run", "--set", "train.epochs=3", "nostage", ok=False, env=env)
    assert (project.path / "params.yaml").read_bytes() == before


def test_survivors_of_a_killed_supervisor_are_ended_by_the_next_run(
    prefect_server: str, tmp_path: Path
) -> None:
    project = make_dag(tmp_path / "dag", {"long": {"cmd": "sleep 300"}})
    with started(project, prefect_server) as process:
        wait_until(lambda: "sleep 300" in family(project))
        supervisors = [p for p in psutil.pids() if is_supervisor(p, process.pid)]
        assert len(supervisors) == 1
        # Flow and supervisor at one stroke, as the kernel does when memory runs out.
        process.kill()
        os.kill(supervisors[0], signal.SIGKILL)
        process.wait()
    rwlock = project.path / ".dvc/tmp/rwlock"
    rwlock.write_text('{"write": {')
    project.edit("dvc.yaml", "sleep 300", "true")
    said, states = run(project, prefect_server, REPRISE_GRACE_SECONDS="1")
    assert states == {"long": "Ran"}
    assert "removed .dvc/tmp/rwlock" in said
    # The run's own watchdog ends a moment after it.
    wait_until(lambda: family(project) == [], END_SECONDS)


def is_supervisor(pid: int, parent: int) -> bool:
    try:
        process = psutil.Process(pid)
        return process.ppid() == parent and any(
            "supervisor.py" in word for word in process.cmdline()
        )
    except psutil.Error:
        return False


def test_without_a_server_it_says_what_to_do(tmp_path: Path) -> None:
    project = make_dag(tmp_path / "dag", {"one": {}})
    done = project.run(
        "reprise", "run", ok=False, env={"PREFECT_API_URL": "http://127.0.0.1:9/api"}
    )
    assert "http://127.0.0.1:9/api" in done.stderr
    assert "reprise up" in done.stderr
    assert "dvc repro" in done.stderr


IMPATIENT = (
    "from pipeline.cli import main; import pipeline.run.server_contact as c; "
    "c.LOST_SECONDS = {}; main()"
)


@pytest.mark.soak
@pytest.mark.parametrize(
    ("patience_seconds", "end", "code"),
    [
        (3.0, "true", SERVER_LOST),
        (0.1, "exit 3", 1),
        (LOST_SECONDS, "true", SERVER_LOST),
    ],
)
def test_a_server_that_is_lost_in_the_middle_costs_no_result(
    prefect_server: str, tmp_path: Path, patience_seconds: float, end: str, code: int
) -> None:
    wait = "touch here; while ! test -e go; do sleep 0.1; done"
    stages = {"long": {"cmd": f"({wait})"}, "next": {"cmd": f"({end})", "after": ["long"]}}
    project = make_dag(tmp_path / "dag", stages)
    program = (sys.executable, "-c", IMPATIENT.format(patience_seconds))
    with (
        proxy(prefect_server) as (url, lose),
        started(project, url, program=program) as process,
    ):
        wait_until(lambda: (project.path / "here").exists(), 120)
        lose()
        (project.path / "go").touch()
        # Both stages take some seconds, and looking whether they ended some more.
        begin = time.monotonic()
        said, _ = process.communicate(timeout=150)
        assert time.monotonic() - begin < patience_seconds + 60, "Prefect alone tries for longer"
    assert process.returncode == code, said
    assert re.search(r"long +│ ran", said)
    assert "is gone, so the end of this run does not stand there" in said
    assert "Traceback" not in said
    (project.path / "go").unlink()  # it would not end a second time
    project.edit("dvc.yaml", f"({end})", "(true)")
    assert "long" not in project.repro(), "all that ended is in dvc.lock"
