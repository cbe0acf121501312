"""`reprise tune`: a search as a table, while it runs and after it."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from pipeline.cli import main
from pipeline.commands.search import table
from pipeline.commands.search.progress import LOCK, read_progress
from stages.common.config import Overrides
from stages.common.files import write_csv, write_json
from stages.locks import hold
from stages.tune.study import search
from stages.tune.trials import OnEpochEnd, TrialResult
from tests.stages.tune.conftest import LR
from tests.support.stages.searches import CURRENT, bowl, in_step, tune_params

JOURNAL = Path(".reprise/tune/0123.journal")


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("dvc.yaml").touch()
    Path("stages").mkdir()


def shown(*arguments: str) -> str:
    done = CliRunner().invoke(main, ["tune", *arguments], env={"COLUMNS": "120"})
    assert done.exit_code == 0, done.output
    return done.output


@contextmanager
def running_stage() -> Iterator[None]:
    """Hold the lock of the stage tune."""
    LOCK.parent.mkdir(parents=True, exist_ok=True)
    held = hold(LOCK)
    assert held is not None
    with held:
        # As the stage does, with its number.
        held.truncate(0)
        held.write("1\n")
        held.flush()
        yield


def run_until(batch: int, epoch: int, **changes: Any) -> None:
    """Search until an epoch of a batch, and stop as a kill would."""
    count = 0

    def train(tried: Sequence[Overrides], on_epoch_end: OnEpochEnd) -> list[TrialResult]:
        nonlocal count
        count += 1

        def watched(number: int, values: Any) -> set[int]:
            ended = on_epoch_end(number, values)
            if (count, number) == (batch, epoch):
                raise KeyboardInterrupt
            return ended

        return in_step(bowl)(tried, watched)

    params = tune_params(batch=4, trials=20, sampler="random", **changes)
    with pytest.raises(KeyboardInterrupt):
        search(params, CURRENT, "minimize", 0, JOURNAL, train)


def write_outputs() -> None:
    """The outputs of a search of two trials."""
    Path("data/tune").mkdir(parents=True)
    write_csv(
        Path("data/tune/trials.csv"),
        ("trial", "state", "value", "epochs", "origin", LR),
        [(0, "complete", 0.5, 9, "params.yaml", 0.1), (1, "pruned", "", 1, "tpe", 0.2)],
    )
    facts = {"direction": "minimize", "sampler": "tpe", "reason": "all 2 trials were tried"}
    write_json(Path("data/tune/search.json"), facts)


def test_a_running_search_is_shown_from_its_journal() -> None:
    with running_stage():
        run_until(batch=3, epoch=2, pruner="halving")
        progress = read_progress()
        said = shown()
    assert [row.number for row in progress.rows] == list(range(12))
    training = progress.training
    # Of the third batch two have survived the first epoch, and stand at the second.
    assert [row.epochs for row in training] == [2, 2]
    assert training[0].value == pytest.approx(bowl(training[0].values, 2))
    best = progress.best(5)
    assert [row.value for row in best] == sorted(row.value or 0.0 for row in best)
    assert "2 train, at epoch 2, about 0 s left" in said
    assert "of 20 trials (random)" in said
    assert LR in said


def test_a_search_that_was_killed_no_longer_trains() -> None:
    with running_stage():
        run_until(batch=3, epoch=2, pruner="halving")
    (said,) = shown().splitlines()[-1:]
    assert said.startswith("10 of 20 trials (random), 7 pruned, was stopped at ")
    assert said.endswith(" s ago; 'dvc repro' goes on")
    assert "…" not in shown()
    os.utime(JOURNAL, (1, 1))
    with running_stage():
        # What it resumes after is read before a trial begins.
        assert "the stage tune has begun again, and trains no trial yet" in shown()


def test_to_watch_waits_for_a_search_that_is_about_to_begin(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(table, "WAIT_SECONDS", 0.2)
    monkeypatch.setattr(table, "REFRESH_SECONDS", 0.05)
    done = CliRunner().invoke(main, ["tune", "--watch"])
    assert done.exit_code == 1
    assert "no search runs yet; waits 0 s for one to begin\n" in done.output
    assert "no search runs, and none has run" in done.output
    # As long as the stage runs, however long it takes to the first trial.
    waits: list[float] = []

    def begin(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 3:
            run_until(batch=1, epoch=2)
        elif len(waits) == 4:
            write_outputs()

    with running_stage():
        assert "the stage tune has begun" in CliRunner().invoke(main, ["tune"]).output
        monkeypatch.setattr(table, "WAIT_SECONDS", 0.0)
        monkeypatch.setattr(table.time, "sleep", begin)
        said = shown("--watch")
    assert len(waits) == 4
    assert "ended: all 2 trials were tried" in said


def test_to_watch_without_a_terminal_is_to_wait_for_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    waits: list[float] = []

    def end(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 3:
            write_outputs()

    with running_stage():
        run_until(batch=3, epoch=2, pruner="halving")
        monkeypatch.setattr(table.time, "sleep", end)
        said = shown("--watch")
    assert len(waits) == 3
    assert "ended: all 2 trials were tried" in said
    assert "left" not in said


def test_an_earlier_search_is_not_the_one_that_is_about_to_begin(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write_outputs()
    waits: list[float] = []
    monkeypatch.setattr(table.time, "sleep", waits.append)
    assert "ended: all 2 trials were tried" in shown("--watch")
    assert waits == []

    def begin(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 3:
            run_until(batch=1, epoch=2)
            os.utime("data/tune/search.json", (1, 1))
        elif len(waits) == 5:
            raise KeyboardInterrupt

    monkeypatch.setattr(table.time, "sleep", begin)
    with running_stage():
        CliRunner().invoke(main, ["tune", "--watch"])
    assert len(waits) == 5


def test_a_line_that_is_being_written_is_left_out() -> None:
    run_until(batch=1, epoch=3)
    with JOURNAL.open("a", encoding="utf-8") as file:
        file.write('{"epoch": 4, "val')
    assert [row.epochs for row in read_progress().training] == [3, 3, 3, 3]


def test_the_outputs_of_the_last_search_are_shown_when_none_runs() -> None:
    write_outputs()
    assert "2 of 2 trials (tpe), 1 pruned, ended: all 2 trials were tried" in shown()


def test_the_trial_that_its_size_has_picked_is_shown_among_the_best() -> None:
    Path("data/tune").mkdir(parents=True)
    trials = [(n, "complete", 0.5 + n / 100, 9, "tpe", 900 - n, "yes", n / 10) for n in range(8)]
    heads = ("trial", "state", "value", "epochs", "origin", "size", "front", LR)
    write_csv(Path("data/tune/trials.csv"), heads, trials)
    facts = {"direction": "minimize", "sampler": "tpe", "reason": "all 8 trials were tried"}
    best = {"trial": 7, "origin": "tpe", "value": 0.57, "size": 893}
    write_json(Path("data/tune/search.json"), {**facts, "best": best})
    said = shown()
    head, *lines = [line for line in said.splitlines() if line.strip("┏┳┓━")]
    assert head.strip("┃ ").split() == ["trial", *"┃0┃1┃2┃3┃4┃7"]
    assert next(line for line in lines if "size" in line).split()[-2] == "893"
    assert "best.yaml is trial 7" in said
    assert [row.number for row in read_progress().best(3)] == [0, 1, 2, 7]


def test_without_a_search_it_says_so() -> None:
    done = CliRunner().invoke(main, ["tune"])
    assert done.exit_code == 1
    assert "no search runs, and none has run" in done.output


def test_to_work_takes_the_place_of_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[Sequence[str]] = []

    def take_place(_: str, command: Sequence[str]) -> None:
        started.append(command)
        raise SystemExit(0)

    monkeypatch.setattr("os.execv", take_place)
    shown("--work")
    assert started[0][1:] == ["-m", "stages.tools.search.worker"]
