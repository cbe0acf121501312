"""What a web page, a neighbour on the machine and a run's author may try on `reprise up`."""

import base64
import http.client
import json
import os
import stat
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect
from websockets.typing import Origin, Subprotocol

EVIL = "http://evil.example"


def status_of(
    address: str, path: str, *, body: object = None, method: str | None = None, **headers: str
) -> tuple[int, dict[str, str]]:
    """The status and the headers of an answer to a request with just these headers."""
    to = urlsplit(address)
    connection = http.client.HTTPConnection(str(to.hostname), to.port, timeout=30)
    data = None if body is None else json.dumps(body)
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    method = method or ("GET" if body is None else "POST")
    connection.request(method, path, data, {"Content-Type": "application/json", **names})
    answer = connection.getresponse()
    answer.read()
    connection.close()
    return answer.status, {name.lower(): value for name, value in answer.getheaders()}


def attack_server(address: str, auth: Path = Path(".reprise/auth")) -> None:
    """Everything that a page of another site, or another user, may try on Prefect's server."""
    assert stat.S_IMODE(auth.stat().st_mode) == 0o600
    pair = auth.read_text().strip()
    known = {"Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}
    port = urlsplit(address).port
    asked = ("/api/flow_runs/filter", {})
    assert status_of(address, asked[0], body=asked[1], **known)[0] == 200
    # Without the auth string, or with another.
    for wrong in ({}, {"Authorization": "Basic cmVwcmlzZTo="}, {"Authorization": "Bearer x"}):
        assert status_of(address, asked[0], body=asked[1], **wrong)[0] == 401
    # The names of another machine that was made to mean this one, also with what logs in.
    for host in ("evil.example", f"evil.example:{port}", f"127.0.0.1.evil.example:{port}", ""):
        assert status_of(address, asked[0], body=asked[1], Host=host, **known)[0] == 403
        assert status_of(address, "/", Host=host)[0] == 403
    # Another site's page, another port's, and one that has none.
    for page in (EVIL, "http://127.0.0.1:1", "null", f"https://127.0.0.1:{port}"):
        answered, headers = status_of(address, asked[0], body={}, Origin=page, **known)
        assert (answered, headers.get("access-control-allow-origin")) == (403, None)
        preflight = {"Origin": page, "Access_Control_Request_Method": "POST"}
        answered, headers = status_of(address, asked[0], method="OPTIONS", **preflight)
        assert (answered, headers.get("access-control-allow-origin")) == (403, None)
    # The UI's own page, under both names of the machine.
    for page in (f"http://127.0.0.1:{port}", f"http://localhost:{port}"):
        answered, headers = status_of(address, asked[0], body={}, Origin=page, **known)
        assert (answered, headers["access-control-allow-origin"]) == (200, page)
    # The browser's rules for pages don't hold for websockets: the server alone keeps them out.
    socket = f"ws://127.0.0.1:{port}/api/events/in"
    with pytest.raises(InvalidStatus, match="403"), connect(socket, origin=Origin(EVIL)):
        pass
    with connect(socket, subprotocols=[Subprotocol("prefect")], proxy=None) as channel:
        channel.send(json.dumps({"type": "auth", "token": "reprise:"}))
        with pytest.raises(ConnectionClosed):
            channel.recv(timeout=10)


def attack_board(address: str) -> None:
    """The same of TensorBoard, which has no auth string and only shows."""
    port = urlsplit(address).port
    assert status_of(address, "/data/environment")[0] == 200
    assert status_of(address, "/data/environment", Origin=f"http://localhost:{port}")[0] == 200
    for headers in ({"Host": f"evil.example:{port}"}, {"Origin": EVIL}, {"Origin": "null"}):
        assert status_of(address, "/data/environment", **headers)[0] == 403
        assert status_of(address, "/", **headers)[0] == 403


def listens_beyond_this_machine(pids: set[int]) -> list[str]:
    """The addresses beyond loopback at which any of these processes listens."""
    inodes = set()
    for pid in pids:
        for link in Path(f"/proc/{pid}/fd").iterdir():
            try:
                inodes.add(os.readlink(link).removeprefix("socket:[").rstrip("]"))  # noqa: PTH115
            except OSError:
                continue
    rows = [line.split() for name in ("tcp", "tcp6") for line in _lines(f"/proc/net/{name}")]
    listening = [row[1] for row in rows if row[3] == "0A" and row[9] in inodes]
    return [place for place in listening if not place.startswith("0100007F:")]


def _lines(path: str) -> list[str]:
    file = Path(path)
    return file.read_text().splitlines()[1:] if file.exists() else []
