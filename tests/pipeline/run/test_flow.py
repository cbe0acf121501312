"""`reprise run` on a real Prefect server: states, retries, side by side, and one at a time."""

import time
from pathlib import Path

import pytest

from tests.support.dags import ask, family, flow_run_in, make_dag, started, state_of, wait_until
from tests.support.pipeline.flows import run


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


def test_one_run_at_a_time_in_a_folder(prefect_server: str, tmp_path: Path) -> None:
    wait = "touch here; while ! test -e go; do sleep 0.1; done"
    project = make_dag(tmp_path / "dag", {"long": {"cmd": f"({wait})"}})
    with started(project, prefect_server) as first:
        wait_until(lambda: (project.path / "here").exists())
        env = {"PREFECT_API_URL": prefect_server}
        done = project.run("reprise", "run", ok=False, env=env)
        assert done.stdout == "", "the server hears nothing of it"
        said = done.stderr
        assert f"a run (process {first.pid}, since " in said
        assert "is going in this folder" in said
        assert "'reprise run --wait'" in said
        gate = project.run("reprise", "gate", ok=None, env=env)
        assert f"note: a run (process {first.pid}, since " in gate.stderr
        with started(project, prefect_server, "--wait") as second:
            time.sleep(3)
            assert second.poll() is None
            (project.path / "go").touch()
            assert first.wait(30) == 0
            assert second.wait(30) == 0
    assert "is going" not in project.run("reprise", "gate", ok=None, env=env).stderr


def test_wrong_meta_and_unknown_stages_are_said_before_anything_runs(
    prefect_server: str, tmp_path: Path
) -> None:
    project = make_dag(tmp_path / "dag", {"one": {"meta": {"retires": 2}}, "two": {}})
    env = {"PREFECT_API_URL": prefect_server}
    said = project.run("reprise", "run", ok=False, env=env).stderr
    assert "unknown key 'retires'" in said
    assert "did you mean 'retries'?" in said
    project.edit("dvc.yaml", "retires", "retries")
    done = project.run("reprise", "run", "tow", ok=False, env=env)
    assert "did you mean 'two'?" in done.stderr
    assert done.stdout == "", "the server hears nothing of it"
    # A pool that the server does not have, for the second of two stages.
    project.run("git", "remote", "add", "origin", "../origin.git")
    project.run("dvc", "remote", "add", "--default", "store", "../store")
    env |= {"REPRISE_WORK_POOL_two": "nopool"}
    done = project.run("reprise", "run", ok=False, env=env)
    assert "can't be sent to a work pool: two (to 'nopool')" in done.stderr
    assert "Prefect has no work pool 'nopool'" in done.stderr
    # After an edit the run is there, and says why in a line of its own.
    settings = ("--set", "train.epochs=3")
    done = project.run("reprise", "run", *settings, ok=False, env=env)
    told = ask(prefect_server, f"/flow_runs/{flow_run_in(done.stdout)}")["state"]
    assert (told["type"], told["message"].splitlines()[1]) == (
        "FAILED",
        "Prefect has no work pool 'nopool'",
    )
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
