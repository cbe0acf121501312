"""The command: a training that failed, one that was killed, a log from elsewhere, the page."""

import json
import os
import platform
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from pipeline.commands.doctor.table import lay_out, show
from pipeline.doctor.attempts import read_attempts
from pipeline.doctor.cause import read_chapters
from pipeline.doctor.checks import last_run
from pipeline.doctor.examine import Area
from pipeline.doctor.finding import Options, note, ok, wrong
from pipeline.doctor.page import PAGE, anchor_of, heading_of, make_page
from stages.common.errors import UserError
from stages.runtime.attempt import noted_attempt
from tests.conftest import ROOT, Project, project_environment


def not_well(project: Project, *options: str, code: int = 1) -> list[dict[str, object]]:
    """What is not well in a project, of its own: not the machine's, on which others work too."""
    done = project.run("reprise", "doctor", "--json", *options, ok=None)
    found = [each for each in json.loads(done.stdout) if each["level"] != "ok"]
    # Where ports are taken and memory is short, others run.
    own = [each for each in found if each["area"] not in ("machine", "Prefect")]
    others_wrong = any(each["level"] == "wrong" for each in found if each not in own)
    assert done.returncode == code or others_wrong, done.stdout
    return own


def test_a_failed_training_is_explained_measured_and_forgotten(clone: Project) -> None:
    clone.edit("params.yaml", "lr: 3e-3", "lr: 1e30")
    clone.edit("params.yaml", "replicas: 3", "replicas: 1")
    clone.run("python", "-m", "stages.train", ok=False)
    (found,) = not_well(clone)
    assert found["level"] == "wrong"
    what = str(found["what"])
    assert what.startswith("train failed ")
    assert ": the loss is not finite\n" in what
    assert "first seen in the output of" in what
    assert "measured: the loss falls fastest at a rate of" in what
    first, *others = found["mend"]  # type: ignore[misc]
    assert first.startswith("params.yaml:57  train.optimizer.lr: ")
    assert float(first.rpartition(" ")[2]) < 0.1
    assert others[-1] == "more: docs/troubleshooting.md#the-loss-is-not-finite"
    clone.run("git", "checkout", "params.yaml")
    done = clone.run("reprise", "doctor", "--fix", ok=None)
    assert "last run: forgot the attempt of train" in done.stdout
    assert "ok     last run: no stage has failed" in done.stdout
    assert "ok     training: the last one that ended has learned" in done.stdout
    assert clone.run("git", "status", "--porcelain").stdout == ""
    assert not (clone.path / ".reprise/attempts/train.json").exists()


def test_parameters_that_have_changed_since_make_a_failure_a_note(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text("train: {lr: 1}\n", encoding="utf-8")
    with pytest.raises(ValueError, match="out of bounds"), noted_attempt("evaluate"):
        raise ValueError("Target 3 is out of bounds")
    (found,) = last_run.check(Options())
    assert found.level == "wrong"
    assert found.fix is None
    assert found.what.startswith("evaluate failed just now: a label out of range\n")
    assert "  raised at " in found.what
    Path("params.yaml").write_text("train: {lr: 2}\n", encoding="utf-8")
    (found,) = last_run.check(Options())
    assert found.level == "note"
    assert "params.yaml has changed since" in found.what
    assert found.fix is not None
    assert found.fix() == "forgot the attempt of evaluate"
    (found,) = last_run.check(Options())
    assert found.level == "ok"


def test_a_stage_on_another_machine_is_not_called_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with noted_attempt("train"):
        (found,) = last_run.check(Options())
        assert (found.level, found.what) == ("ok", "train runs, since just now")
        here = platform.node()
        monkeypatch.setattr("platform.node", lambda: "another")
        (found,) = last_run.check(Options())
    assert found.level == "note"
    assert found.what.startswith(f"train began just now on {here}: ")
    assert found.mend[1].startswith("rm .reprise/attempts/train.json ")


def test_an_attempt_that_began_meanwhile_is_not_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit), noted_attempt("train"):
        raise SystemExit(75)
    (found,) = last_run.check(Options())
    assert found.fix is not None
    with noted_attempt("train"):
        with pytest.raises(UserError, match="train has begun again meanwhile"):
            found.fix()
        (running,) = read_attempts()
        assert running.is_running


