"""`reprise gc`: what it frees, what it must never free, and that going back still runs nothing."""

import fcntl
import os
import re
import shutil
import time
from pathlib import Path

import pytest

from pipeline.commands.garbage import find_garbage
from pipeline.common.dvc_repo import locked, open_repo
from tests.conftest import Project
from tests.support.tiny import reproduced, running_stage


def set_text(project: Project, text: str) -> None:
    params = project.path / "params.yaml"
    _, _, rest = params.read_text(encoding="utf-8").partition("\n")
    params.write_text(f"first: {{text: {text}}}\n{rest}", encoding="utf-8")


def run_with(project: Project, text: str) -> list[str]:
    """The stages that ran, not those that came from the cache, with this parameter."""
    set_text(project, text)
    said = project.run("dvc", "repro").stdout
    ran = [line.split("'")[1] for line in said.splitlines() if line.startswith("Running stage")]
    return [name for name in ran if f"Stage '{name}' is cached" not in said]


def make_old(*paths: Path) -> None:
    past = time.time() - 40 * 24 * 3600
    for path in paths:
        for inner in (path, *path.rglob("*")):
            os.utime(inner, (past, past))


def test_what_is_needed_stays_and_the_rest_goes(tmp_path: Path) -> None:
    project = reproduced(tmp_path)
    project.run("git", "checkout", "--quiet", "-b", "other")
    run_with(project, "branch")
    project.commit("other")
    project.run("git", "checkout", "--quiet", "main")
    assert run_with(project, "gone") == ["first", "second", "third"]
    assert run_with(project, "unsaved") == ["first", "second", "third"]
    make_old(project.path / ".dvc/cache/runs")
    assert run_with(project, "recent") == ["first", "second", "third"]
    assert run_with(project, "unsaved") == []

    shown = project.run("reprise", "gc", "--dry").stdout
    rows = [[cell.strip() for cell in line.split("│")] for line in shown.splitlines()]
    numbers = {row[1]: row[2] for row in rows if len(row) > 3}
    assert numbers["versions of out/first.txt"] == "1"
    assert numbers["entries of DVC's run-cache, over 30 days old"] == "3"
    assert all(len(line) <= 80 for line in shown.splitlines())
    assert "nothing to free" in project.run("reprise", "gc", "--days", "60").stdout
    assert "freed " in project.run("reprise", "gc", "--yes").stdout
    assert "nothing to free" in project.run("reprise", "gc").stdout

    for text in ("hello", "branch", "unsaved", "recent"):
        assert run_with(project, text) == [], text
    assert run_with(project, "gone") == ["first", "second", "third"]


def test_old_workspaces_and_checkpoints_go_unless_somebody_holds_them(tmp_path: Path) -> None:
    project = reproduced(tmp_path)
    old = [
        tmp_path / ".reprise" / name for name in ("workspaces/a", "checkpoints/b", "checkpoints/c")
    ]
    for folder in (*old, tmp_path / ".reprise/checkpoints/young"):
        folder.mkdir(parents=True)
        (folder / "file").write_text("x", encoding="utf-8")
    # The checkpoints of d, e and f are gone; e is young, and in f a training begins.
    locks = [tmp_path / f".reprise/checkpoints/{name}.lock" for name in "bcdef"]
    for lock in (tmp_path / ".reprise/workspaces/a.lock", *locks):
        lock.touch()
    make_old(*old, *locks)
    os.utime(locks[3])
    with locks[1].open("a") as held, locks[4].open("a") as begins:
        fcntl.flock(held, fcntl.LOCK_EX)
        fcntl.flock(begins, fcntl.LOCK_EX)
        shown = project.run("reprise", "gc", "--yes").stdout
    assert "workspace a" in shown
    assert "checkpoint b" in shown
    assert "lock files of checkpoints" in shown
    assert [folder.exists() for folder in old] == [False, False, True]
    assert not (tmp_path / ".reprise/workspaces/a.lock").exists()
    assert [lock.exists() for lock in locks] == [False, True, False, True, True]
    assert (tmp_path / ".reprise/checkpoints/young").exists()


def test_what_a_workspace_needs_stays(tmp_path: Path) -> None:
    project = reproduced(tmp_path)
    workspace = Project(tmp_path / ".reprise/workspaces/run")
    project.run("git", "clone", "--quiet", ".", str(workspace.path))
    workspace.run("dvc", "cache", "dir", str(tmp_path / ".dvc/cache"), "--local")
    run_with(workspace, "scheduled")
    make_old(tmp_path / ".dvc/cache/runs")
    assert "nothing to free" in project.run("reprise", "gc").stdout
    with workspace.path.with_name("run.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        said = project.run("reprise", "gc", ok=False).stderr
        assert "the run in .reprise/workspaces/run is going" in said
    # From inside it, the cache is somebody else's.
    said = workspace.run("reprise", "gc", ok=False).stderr
    assert "lies outside this repository" in said
    assert "reprise gc --shared" in said


def test_what_a_branch_of_a_remote_or_a_workspace_below_gits_root_needs_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = reproduced(tmp_path / "below")
    shutil.move(project.path / ".git", tmp_path)
    project.commit("below")
    lock = project.path / "dvc.lock"
    text = lock.read_text(encoding="utf-8")
    pushed, kept, unknown = "a" * 32, "b" * 32, "c" * 32
    for digest in (pushed, kept, unknown):
        path = project.path / ".dvc/cache/files/md5" / digest[:2] / digest[2:]
        path.parent.mkdir(parents=True)
        path.touch()
    last = re.findall(r"md5: (\w{32})$", text, flags=re.MULTILINE)[-1]
    # Somebody has pushed a branch that this repository has only fetched.
    lock.write_text(text.replace(last, pushed), encoding="utf-8")
    project.commit("pushed")
    project.run("git", "update-ref", "refs/remotes/origin/theirs", "HEAD")
    project.run("git", "reset", "--quiet", "--hard", "HEAD~")
    workspace = project.path / ".reprise/workspaces/failed"
    project.run("git", "clone", "--quiet", str(tmp_path), str(workspace))
    (workspace / "below/dvc.lock").write_text(text.replace(last, kept), encoding="utf-8")
    monkeypatch.chdir(project.path)
    with open_repo() as repo, locked(repo):
        objects = find_garbage(repo, 30).objects
    freed = [f"{path.parent.name}{path.name}" for group in objects.values() for path in group]
    assert freed == [unknown]


def test_it_asks_and_it_stops_while_a_stage_runs(tmp_path: Path) -> None:
    with running_stage(tmp_path) as project:
        assert "a stage is running" in project.run("reprise", "gc", ok=False).stderr
    project.edit("raw.txt", "raw", "new")
    project.repro()
    make_old(tmp_path / ".dvc/cache/runs")
    before = sorted((tmp_path / ".dvc/cache").rglob("*"))
    assert "free it? [y/N]" in project.run("reprise", "gc", ok=False).stdout
    assert sorted((tmp_path / ".dvc/cache").rglob("*")) == before


def test_a_branch_that_cannot_be_read_stops_it(tmp_path: Path) -> None:
    project = reproduced(tmp_path)
    project.run("git", "checkout", "--quiet", "-b", "broken")
    project.edit("dvc.yaml", "stages:", "stages: [")
    project.commit("broken")
    project.run("git", "checkout", "--quiet", "main")
    assert "what 'broken' needs" in project.run("reprise", "gc", ok=False).stderr
