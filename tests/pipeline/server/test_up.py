"""`reprise up` and `reprise down`: real servers, real processes, real kills."""

import json
import os
import signal
import socket
import sqlite3
import subprocess
import time
import urllib.error
import urllib.request
from datetime import UTC, datetime
from pathlib import Path

import psutil
import pytest

from pipeline.commands.down import down
from pipeline.common.ports import choose_port
from pipeline.server import launch, up
from pipeline.server import shutdown as endings
from pipeline.server.access import AUTH
from pipeline.server.ensure import find_server
from pipeline.server.names import POOL
from pipeline.server.prefect_api import request
from pipeline.server.register import ZOMBIES, read_deployments
from pipeline.server.services import STATE, ServiceProcess, read_records, write_records
from stages.common.errors import UserError
from tests.conftest import Project
from tests.pipeline.server.attacks import attack_board, attack_server, listens_beyond_this_machine
from tests.pipeline.server.servers import WAIT_SECONDS, free_port, of, start, wait_for


def test_up_twice_repair_and_down(folder: Project) -> None:
    port, board = str(free_port()), str(free_port())
    # A proxy that gets nowhere, as a company's does with 127.0.0.1.
    env = dict.fromkeys(("HTTP_PROXY", "http_proxy", "HTTPS_PROXY"), "http://127.0.0.1:9")
    ports = ("--port", port, "--tensorboard-port", board)
    shown = folder.run("reprise", "up", *ports, env=env).stdout
    url = f"http://127.0.0.1:{port}"
    assert f"Prefect              │ {url} " in shown
    assert f"TensorBoard          │ http://127.0.0.1:{board} " in shown
    assert "deployment nightly   │ 0 2 * * * Europe/Berlin, switched off" in shown
    assert "deployment on-demand │ when asked" in shown
    assert find_server() == f"{url}/api"
    for address in (url, f"http://127.0.0.1:{board}"):
        with urllib.request.urlopen(address) as page:
            assert b"<html" in page.read()
    automations = request(f"{url}/api", "/automations/filter", {})
    assert [a["name"] for a in automations] == [ZOMBIES["name"]]
    assert "with what .reprise/auth says, which only you can read" in shown
    attack_server(url)
    attack_board(f"http://127.0.0.1:{board}")
    assert listens_beyond_this_machine({process.pid for process in of(folder)}) == []
    secret = AUTH.read_text().strip()
    assert not any(secret in " ".join(process.cmdline()) for process in of(folder))
    assert secret not in shown
    # Again: nothing is started, and quickly.
    records = STATE.read_text()
    begin = time.monotonic()
    again = folder.run("reprise", "up").stdout
    assert time.monotonic() - begin < 5
    assert again.splitlines()[0] == "it is up already"
    assert url in again
    assert STATE.read_text() == records
    other = folder.run("reprise", "up", "--port", "1", ok=False).stderr
    assert f"server is up already at {url}" in other
    # What has died is started again, where it was.
    dead = read_records()["tensorboard"]
    psutil.Process(dead.pid).kill()
    repaired = folder.run("reprise", "up").stdout
    assert "tensorboard had ended, and was started again" in repaired
    now = read_records()["tensorboard"]
    assert now.pid != dead.pid
    assert now.address == dead.address
    assert json.loads(records)["services"][0]["pid"] == read_records()["server"].pid
    # A run that has started a process in a session of its own ends with the worker.
    run = run_sleeper(folder, f"{url}/api")
    begin = time.monotonic()
    said = folder.run("reprise", "down").stdout
    assert time.monotonic() - begin < 15
    assert said == "ended: worker, tensorboard, server\n"
    assert of(folder) == []
    assert not STATE.exists()
    assert find_server() is None
    assert folder.run("reprise", "down").stdout == "nothing is up\n"
    with sqlite3.connect(launch.DATABASE) as database:
        query = "select state_type from flow_run where id = ?"
        assert database.execute(query, [run]).fetchone()[0] != "RUNNING"
    database.close()


SLEEPER = """\
import subprocess
from prefect import flow

@flow
def sleeper():
    subprocess.run(["sleep", "600.5"], start_new_session=True)
"""


def run_sleeper(project: Project, url: str) -> str:
    """Have the worker run a flow that waits for a process outside its session; the run's id."""
    (project.path / "sleeper.py").write_text(SLEEPER)
    deployed = {
        "name": "sleeper",
        "flow_id": request(url, "/flows/", {"name": "sleeper"})["id"],
        "entrypoint": "sleeper.py:sleeper",
        "work_pool_name": POOL,
        "pull_steps": read_deployments(url)[0]["pull_steps"],
    }
    deployment = request(url, "/deployments/", deployed)
    # What a run asks of the machine: Prefect refuses it where it looks, and else nothing comes.
    evil = {"command": "touch owned", "env": {"EVIL": "1"}, "working_dir": "/"}
    body = {"job_variables": evil}
    with pytest.raises(urllib.error.HTTPError, match="422"):
        request(url, f"/deployments/{deployment['id']}/create_flow_run", body)
    wanted = {
        "flow_id": deployment["flow_id"],
        "deployment_id": deployment["id"],
        "work_pool_name": POOL,
        "work_queue_name": deployment["work_queue_name"],
        "job_variables": evil,
        "state": {"type": "SCHEDULED", "state_details": {"scheduled_time": str(now_utc())}},
    }
    run = request(url, "/flow_runs/", wanted)
    assert request(url, f"/flow_runs/{run['id']}")["job_variables"] == evil
    sleepers: list[psutil.Process] = []
    wait_for(lambda: sleepers.extend(p for p in of(project) if "600.5" in p.cmdline()) or sleepers)
    assert "EVIL" not in sleepers[0].environ()
    assert list(project.path.rglob("owned")) == []
    return str(run["id"])