def test_a_stage_that_was_killed_is_told_though_it_could_say_nothing(clone: Project) -> None:
    record = clone.path / ".reprise/attempts/train.json"
    process = subprocess.Popen(
        ["python", "-m", "stages.train"],
        cwd=clone.path,
        env=project_environment(),
        stdout=subprocess.DEVNULL,
    )
    until = time.monotonic() + 60
    # Its record comes first, and then the folder that it writes into.
    while not (record.exists() and list((clone.path / "data/.writing").glob("train-*"))):
        assert time.monotonic() < until
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    (found, *left) = not_well(clone, "--fast")[::-1]
    assert "the process was killed" in str(found["what"])
    assert f"process {process.pid} has ended without a word" in str(found["what"])
    # What it had begun to write.
    assert [each["area"] for each in left] == ["DVC"]
    # DVC has removed the outputs before; one that is killed while it loads torch has no record.
    shutil.rmtree(clone.path / "data/train")
    found = next(each for each in not_well(clone, "--fast") if each["area"] == "last run")
    assert ": the process was killed\n" in str(found["what"])
    record.unlink()
    (clone.path / "data/infer/model.onnx").unlink()
    done = clone.run("reprise", "doctor", "--fast", "--json", ok=False)
    said = {each["what"]: each for each in json.loads(done.stdout)}
    (killed,) = (each for what, each in said.items() if what.startswith("train was started, and"))
    assert killed["level"] == "wrong"
    for each in (found, killed):
        assert "\n  not here: " in str(each["what"])
        assert " outputs of train that dvc.lock names: data/train/" in str(each["what"])
        assert each["mend"][0].startswith("dvc repro   # ")  # type: ignore[index]
    one = "not here: 1 output of infer that dvc.lock names: data/infer/model.onnx"
    assert said[one]["level"] == "note"
    assert "of the last one that ended, the outputs are not here" in said
    assert "no stage has failed since it last ended well" not in said


def test_a_log_from_elsewhere_is_explained(example: Project, tmp_path: Path) -> None:
    log = tmp_path / "slurm-42.out"
    log.write_text(
        "epoch 3\nCUDA out of memory. Tried to allocate 2.00 GiB\n"
        "[rank0]: Watchdog caught collective operation timeout: WorkNCCL(SeqNum=42)\n",
        encoding="utf-8",
    )
    found = not_well(example, "--log", str(log))
    assert [(each["level"], each["what"]) for each in found] == [
        ("wrong", "NCCL fails"),
        ("note", "before that: the memory is full"),
    ]
    log.write_text("all is well\n", encoding="utf-8")
    (found,) = not_well(example, "--log", str(log), code=0)  # type: ignore[assignment]
    said = example.run("reprise", "doctor", "--log", "nowhere.txt", ok=False).stderr
    assert "there is no file" in said
    assert os.fspath(example.path / "nowhere.txt") in said


def test_the_page_is_that_of_the_table_and_its_links_lead_somewhere() -> None:
    page = (ROOT / PAGE).read_text(encoding="utf-8")
    assert page == make_page(), "'reprise doctor --write-page' writes it"
    for chapter in read_chapters():
        for cause in chapter.causes:
            assert f"\n### {heading_of(cause)}\n" in page
            assert f"](#{anchor_of(cause)})" in page


def test_what_is_wrong_comes_first_and_no_line_is_too_long(
    capsys: pytest.CaptureFixture[str],
) -> None:
    areas = [
        Area("machine", [ok("2 cores"), note("a note", "because " * 40, "do --this")]),
        Area("git", [wrong("first\n  with a line", "why", "git init", "or not"), ok("fine")]),
    ]
    show(areas)
    lines = capsys.readouterr().out.splitlines()
    assert lines[:5] == [
        "WRONG  git: first",
        "         with a line",
        "       why  why",
        "       do   git init",
        "            or not",
    ]
    assert lines[6] == "note   machine: a note"
    assert lines[-3:-1] == ["ok     machine: 2 cores", "ok     git: fine"]
    assert lines[-1].startswith("one thing is wrong, 1 note: something will fail")
    assert max(map(len, lines)) <= 110
    # A terminal must not obey a name.
    (line, *_) = lay_out("x", note("the row \x1b[2Jnine", "why"), 60)
    assert "the row ?[2Jnine" in line
    assert all(len(line) <= 60 for line in lay_out("x", note("y" * 9, "a b " * 99), 60))
