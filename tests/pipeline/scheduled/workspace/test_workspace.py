"""A run's own clone, and what it leaves behind; the working folder stays as it is."""

import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.scheduled.dvc_remote import fetch_data, update_imports_of
from pipeline.scheduled.publish import publish
from pipeline.scheduled.shared_cache import cache_folder
from pipeline.scheduled.workspace import WORKSPACES, open_workspace
from stages.common.errors import UserError
from tests.conftest import Project
from tests.support.pipeline.runs import repro, run_once
from tests.support.remotes import branches, make_tiny, snapshot


def stored(folder: Path) -> int:
    return sum(1 for path in folder.rglob("*") if path.is_file())


def test_a_run_leaves_a_branch_and_data_and_no_trace_in_the_working_folder(tiny: Project) -> None:
    (tiny.path / "source.txt").write_text("edited, and committed by nobody\n")
    (tiny.path / "notes.txt").write_text("mine\n")
    before = snapshot(tiny.path)
    said: list[str] = []
    run_once(tiny, "Funny Otter/7", said)
    assert snapshot(tiny.path) == before
    branch = "reprise/nightly/Funny-Otter-7"
    origin = tiny.path.parent / "origin.git"
    assert list(branches(origin)) == ["main", branch]
    # The repository knows it as after a push of its own: 'reprise gc' is to keep its outputs.
    known = tiny.run("git", "rev-parse", f"refs/remotes/origin/{branch}").stdout.strip()
    assert known == branches(origin)[branch]
    shown = Project(origin).run("git", "show", "--stat", "--format=%an%n%B", branch).stdout
    assert "reprise\nnightly: count, double" in shown
    assert "count: lines 1" in shown
    changed = {line.split("|")[0].strip() for line in shown.splitlines() if "|" in line}
    assert changed == {"dvc.lock", "metrics.json"}
    # Two outputs, and the record of two runs.
    assert stored(tiny.path.parent / "store") >= 4
    assert list((tiny.path / WORKSPACES).iterdir()) == []
    # Again: nothing new, so no commit; it says which branch has it.
    run_once(tiny, "second", said)
    assert any(branch in line and "already" in line for line in said)
    assert list(branches(origin)) == ["main", branch]
    # Once the branch is merged, nothing differs from the revision.
    Project(origin).run("git", "update-ref", "refs/heads/main", branch)
    with open_workspace(tiny.path, "third", None, said.append) as workspace:
        publish(workspace, "nightly", {}, said.append)
    assert list(branches(origin)) == ["main", branch]
    assert said[-1] == "nothing differs from main: no commit"
    assert snapshot(tiny.path) == before


def test_without_remotes_the_branch_is_put_into_the_repository(tmp_path: Path) -> None:
    project = make_tiny(tmp_path / "alone", origin=False, store=False)
    project.run("git", "switch", "--quiet", "--create", "mine")
    before = snapshot(project.path)
    said: list[str] = []
    run_once(project, "run", said)
    assert snapshot(project.path) == before
    shown = project.run("git", "log", "-1", "--format=%s", "reprise/nightly/run").stdout
    assert shown == "nightly: count, double\n"
    assert any("no default DVC remote" in line for line in said)
    assert "workspace run: mine at" in said[0]


def test_revisions(tiny: Project, tmp_path: Path) -> None:
    start = tiny.run("git", "rev-parse", "HEAD").stdout.strip()
    tiny.run("git", "tag", "v1")
    tiny.run("git", "switch", "--quiet", "--create", "local-only")
    tiny.edit("source.txt", "one", "two")
    tiny.commit("local")
    local = tiny.run("git", "rev-parse", "HEAD").stdout.strip()
    # Somebody else has pushed to main, and a branch that this repository has not fetched.
    other = Project(tmp_path / "other")
    tiny.run("git", "clone", "--quiet", str(tmp_path / "origin.git"), str(other.path))
    other.edit("source.txt", "one", "three")
    other.commit("theirs")
    theirs = other.run("git", "rev-parse", "HEAD").stdout.strip()
    other.run("git", "push", "--quiet", "origin", "main", "main:feature/theirs")
    wanted = {
        None: theirs,
        "main": theirs,
        "feature/theirs": theirs,
        "local-only": local,
        "v1": start,
        start: start,
        start[:8]: start,
    }
    before = snapshot(tiny.path)
    for revision, commit in wanted.items():
        with open_workspace(tiny.path, "run", revision, print) as workspace:
            assert workspace.commit == commit, revision
            shown = Project(workspace.path).run("git", "rev-parse", "HEAD").stdout.strip()
            assert shown == commit
    assert snapshot(tiny.path) == before
    for wrong in ("feature/their", "--upload-pack=touch x", "0" * 40):
        with (
            pytest.raises(UserError, match="there is no branch, tag or commit") as error,
            open_workspace(tiny.path, "run", wrong, print),
        ):
            pass
        assert (wrong == "feature/their") == ("did you mean 'feature/theirs'?" in str(error.value))
    assert list((tiny.path / WORKSPACES).iterdir()) == []


