"""The checks of the machine and of the set-up: each thing that is wrong is found, and named."""

import os
import re
import socket
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from pipeline.common.lockfile import DVC_LOCK
from pipeline.doctor.checks import (
    dvc,
    environment,
    git,
    libraries,
    machine,
    remotes,
    servers,
)
from pipeline.doctor.examine import Area, apply_fixes, examine, list_checks
from pipeline.doctor.finding import Finding, Options, ok
from stages.common.errors import UserError
from stages.locks import hold
from stages.runtime.attempt import noted_attempt
from tests.conftest import ROOT, Project
from tests.support.remotes import make_tiny


def bad(found: Iterable[Finding]) -> list[tuple[str, str]]:
    """The level and the first words of what is not well."""
    return [(each.level, each.what) for each in found if each.level != "ok"]


def test_checks_are_found_by_listing_and_say_what_to_do() -> None:
    names = sorted(p.stem for p in (ROOT / "pipeline/doctor/checks").glob("*.py"))
    assert [check.__name__.rpartition(".")[2] for check in list_checks()] == names  # type: ignore[attr-defined]
    assert len({check.AREA for check in list_checks()}) == len(names) == 9


def test_a_check_that_can_not_look_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        AREA = "broken"

        def __init__(self, error: Exception) -> None:
            self.error = error

        def check(self, options: Options) -> Any:
            yield ok("this far")
            raise self.error

    broken = [
        Broken(UserError("no dvc.lock")),
        Broken(PermissionError(13, "Permission denied")),
        Broken(KeyError("gone")),
    ]
    monkeypatch.setattr("pipeline.doctor.examine.list_checks", lambda: broken)
    first, second, third = examine(Options())
    assert bad(third.findings) == [("note", "it could not be looked at (KeyError: 'gone')")]
    assert bad(first.findings) == [("wrong", "no dvc.lock")]
    assert bad(second.findings) == [("note", "it could not be looked at (Permission denied)")]


def test_a_fix_that_fails_is_said() -> None:
    def refuse() -> str:
        raise UserError("a stage has begun meanwhile")

    areas = [Area("DVC", [ok("fine"), Finding("note", "x", fix=refuse)])]
    areas.append(Area("git", [Finding("note", "y", fix=lambda: "removed it")]))
    assert list(apply_fixes(areas)) == [
        "DVC: not mended: a stage has begun meanwhile",
        "git: removed it",
    ]


@pytest.mark.parametrize(
    ("found", "level"),
    [
        (machine.check_memory(10**11), []),
        (machine.check_memory(6 * 10**8), ["note"]),
        (machine.check_memory(10**8), ["wrong"]),
        (machine.check_shared(10**10, ""), []),
        (machine.check_shared(64 * 10**6, ""), ["note"]),
        (machine.check_shared(64 * 10**6, "the 4 workers of train.dataset"), ["wrong"]),
        (machine.check_cores(8, 8.0), []),
        (machine.check_cores(64, 1.5), ["note"]),
        (environment.check_variables({}), []),
        (environment.check_variables({"PYTHONOPTIMIZE": "2"}), ["wrong"]),
        (environment.check_variables({"PYTHONPATH": "/x"}), ["note"]),
        (environment.check_variables({"REPRISE_THREADS": "many"}), ["wrong"]),
        (environment.check_variables({"PET_NPROC_PER_NODE": "0"}), ["wrong"]),
        (environment.check_variables({"PET_NPROC_PER_NODE": "gpu"}), []),
        (environment.check_variables({"PET_NNODES": "1:4"}), ["wrong"]),
        (environment.check_variables({"PET_NNODES": "2"}), ["wrong"]),
        (environment.check_variables({"PET_NNODES": "2", "PET_RDZV_ENDPOINT": "a:1"}), []),
        (environment.check_variables({"CUDA_VISIBLE_DEVICES": ""}), ["note"]),
        (environment.check_variables({"http_proxy": "http://p:1"}), ["note"]),
        (libraries.check_loggers("tensorboard"), []),
    ],
)
def test_levels(found: Iterable[Finding], level: list[str]) -> None:
    assert [each for each, _ in bad(found)] == level


