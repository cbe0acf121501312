"""A server where one is needed: alone, what the user has configured, who may read its password."""

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from pipeline.commands.down import down
from pipeline.server import launch, up
from pipeline.server.access import AUTH, ensure_auth, read_auth
from pipeline.server.ensure import ensure_server, find_server
from pipeline.server.prefect_api import answers, configured_server
from pipeline.server.services import STATE, ServiceProcess, read_records, write_records
from stages.common.errors import UserError
from tests.conftest import Project
from tests.pipeline.server.attacks import attack_server
from tests.pipeline.server.servers import free_port, of


def test_a_server_alone_when_one_is_needed(
    folder: Project, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(launch, "SERVER_PORT", free_port())
    assert find_server() is None
    url = ensure_server()
    assert answers(url)
    assert list(read_records()) == ["server"]
    attack_server(url.removesuffix("/api"))
    said = capfd.readouterr()
    address = url.removesuffix("/api")
    assert said.err == f"started a Prefect server: {address}   ('reprise down' ends it)\n"
    assert ensure_server() == find_server() == url
    assert capfd.readouterr() == ("", "")
    # A file of a worker that never came up, and the like, is no reason to start a second one.
    assert len(of(folder)) == 1
    down()
    assert of(folder) == []


def test_what_the_user_has_configured_comes_first(
    folder: Project, prefect_server: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert configured_server() is None
    home = tmp_path / "home"
    home.mkdir()
    (home / "profiles.toml").write_text(
        'active = "team"\n[profiles.team]\nPREFECT_API_URL = "http://127.0.0.1:9/api"\n'
    )
    monkeypatch.setenv("PREFECT_HOME", str(home))
    assert configured_server() == ("http://127.0.0.1:9/api", "Prefect's profile 'team'")
    with pytest.raises(UserError, match="does not answer") as error:
        ensure_server()
    for advice in ("Prefect's profile 'team'", "unset PREFECT_API_URL", "reprise up", "dvc repro"):
        assert advice in str(error.value)
    (folder.path / ".env").write_text("PREFECT_API_URL='http://127.0.0.1:10/api'\n")
    assert configured_server() == ("http://127.0.0.1:10/api", ".env")
    monkeypatch.setenv("PREFECT_API_URL", prefect_server)
    assert ensure_server() == prefect_server
    assert of(folder) == []


def test_an_auth_string_that_others_could_read_is_replaced(
    folder: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    auth = ensure_auth()
    assert ensure_auth() == read_auth() == auth
    AUTH.chmod(0o644)
    assert ensure_auth() != auth
    assert AUTH.stat().st_mode & 0o777 == 0o600
    # The server of an older version: said, and not taken for one that asks.
    began = psutil.Process().create_time()
    write_records(
        {"server": ServiceProcess("server", os.getpid(), began, 4200, "http://127.0.0.1:4200")}
    )
    AUTH.unlink()
    with pytest.raises(UserError, match=r"there is no \.reprise/auth.*\n.*reprise down"):
        up.up(up.UpOptions())
    STATE.unlink()
    # What the user has set for Prefect's server comes first, and clients have it too.
    monkeypatch.setenv("PREFECT_SERVER_API_AUTH_STRING", "me:mine")
    assert ensure_auth() == read_auth() == "me:mine"
    variables = launch.environment("http://127.0.0.1:4200/api")
    assert variables["PREFECT_API_AUTH_STRING"] == "me:mine"
    assert variables["PREFECT_SERVER_API_AUTH_STRING"] == "me:mine"


def test_finding_a_server_imports_no_prefect() -> None:
    code = (
        "import sys; from pipeline.server.ensure import answers, find_server; find_server(); "
        "answers('http://127.0.0.1:9/api'); "
        "print([m for m in ('prefect', 'dvc', 'rich', 'httpx') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
