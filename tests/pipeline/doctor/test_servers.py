"""Prefect's server and its workers: whether they answer, and whether their versions fit."""

import socket
import time
import uuid
from datetime import UTC, datetime, timedelta

import pytest

from pipeline.doctor.checks import servers
from pipeline.doctor.finding import Options
from pipeline.server import prefect_api
from tests.support.pipeline.findings import bad


def test_a_prefect_server_its_version_its_workers(
    prefect_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = servers.version("prefect")
    found = list(servers.check_server(prefect_server, "of the environment", version, Options()))
    assert found[0].what == f"Prefect {version} answers at {prefect_server}"
    gone = "http://127.0.0.1:9/api"
    assert bad(servers.check_server(gone, "of .env", version, Options()))[0][0] == "wrong"
    (far,) = servers.check_server("https://prefect.example.org/api", "", version, Options())
    assert "was not asked" in far.what


def test_the_version_of_a_worker_is_what_its_last_event_says(
    prefect_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(servers, "POOL", "of-the-doctor")
    name = "a worker of 'her' own"
    made = {"name": servers.POOL, "type": "process"}
    pool = prefect_api.request(prefect_server, "/work_pools/", made)
    beat = f"/work_pools/{servers.POOL}/workers/heartbeat"
    prefect_api.request(prefect_server, beat, {"name": name})
    version = servers.version("prefect")
    (unknown,) = list(servers.check_server(prefect_server, "", version, Options()))[1:]
    assert unknown.level == "ok"
    assert "its version is not known" in unknown.what
    # As `_event_resource` of prefect's workers has it.
    events = [
        {
            "id": str(uuid.uuid4()),
            "occurred": (datetime.now(UTC) - timedelta(seconds=age)).isoformat(),
            "event": "prefect.worker.started",
            "resource": {
                "prefect.resource.id": "prefect.worker.process.a-worker",
                "prefect.resource.name": name,
                "prefect.version": of,
            },
            "related": [
                {
                    "prefect.resource.id": f"prefect.work-pool.{pool['id']}",
                    "prefect.resource.role": "work-pool",
                }
            ],
        }
        for age, of in ((60, "3.0.0"), (1, "3.0.1"))
    ]
    prefect_api.request(prefect_server, "/events", events)
    end = time.monotonic() + 20
    while not (found := bad(servers.check_server(prefect_server, "", version, Options()))):
        assert time.monotonic() < end
        time.sleep(0.1)
    assert found == [("note", f"the worker '{name}' is Prefect 3.0.1, here is {version}")]


@pytest.mark.parametrize(
    ("server", "here", "level", "mend"),
    [
        ("3.8.8", "3.8.8", "ok", ""),
        (None, "3.8.8", "ok", ""),
        ("2.20.1", "3.8.8", "wrong", "install --upgrade prefect"),
        ("3.8.8", "2.20.1", "wrong", "install --upgrade prefect"),
        ("3.8.2", "3.8.10", "note", "install --upgrade prefect"),
        ("3.8.10", "3.8.2", "note", "prefect==3.8.10 in constraints.txt"),
    ],
)
def test_versions_are_judged_as_prefect_does(
    server: str | None, here: str, level: str, mend: str
) -> None:
    (found,) = servers.check_version("https://prefect.example.org/api", server, here)
    assert found.level == level
    assert mend in "".join(found.mend)
    assert bool(found.why) == (level != "ok")


@pytest.mark.parametrize(
    ("own", "server", "level"),
    [
        ("3.8.8", "3.8.8", "ok"),
        ("3.8.8", None, "ok"),
        ("2.1.0", "3.8.8", "wrong"),
        ("3.9.0", "3.8.8", "note"),
        ("3.8.2", "3.8.8", "note"),
    ],
)
def test_a_worker_is_as_new_as_here_and_no_newer_than_its_server(
    own: str, server: str | None, level: str
) -> None:
    (found,) = servers.check_worker("w", own, server, "3.8.8")
    assert found.level == level
    assert bool(found.mend) == (level != "ok")


def test_a_server_that_does_not_answer_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(servers, "answers", lambda _: True)
    monkeypatch.setattr(servers, "ANSWER_SECONDS", 0.2)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/api"
        begun = time.monotonic()
        ((level, what),) = bad(servers.check_server(url, "", "3.8.8", Options()))
    assert level == "note"
    assert "timed out" in what
    assert time.monotonic() - begun < 5
