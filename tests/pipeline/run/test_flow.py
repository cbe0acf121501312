"""`reprise run` on a real Prefect server: states, retries, side by side, and one at a time."""

import os
import re
import signal
import socket
import sys
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from pipeline.commands.run import SERVER_LOST
from pipeline.run.server_contact import LOST_SECONDS
from tests.conftest import Project
from tests.support.dags import (
    DEAF,
    END_SECONDS,
    ask,
    family,
    flow_run_in,
    going_in,
    make_dag,
    started,
    state_of,
    task_states,
    wait_until,
)


def run(
    project: Project,
    url: str,
    *arguments: str,
    ok: bool | None = True,
    cold: bool = False,
    **env: str,
) -> tuple[str, dict[str, str]]:
    """`reprise run`; what it said, and the states of its tasks in Prefect."""
    variables = {"PREFECT_API_URL": url, **env}
    done = project.run("reprise", "run", *arguments, ok=ok, env=variables, cold=cold)
    said = done.stdout + done.stderr
    return said, task_states(url, flow_run_in(said))


def test_every_end_has_a_state_of_its_own(prefect_server: str, tmp_path: Path) -> None:
    project = make_dag(
        tmp_path / "dag",
        {
            "flaky": {
                "cmd": "echo try >> tries && test $(wc -l < tries) -gt 2",
                "meta": {"retries": 2},
            },
            "broken": {"cmd": "echo I can not go on && exit 3"},
            "after_broken": {"after": ["broken"]},
            "after_that": {"after": ["after_broken"]},
            "neighbour": {"after": ["flaky"]},
        },
    )
    said, states = run(project, prefect_server, ok=False)
    assert states == {
        "flaky": "Ran",
        "broken": "Failed",
        "after_broken": "Skipped",
        "after_that": "Skipped",
        "neighbour": "Ran",
    }
    assert state_of(prefect_server, flow_run_in(said)) == "FAILED"
    assert (project.path / "tries").read_text() == "try\n" * 3
    assert "broken failed (exit code 3)" in said
    assert "I can not go on" in said.split("broken failed")[1]

    project.edit("dvc.yaml", "echo I can not go on && exit 3", "true")
    said, states = run(project, prefect_server)
    assert states["flaky"] == states["neighbour"] == "Unchanged"
    assert states["broken"] == states["after_that"] == "Ran"
    # Back and forth: the second time it comes from DVC's cache.
    before = (project.path / "Makefile").read_bytes()
    (project.path / "Makefile").write_text("all:\n")
    assert run(project, prefect_server, "neighbour")[1] == {
        "flaky": "Ran",
        "neighbour": "Unchanged",
    }
    (project.path / "Makefile").write_bytes(before)
    assert run(project, prefect_server, "flaky")[1] == {"flaky": "Restored"}
    assert project.run("dvc", "status").stdout.strip().endswith("up to date.")
    assert run(project, prefect_server, "--force", "flaky")[1] == {"flaky": "Ran"}


def test_what_prefect_shows_beside_the_tasks(prefect_server: str, tmp_path: Path) -> None:
    project = make_dag(
        tmp_path / "dag", {"one": {"cmd": "echo a line of one"}, "two": {"after": ["one"]}}
    )
    # A proxy that gets nowhere is not asked for what is on this machine.
    proxies = dict.fromkeys(("HTTP_PROXY", "http_proxy"), "http://127.0.0.1:9")
    said, _ = run(project, prefect_server, "--set", "train.epochs=3", **proxies)
    wanted = {"flow_runs": {"id": {"any_": [flow_run_in(said)]}}}
    artifacts = {a["key"]: a["data"] for a in ask(prefect_server, "/artifacts/filter", wanted)}
    assert "| one | stale | never run" in artifacts["plan"]
    assert "No metric differs" in artifacts["metrics"]
    assert "params" in artifacts
    tasks = {t["name"]: t for t in ask(prefect_server, "/task_runs/filter", wanted)}
    edges = [edge["id"] for edges in tasks["two"]["task_inputs"].values() for edge in edges]
    assert edges == [tasks["one"]["id"]]
    logs = {"logs": {"task_run_id": {"any_": [tasks["one"]["id"]]}}}
    wait_until(
        lambda: (
            "a line of one" in [log["message"] for log in ask(prefect_server, "/logs/filter", logs)]
        )
    )


def test_stages_run_side_by_side_and_the_lock_does_not_tell(
    prefect_server: str, tmp_path: Path
) -> None:
    # Each waits for the other's file: one after the other they would wait for ever.
    meet = "touch {0}.here && for i in $(seq 300); do test -e {1}.here && break; sleep 0.1; done"
    stages = {f"s{i:02}": {"cmd": "true"} for i in range(6)}
    stages["late"] = {"cmd": meet.format("late", "early") + " && sleep 0.5"}
    stages["early"] = {"cmd": meet.format("early", "late")}
    project = make_dag(tmp_path / "dag", stages)
    _, states = run(project, prefect_server, "--parallel", "4")
    assert set(states.values()) == {"Ran"}
    assert len(states) == 8
    lock = (project.path / "dvc.lock").read_bytes()
    (project.path / "dvc.lock").unlink()
    project.run("dvc", "repro")
    assert (project.path / "dvc.lock").read_bytes() == lock


