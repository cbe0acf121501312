"""Users, owners: what `reprise` says where the machine is not as a laptop's."""

import getpass
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.commands.run import remedy, run
from pipeline.common.git import ForeignFolderError, git
from pipeline.common.user import know_user
from pipeline.plan.plan import make_plan
from pipeline.report.base import find_base
from stages.common.errors import UserError
from tests.conftest import Project
from tests.support.dags import know_answers

# A user namespace with a number that no list of users has.
NAMELESS = ("unshare", "--user", "--map-user=12345", "env", "-u", "USER", "-u", "LOGNAME")


def test_a_repository_of_another_user(
    fresh: Callable[[str], Project], monkeypatch: pytest.MonkeyPatch
) -> None:
    project = fresh("project")
    know_answers(project)
    monkeypatch.chdir(project.path)
    # Git's own way to try this without rights to give files away.
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    said = f"git reads nothing in {project.path}: it belongs to user "
    for do in (
        lambda: find_base("main"),
        lambda: find_base(None),
        lambda: run([], [], force=False, parallel=1, wait=False),
        lambda: git(Path(), "status"),
    ):
        with pytest.raises(ForeignFolderError) as error:
            do()
        assert str(error.value).startswith(said)
        assert f"git config --global --add safe.directory {project.path}" in str(error.value)
    assert not Path(".reprise/up.json").exists(), "no server was started"
    # A plan asks git what older versions were, and is one without.
    assert len(make_plan([])) == 6


def test_a_user_of_whom_the_machine_has_no_entry(
    fresh: Callable[[str], Project], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(os, "getuid", lambda: 4_242_424)
    with pytest.raises((KeyError, OSError)):
        getpass.getuser()
    know_user()
    assert getpass.getuser() == "user-4242424"
    monkeypatch.delenv("HOME")
    with pytest.raises(UserError, match=r"HOME is not set.*user 4242424.*\n.*export HOME="):
        know_user()
    if subprocess.run([*NAMELESS, "true"], capture_output=True).returncode != 0:
        pytest.skip("this machine lets nobody make a user namespace")
    project = fresh("project")
    know_answers(project)
    env = {"HOME": str(tmp_path)}
    assert "would run: prepare" in project.run(*NAMELESS, "reprise", "plan", env=env).stdout
    homeless = project.run(*NAMELESS, "-u", "HOME", "reprise", "plan", ok=False).stderr
    assert "HOME is not set, and this machine knows no home of user 12345" in homeless
    assert "Traceback" not in homeless


def test_what_may_help_against_a_server_that_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    here, elsewhere = "http://127.0.0.1:4200/api", "https://prefect.example.org/api"
    assert "what .reprise/auth says there" in remedy(here, "Client error '401 Unauthorized' for")
    assert "the free disk space" in remedy(elsewhere, "All connection attempts failed")
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    assert "asked through HTTPS_PROXY" in remedy(elsewhere, "All connection attempts failed")
    assert "the free disk space" in remedy(here, "500 Internal Server Error")