def test_a_clock_that_is_behind_and_a_disk_that_refuses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("dvc.lock").touch()
    assert bad(machine.check_clock(time.time())) == []
    (level, what), *_ = bad(machine.check_clock(time.time() - 7200))
    assert (level, what) == ("wrong", "the clock is behind: there are files from 2.0 hours ahead")
    assert bad(machine.check_disk(Path("not/there/yet"))) == []
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert bad(machine.check_disk(Path()))[0][0] == "wrong"


def test_another_python_on_the_path_is_wrong(tmp_path: Path) -> None:
    assert bad(environment.check_programs(str(Path(sys.executable).parent))) == []
    assert [what for _, what in bad(environment.check_programs(""))] == [
        "there is no 'python' on PATH",
        "there is no 'dvc' on PATH",
    ]
    for name in ("python", "dvc"):
        (tmp_path / name).touch(mode=0o755)
    assert "not that of" in bad(environment.check_programs(str(tmp_path)))[0][1]


def test_versions_that_stages_stop_at_are_wrong_and_others_a_note(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(ROOT)
    pins = libraries.read_pins()
    assert pins["torch"]
    assert bad(libraries.check_versions(pins, pins, {"torch"})) == []
    # A build tag is no other version.
    same = {**pins, "torch": f"{pins['torch']}+cu128"}
    assert bad(libraries.check_versions(pins, same, {"torch"})) == []
    other = {**pins, "torch": "1.0", "rich": "1.0"}
    del other["polars"]
    assert bad(libraries.check_versions(pins, other, {"torch", "polars"})) == [
        ("wrong", "not installed: polars"),
        ("wrong", f"another version: torch 1.0, not {pins['torch']}"),
        ("note", f"another version: rich 1.0, not {pins['rich']}"),
    ]


@pytest.mark.parametrize(
    ("built", "driver", "asked", "level", "says"),
    [
        ("", "", "", [], "no GPU"),
        ("", "", "cuda", ["wrong"], "REPRISE_DEVICE asks for a GPU"),
        ("", "580.65.06", "", ["note"], "can't use it"),
        ("", "580.65.06", "cuda", ["wrong"], "can't use it"),
        ("12.8", "470.82.01", "", ["wrong"], "driver 470.82 is older"),
        ("13.0", "570.86.15", "", ["wrong"], "driver 570.86 is older"),
        # This torch has no GPU, whatever the files say.
        ("12.8", "570.86.15", "", ["wrong"], "sees no GPU, and there is one"),
    ],
)
def test_torch_and_the_driver(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    built: str,
    driver: str,
    asked: str,
    level: list[str],
    says: str,
) -> None:
    class Torch:
        version = "2.13.0"

        def locate_file(self, name: str) -> Path:
            return tmp_path / "version.py"

    text = f"cuda: Optional[str] = '{built}'" if built else "cuda: Optional[str] = None"
    (tmp_path / "version.py").write_text(f"__version__ = '2.13.0'\n{text}\n", encoding="utf-8")
    if driver:
        line = f"NVRM version: NVIDIA UNIX x86_64 Kernel Module  {driver}  Tue Jul 1"
        (tmp_path / "driver").write_text(f"{line}\nGCC version: 12.2.0\n", encoding="utf-8")
    monkeypatch.setattr(libraries, "DRIVER", tmp_path / "driver")
    monkeypatch.setattr(libraries, "distribution", lambda _: Torch())
    monkeypatch.setattr(libraries, "ASK_TORCH", "print('False 0')\nprint()")
    monkeypatch.setenv("REPRISE_DEVICE", asked)
    found = list(libraries.check_gpu())
    assert [each for each, _ in bad(found)] == level
    assert says in found[0].what


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


def test_a_port_that_is_taken_is_named_with_who_has_it() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        ((level, what),) = bad(servers.check_port(port, "--port"))
    assert level == "note"
    assert f"port {port} can't be used: Address already in use, by process {os.getpid()}" in what
