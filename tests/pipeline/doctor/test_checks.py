"""The checks of the machine: each thing that is wrong is found, and named."""

import os
import socket
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from pipeline.doctor.checks import environment, libraries, machine, servers
from pipeline.doctor.examine import Area, apply_fixes, examine, list_checks
from pipeline.doctor.finding import Finding, Options, ok
from stages.common.errors import UserError
from tests.conftest import ROOT
from tests.support.pipeline.findings import bad


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


def test_a_port_that_is_taken_is_named_with_who_has_it() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        ((level, what),) = bad(servers.check_port(port, "--port"))
    assert level == "note"
    assert f"port {port} can't be used: Address already in use, by process {os.getpid()}" in what
