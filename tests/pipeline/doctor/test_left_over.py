"""The checks of git, of remotes, and of what killed commands have left."""

import os
import re
import time
from pathlib import Path

import pytest

from pipeline.common.lockfile import DVC_LOCK
from pipeline.doctor.checks import dvc, git, remotes
from pipeline.doctor.examine import Area, apply_fixes
from pipeline.doctor.finding import Options
from stages.locks import hold
from stages.runtime.attempt import noted_attempt
from tests.conftest import Project
from tests.support.pipeline.findings import bad
from tests.support.remotes import make_tiny


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    project = make_tiny(tmp_path / "work")
    monkeypatch.chdir(project.path)
    for name in ("AUTHOR", "COMMITTER"):
        monkeypatch.delenv(f"GIT_{name}_NAME", raising=False)
        monkeypatch.delenv(f"GIT_{name}_EMAIL", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    return project


def test_git_that_knows_no_name_and_what_a_merge_and_a_kill_have_left(tiny: Project) -> None:
    tiny.run("git", "config", "user.useConfigOnly", "true")
    assert bad(git.check(Options())) == [("wrong", "git does not know your name")]
    tiny.run("git", "config", "user.name", "Ada")
    tiny.run("git", "config", "user.email", "ada@example.org")
    assert bad(git.check(Options())) == []
    for branch, text in (("one", "1\n"), ("two", "2\n")):
        tiny.run("git", "switch", "--quiet", "--create", branch, "main")
        (tiny.path / "source.txt").write_text(text, encoding="utf-8")
        tiny.commit(branch)
    tiny.run("git", "merge", "--quiet", "one", ok=False)
    assert bad(git.check(Options())) == [("wrong", "in conflict: source.txt")]
    lock = tiny.path / ".git/index.lock"
    lock.touch()
    assert len(bad(git.check(Options()))) == 1
    os.utime(lock, (time.time() - 7200, time.time() - 7200))
    assert ("wrong", ".git/index.lock is there for 120 minutes") in bad(git.check(Options()))


def test_remotes_that_can_be_read_and_written_or_not(tiny: Project, tmp_path: Path) -> None:
    assert [what for _, what in bad(remotes.check(Options()))] == [
        f"'store': there is no {tmp_path / 'store'} yet"
    ]
    (tmp_path / "store").mkdir()
    assert bad(remotes.check(Options())) == []
    assert list((tmp_path / "store").iterdir()) == []
    tiny.run("dvc", "remote", "add", "far", "https://ada:secret@localhost:9/store")
    (found,) = [each for each in remotes.check(Options()) if "far" in each.what]
    assert "'reprise doctor --network' does" in found.what
    tiny.run("dvc", "remote", "default", "--unset")
    tiny.run("dvc", "config", "core.remote", "gone")
    assert bad(remotes.check(Options())) == [("wrong", "the default remote 'gone' is not defined")]
    # Nobody listens there.
    found = next(e for e in remotes.check(Options(network=True)) if "far" in e.what)
    assert found.level == "wrong"
    assert "can't be read" in found.what
    assert "secret" not in found.what


def test_a_remote_that_may_only_be_read_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, *_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "touch", refuse)
    ((level, what),) = bad(remotes.check_folder("store", tmp_path))
    assert level == "wrong"
    assert "can't be written (Permission denied)" in what


def test_what_killed_commands_have_left_is_mended(tiny: Project) -> None:
    left = tiny.path / "data/.writing/train-x"
    left.mkdir(parents=True)
    (tiny.path / "data/.model.json.restoring").touch()
    (tiny.path / ".dvc/tmp").mkdir(exist_ok=True)
    (tiny.path / ".dvc/tmp/rwlock").write_text('{"wri', encoding="utf-8")
    found = [*dvc.check_locks(), *dvc.check_left()]
    assert [level for level, _ in bad(found)] == ["wrong", "note"]
    done = list(apply_fixes([Area("DVC", found)]))
    assert re.match(r"DVC: removed .dvc/tmp/rwlock, which a killed DVC", done[0])
    assert done[1] == "DVC: removed 2 half-written files and folders of killed stages"
    assert bad([*dvc.check_locks(), *dvc.check_left()]) == []


def test_what_dvc_was_writing_goes_and_hidden_files_of_ones_own_stay(tiny: Project) -> None:
    own = [tiny.path / "data/raw/.notes.tmp", tiny.path / "data/mine/.notes.tmp"]
    own += [tiny.path / "data/raw/.-bP5BcxwnH8zqb3dC6KV1g.tmp", own[0].with_name(".a.restoring")]
    left = tiny.path / "data/train/.-bP5BcxwnH8zqb3dC6KV1g.tmp"
    for path in (*own, left):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    assert list(apply_fixes([Area("DVC", list(dvc.check_left()))])) == [
        "DVC: removed 1 half-written files and folders of killed stages"
    ]
    assert [path.exists() for path in (*own, left)] == [True] * 4 + [False]


def test_the_work_of_a_stage_that_runs_without_dvc_is_left_alone(tiny: Project) -> None:
    work = tiny.path / "data/.writing/train-x"
    work.mkdir(parents=True)
    before = list(dvc.check_left())
    assert [level for level, _ in bad(before)] == ["note"]
    # As `python -m stages.train` notes it: DVC knows nothing of it.
    with noted_attempt("train"):
        assert bad(dvc.check_left()) == []
        done = list(apply_fixes([Area("DVC", before)]))
        assert done == ["DVC: not mended: a stage has begun meanwhile"]
    assert work.exists()
    list(apply_fixes([Area("DVC", before)]))
    assert not work.exists()


def test_what_a_stage_on_another_machine_writes_is_left_alone(
    tiny: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tiny.path / "data/.writing/train-x").mkdir(parents=True)
    with noted_attempt("train"):
        monkeypatch.setattr("platform.node", lambda: "another")
        assert bad(dvc.check_left()) == []


def test_nothing_is_removed_while_dvc_has_its_lock(tiny: Project) -> None:
    work = tiny.path / "data/.writing/train-x"
    work.mkdir(parents=True)
    before = list(dvc.check_left())
    (tiny.path / ".dvc/tmp").mkdir(exist_ok=True)
    held = hold(DVC_LOCK)
    assert held is not None
    with held:
        assert bad(dvc.check_left()) == []
        (said,) = apply_fixes([Area("DVC", before)])
    assert said.startswith("DVC: not mended: another dvc or reprise command holds DVC's lock")
    (tiny.path / ".dvc/tmp/rwlock").write_text('{"wri', encoding="utf-8")
    (said,) = apply_fixes([Area("DVC", before)])
    assert "rwlock is damaged: nothing tells which stages run" in said
    assert work.exists()


def test_nothing_is_removed_while_a_stage_runs(tiny: Project) -> None:
    (tiny.path / "data/.writing/train-x").mkdir(parents=True)
    (tiny.path / ".dvc/tmp").mkdir(exist_ok=True)
    holder = f'{{"write": {{"x": {{"pid": {os.getpid()}, "cmd": "dvc repro"}}}}}}'
    (tiny.path / ".dvc/tmp/rwlock").write_text(holder, encoding="utf-8")
    assert bad([*dvc.check_locks(), *dvc.check_left()]) == [("note", "a stage is running here")]