def test_a_preempted_stage_goes_on_and_a_slow_one_is_ended(
    prefect_server: str, tmp_path: Path
) -> None:
    project = make_dag(
        tmp_path / "dag",
        {
            "preempted": {"cmd": "if ! test -e saved; then touch saved; exit 75; fi"},
            # It says that it can go on, but its time is up.
            "slow": {
                "cmd": "trap 'exit 75' TERM; sleep 300 & wait",
                "meta": {"timeout_seconds": 2},
            },
            "limited": {
                "meta": {"concurrency": {"name": "one-at-a-time", "limit": 1}, "tags": ["x"]}
            },
        },
    )
    # The supervisor ends a family of processes; a warm one has another parent.
    said, states = run(project, prefect_server, ok=False, cold=True)
    assert states == {"preempted": "Ran", "slow": "Failed", "limited": "Ran"}
    assert "preempted (exit code 75): running it again" in said
    assert "slow failed (no end after 2 s" in said
    assert family(project) == []
    limit = ask(prefect_server, "/v2/concurrency_limits/one-at-a-time")
    assert (limit["limit"], limit["active_slots"]) == (1, 0)


@pytest.mark.parametrize(
    "how",
    [*(pytest.param(how, marks=pytest.mark.soak) for how in ("cancel", "SIGTERM")), "SIGKILL"],
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
        process.wait(30)
    took += wait_until(lambda: state_of(url, flow_run) in ("CANCELLED", "CRASHED"))
    assert took < END_SECONDS
    assert "Running" not in task_states(url, flow_run).values()
    project.edit("dvc.yaml", f"({command})", "true")
    assert run(project, url)[1] == {"long": "Ran", "next": "Ran"}


def test_one_run_at_a_time_in_a_folder(prefect_server: str, tmp_path: Path) -> None:
    wait = "touch here; while ! test -e go; do sleep 0.1; done"
    project = make_dag(tmp_path / "dag", {"long": {"cmd": f"({wait})"}})
    with started(project, prefect_server) as first:
        wait_until(lambda: (project.path / "here").exists())
        env = {"PREFECT_API_URL": prefect_server}
        said = project.run("reprise", "run", ok=False, env=env).stderr
        assert f"a run (process {first.pid}, since " in said
        assert "is going in this folder" in said
        assert "'reprise run --wait'" in said
        with started(project, prefect_server, "--wait") as second:
            time.sleep(3)
            assert second.poll() is None
            (project.path / "go").touch()
            assert first.wait(30) == 0
            assert second.wait(30) == 0


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


@contextmanager
def proxy(url: str) -> Iterator[tuple[str, Callable[[], None]]]:
    """Another address of the server, and a function after which nothing answers there."""
    target = urllib.parse.urlsplit(url)
    listener = socket.create_server(("127.0.0.1", 0))
    pairs: list[socket.socket] = []

    def forward(source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def accept() -> None:
        with suppress(OSError):
            while True:
                near, _ = listener.accept()
                far = socket.create_connection((target.hostname, target.port))
                pairs.extend((near, far))
                for ends in ((near, far), (far, near)):
                    threading.Thread(target=forward, args=ends, daemon=True).start()

    def close() -> None:
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        for end in (listener, *pairs):
            end.close()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}{target.path}", close
    finally:
        close()


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


def test_wrong_meta_and_unknown_stages_are_said_before_anything_runs(
    prefect_server: str, tmp_path: Path
) -> None:
    project = make_dag(tmp_path / "dag", {"one": {"meta": {"retires": 2}}, "two": {}})
    env = {"PREFECT_API_URL": prefect_server}
    said = project.run("reprise", "run", ok=False, env=env).stderr
    assert "unknown key 'retires'" in said
    assert "did you mean 'retries'?" in said
    project.edit("dvc.yaml", "retires", "retries")
    said = project.run("reprise", "run", "tow", ok=False, env=env).stderr
    assert "did you mean 'two'?" in said
    assert not (project.path / "one.out").exists()


@pytest.mark.soak
def test_twenty_four_stages_at_once_ten_times(prefect_server: str, tmp_path: Path) -> None:
    stages = {f"s{number:02}": {} for number in range(24)}
    project = make_dag(tmp_path / "dag", stages)
    for _ in range(10):
        _, states = run(project, prefect_server, "--parallel", "8", "--force")
        assert states == dict.fromkeys(stages, "Ran")
        lock = (project.path / "dvc.lock").read_text(encoding="utf-8")
        assert all(f"\n  {name}:\n" in lock for name in stages)
        (project.path / "dvc.lock").unlink()
