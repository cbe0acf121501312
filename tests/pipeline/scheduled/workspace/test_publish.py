"""Results of a run that are pushed: on top of others, refused, or onto a full disk."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.scheduled.publish import publish
from pipeline.scheduled.workspace import WORKSPACES, open_workspace
from stages.common.errors import UserError
from tests.conftest import Project
from tests.support.pipeline.runs import RAN, repro, run_once
from tests.support.remotes import branches, snapshot


def push_from_elsewhere(tiny: Project, branch: str, file: str, text: str) -> str:
    """Somebody else puts a commit on `branch` at origin."""
    other = Project(tiny.path.parent / "other")
    tiny.run("git", "clone", "--quiet", str(tiny.path.parent / "origin.git"), str(other.path))
    (other.path / file).write_text(text, encoding="utf-8")
    other.commit("theirs")
    other.run("git", "push", "--quiet", "origin", f"HEAD:refs/heads/{branch}")
    return other.run("git", "rev-parse", "HEAD").stdout.strip()


def test_a_push_that_another_has_overtaken_goes_on_top(tiny: Project) -> None:
    origin = Project(tiny.path.parent / "origin.git")
    said: list[str] = []
    with open_workspace(tiny.path, "run", None, said.append) as workspace:
        repro(workspace)
        theirs = push_from_elsewhere(tiny, "reprise/nightly/run", "REVIEW.md", "looks good\n")
        publish(workspace, "nightly", RAN, said.append)
    assert any("somebody else ([rejected]" in line for line in said), said
    listed = origin.run("git", "log", "--format=%H", "reprise/nightly/run").stdout.split()
    assert listed[0] == branches(origin.path)["reprise/nightly/run"]
    assert listed[1] == theirs
    assert origin.run("git", "show", "reprise/nightly/run:REVIEW.md").stdout == "looks good\n"
    assert origin.run("git", "show", "reprise/nightly/run:metrics.json").stdout == '{"lines": 1}\n'


def test_a_conflict_is_said_and_the_results_are_kept(tiny: Project) -> None:
    origin = tiny.path.parent / "origin.git"
    before = snapshot(tiny.path)
    with open_workspace(tiny.path, "run", None, print) as workspace:
        repro(workspace)
        theirs = push_from_elsewhere(tiny, "reprise/nightly/run", "metrics.json", "{}\n")
        with pytest.raises(UserError, match=r"these results: metrics\.json") as error:
            publish(workspace, "nightly", RAN, print)
    assert branches(origin)["reprise/nightly/run"] == theirs
    assert f"the results are on branch reprise/nightly/run of {tiny.path}" in str(error.value)
    kept = tiny.run("git", "show", "reprise/nightly/run:metrics.json").stdout
    assert kept == '{"lines": 1}\n'
    assert snapshot(tiny.path) == before


def test_a_remote_that_refuses_loses_nothing(tiny: Project) -> None:
    hook = tiny.path.parent / "origin.git/hooks/pre-receive"
    hook.write_text("#!/bin/sh\necho only on Mondays >&2; exit 1\n")
    hook.chmod(0o755)
    with pytest.raises(UserError, match="only on Mondays") as error:
        run_once(tiny)
    assert "the results are on branch reprise/nightly/run" in str(error.value)
    assert "reprise/nightly/run" in branches(tiny.path)


def test_nobody_sees_the_token_in_an_address(tiny: Project) -> None:
    # Nothing listens on port 9.
    tiny.run("git", "remote", "set-url", "origin", "http://me:secret-token@127.0.0.1:9/x.git")
    said: list[str] = []
    with pytest.raises(UserError) as error:
        run_once(tiny, "run", said)
    assert "'git fetch' failed" in str(error.value)
    assert "secret-token" not in f"{error.value}{said}"
    assert list((tiny.path / WORKSPACES).iterdir()) == []


@pytest.fixture
def small_disk(tiny: Project) -> Iterator[Path]:
    """A file system of 1 MB where the workspaces go."""
    folder = tiny.path / WORKSPACES
    folder.mkdir(parents=True)
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(folder)]
    if subprocess.run(command, capture_output=True).returncode != 0:
        pytest.skip("mounting takes rights that this user does not have")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_or_read_only_disk_is_said(tiny: Project, small_disk: Path) -> None:
    (small_disk / "filler").write_bytes(b"x" * 1_000_000)
    with pytest.raises(UserError, match="No space left"):
        run_once(tiny)
    (small_disk / "filler").unlink()
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(UserError, match=r"cannot write under .*Read-only file system"):
        run_once(tiny)