def test_the_clone_shares_cache_credentials_and_checkpoints(tiny: Project, tmp_path: Path) -> None:
    (tiny.path / ".dvc/config.local").write_text(
        "['remote \"cloud\"']\n    url = s3://bucket/x\n    secret_access_key = secret-word\n"
        "['remote \"mine\"']\n    url = ../mine\n"
    )
    tiny.run("git", "config", "http.https://example.org/.extraheader", 'Bearer "secret" \\ word')
    with open_workspace(tiny.path, "run", None, print) as workspace:
        inside = Project(workspace.path)
        listed = inside.run("dvc", "config", "--list").stdout
        assert f"cache.dir={tiny.path}/.dvc/cache" in listed
        # Their paths are meant from the repository, not from the clone.
        remotes = inside.run("dvc", "remote", "list", env={"COLUMNS": "500"}).stdout
        assert remotes.split() == [
            *("store", f"{tmp_path}/store", "(default)"),
            *("cloud", "s3://bucket/x"),
            *("mine", f"{tiny.path}/mine"),
        ]
        assert "remote.cloud.secret_access_key=secret-word" in listed
        local = workspace.path / ".dvc/config.local"
        assert local.stat().st_mode & 0o077 == 0
        assert (tiny.path / WORKSPACES).stat().st_mode & 0o077 == 0
        header = inside.run("git", "config", "http.https://example.org/.extraheader").stdout
        assert header == 'Bearer "secret" \\ word\n'
        assert inside.run("git", "status", "--porcelain").stdout == ""
        checkpoints = workspace.path / ".reprise/checkpoints"
        assert checkpoints.resolve() == tiny.path / ".reprise/checkpoints"
        (checkpoints / "of-a-training").write_text("half way")
    assert (tiny.path / ".reprise/checkpoints/of-a-training").read_text() == "half way"
    tiny.run("dvc", "config", "--local", "cache.dir", str(tmp_path / "shared/cache"))
    assert cache_folder(tiny.path) == tmp_path / "shared/cache"
    with open_workspace(tiny.path, "run", None, print) as workspace:
        repro(workspace)
        linked = (workspace.path / ".reprise/checkpoints").resolve()
        assert linked == tmp_path / "shared/reprise-checkpoints"
    assert stored(tmp_path / "shared/cache") >= 2
    assert not (tiny.path / ".dvc/cache").exists()


def test_workspaces_of_dead_runs_are_removed_and_the_last_failed_ones_kept(tiny: Project) -> None:
    folder = tiny.path / WORKSPACES
    code = (
        "import sys, time; from pathlib import Path\n"
        "from pipeline.scheduled.workspace import open_workspace\n"
        "with open_workspace(Path(), sys.argv[1], None, lambda _: None):\n"
        "    print('ready', flush=True); time.sleep(600)"
    )
    with living(tiny, code, "living"):
        with living(tiny, code, "dead") as dead:
            dead.kill()
            dead.wait()
        assert {path.name for path in folder.iterdir() if path.is_dir()} == {"living", "dead"}
        for number in range(5):
            with (
                contextlib.suppress(ValueError),
                open_workspace(tiny.path, f"failed {number}", None, print),
            ):
                raise ValueError("a stage has failed")
            time.sleep(0.02)
        with open_workspace(tiny.path, "living", None, print) as workspace:
            # The name is taken by a run that goes on.
            assert workspace.name == "living-2"
            there = {path.name for path in folder.iterdir() if path.is_dir()}
            assert there == {"living", "living-2", "failed-2", "failed-3", "failed-4"}
            assert (folder / "failed-4/dvc.yaml").exists()
    with open_workspace(tiny.path, "last", None, print):
        pass
    there = {path.name for path in folder.iterdir() if path.is_dir()}
    assert there == {"failed-2", "failed-3", "failed-4"}


def test_a_run_that_is_stopped_may_still_save_a_checkpoint(tiny: Project) -> None:
    said: list[str] = []
    with (
        pytest.raises(SystemExit),
        open_workspace(tiny.path, "stopped", None, said.append) as workspace,
    ):
        raise SystemExit(143)
    with subprocess.Popen(["sleep", "60"], cwd=workspace.path / ".dvc") as stage:
        with open_workspace(tiny.path, "next", None, said.append):
            assert (workspace.path / ".reprise/checkpoints").is_dir()
        stage.kill()
    with open_workspace(tiny.path, "next", None, said.append):
        assert not workspace.path.exists()
    assert "removed the workspace of a run that was stopped: stopped" in said


@contextlib.contextmanager
def living(project: Project, code: str, name: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", code, name], cwd=project.path, stdout=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.kill()


def test_an_import_is_brought_up_to_date(tiny: Project, tmp_path: Path) -> None:
    source = tmp_path / "elsewhere.txt"
    source.write_text("first\n")
    tiny.run("dvc", "import-url", "--quiet", str(source), "imported.txt")
    tiny.commit("import")
    tiny.run("git", "push", "--quiet", "origin", "main")
    source.write_text("second\n")
    said: list[str] = []
    with open_workspace(tiny.path, "run", None, said.append) as workspace:
        fetch_data(workspace.path, said.append)
        assert (workspace.path / "imported.txt").read_text() == "first\n"
        update_imports_of(workspace.path, said.append)
        assert (workspace.path / "imported.txt").read_text() == "second\n"
        publish(workspace, "nightly", {}, said.append)
    assert "dvc update imported.txt.dvc" in said
    changed = ["git", "show", "--format=", "--name-only", "reprise/nightly/run"]
    shown = Project(tmp_path / "origin.git").run(*changed).stdout.split()
    assert shown == ["imported.txt.dvc"]