def now_utc() -> datetime:
    return datetime.now(UTC)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_up_that_is_killed_in_the_middle_leaves_nothing_for_long(
    folder: Project, number: signal.Signals
) -> None:
    going = start(folder, "--no-worker", "--no-tensorboard", "--port", str(free_port()))
    with going:
        wait_for(lambda: of(folder))
        time.sleep(0.3)
        going.send_signal(number)
        going.wait(WAIT_SECONDS)
    if number == signal.SIGKILL:
        assert len(of(folder)) == 1
        STATE.unlink(missing_ok=True)  # as if it had died before it could write it
        assert folder.run("reprise", "down").stdout == "ended: server\n"
    assert of(folder) == []
    assert not STATE.exists()


def test_ports(folder: Project) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert choose_port(port, "--port", fixed=False) > port
        said = folder.run("reprise", "up", "--port", str(port), ok=False).stderr
    who = f"by process {os.getpid()} ("
    assert f"port {port} can't be used: Address already in use, {who}" in said
    assert "choose another with --port" in said
    assert of(folder) == []
    assert not STATE.exists()


def test_a_process_that_has_got_a_recorded_id_is_never_ended(folder: Project) -> None:
    with subprocess.Popen(["sleep", "60"]) as stranger:
        Path(".reprise").mkdir()
        began = psutil.Process(stranger.pid).create_time()
        write_records(
            {"server": ServiceProcess("server", stranger.pid, began - 100, 4200, "http://x")}
        )
        assert find_server() is None
        assert folder.run("reprise", "down").stdout == "nothing is up\n"
        assert stranger.poll() is None
        stranger.kill()
    # Damaged by a full disk, say.
    Path(".reprise/up.json").write_text('{"services": [{"na')
    assert folder.run("reprise", "down").stdout == "nothing is up\n"


def test_down_ends_the_others_when_one_does_not_end(
    folder: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def end(name: str, record: ServiceProcess | None, grace_seconds: float) -> None:
        if name == "worker":
            raise UserError("worker does not end")
        endings.end(name, record, grace_seconds)

    monkeypatch.setattr("pipeline.commands.down.end", end)
    Path(".reprise").mkdir()
    with subprocess.Popen(["sleep", "60"]) as worker, subprocess.Popen(["sleep", "60"]) as server:
        started = {"worker": worker, "server": server}
        began = {name: psutil.Process(p.pid).create_time() for name, p in started.items()}
        write_records(
            {name: ServiceProcess(name, p.pid, began[name]) for name, p in started.items()}
        )
        try:
            with pytest.raises(UserError, match="worker does not end"):
                down()
            assert worker.poll() is None
            assert server.wait(1) == -signal.SIGTERM
        finally:
            worker.kill()
            server.kill()
    assert capsys.readouterr().out == "ended: server\n"
    assert list(read_records()) == ["worker"]


def test_a_server_that_can_not_start_says_why(
    folder: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(up, "START_SECONDS", 4.0)
    wanted = up.UpOptions(port=free_port(), worker=False, tensorboard=False)
    launch.PREFECT_FOLDER.mkdir(parents=True)
    with sqlite3.connect(launch.DATABASE, isolation_level=None) as database:
        database.execute("BEGIN EXCLUSIVE")
        with pytest.raises(UserError, match="server was not ready after 4 s") as error:
            up.up(wanted)
    database.close()
    assert "prefect.db can't be written: database is locked" in "".join(error.value.__notes__)
    assert of(folder) == []
    launch.DATABASE.write_text("this is no database, though it was one once " * 100)
    monkeypatch.setattr(up, "START_SECONDS", WAIT_SECONDS)
    with pytest.raises(UserError, match=r"the last lines of .reprise/logs/server.log") as error:
        up.up(wanted)
    assert "file is not a database" in "".join([str(error.value), *error.value.__notes__])
    assert of(folder) == []


def test_a_full_or_read_only_disk_is_said(folder: Project) -> None:
    home = folder.path / ".reprise"
    home.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=3m", "none", str(home)]
    if subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("mounting takes rights that this user does not have")
    try:
        (home / "filler").write_bytes(b"x" * 2_000_000)
        arguments = ["--no-worker", "--no-tensorboard", "--port", str(free_port())]
        said = folder.run("reprise", "up", *arguments, ok=False).stderr
        assert f"the disk of {home} is full: " in said
        assert of(folder) == []
        subprocess.run(["mount", "-o", "remount,ro", str(home)], check=True)
        said = folder.run("reprise", "up", ok=False).stderr
        assert said == "cannot write under .reprise: Read-only file system\n"
    finally:
        subprocess.run(["umount", str(home)], check=True)
