"""A search that several machines share through PostgreSQL: the same trials, whoever trains them."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stages.common.config import Overrides
from stages.common.errors import UserError
from stages.common.files import read_csv
from stages.common.params import read_params
from stages.tools.search.database import Database, open_database
from stages.tools.search.host import end, forget, share
from stages.tools.search.parts import Worker, find_done, make_worker, read_batch, work_once
from stages.tools.search.worker import work
from stages.tune.params import TuneParams
from stages.tune.pruners import find_ended, make_pruner
from stages.tune.training.batch import make_train_trials, read_start
from stages.tune.training.shared import VARIABLE, replay
from stages.tune.trials import Trial, TrialResult
from tests.conftest import Project, project_environment
from tests.stages.tune.conftest import LR, WIDTH, built, project
from tests.support.postgres import WRITTEN, Postgres, start_postgres
from tests.support.samples import run_stages, set_params

__all__ = ["built", "project"]
STUDY = "study-cpu"
# A pack of two, a width of its own, and one that diverges.
TRIED: list[Overrides] = [
    {LR: 0.05},
    {LR: 0.01, WIDTH: 6},
    {LR: 0.02},
    {LR: 1e30, "train.optimizer.name": "SGD"},
]


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    with start_postgres() as server:
        yield server


@pytest.fixture
def database(postgres: Postgres, monkeypatch: pytest.MonkeyPatch) -> Iterator[Database]:
    monkeypatch.setenv(VARIABLE, postgres.url)
    opened = open_database(VARIABLE)
    yield opened
    forget(opened, STUDY)
    opened.close()


@pytest.fixture
def worker(database: Database, project: Project, monkeypatch: pytest.MonkeyPatch) -> Worker:
    monkeypatch.chdir(project.path)
    changes = {"train.clip_norm": None, "train.packed": True, "tune.keep_scores": 3}
    set_params(project, {**changes, "tune.pruner": "median"})
    return make_worker(database, STUDY)


def earlier(num: int) -> list[Trial]:
    """Complete trials of earlier batches, all of which are hard to beat."""
    ended = {"end": "complete", "value": 0.1, "values": (0.7, 0.1, 0.1, 0.1), "suggested": {}}
    made = [Trial(number=n, origin="tpe", overrides={}, asked=n, **ended) for n in range(num)]  # type: ignore[arg-type]
    return [replace(each, memory={}) for each in made]


def content_of(before: list[Trial]) -> dict[str, Any]:
    return {"first": len(before), "tried": TRIED, "before": [asdict(each) for each in before]}


def post(worker: Worker) -> None:
    statement = "INSERT INTO reprise_batches VALUES ($1, 0, $2)"
    worker.database.ask(statement, STUDY, json.dumps(content_of([])))


Called = list[tuple[int, dict[int, float], set[int]]]


def trained_here(before: list[Trial]) -> tuple[list[TrialResult], Called]:
    """The batch as one machine trains it, and what it says after each epoch."""
    params = read_params("tune")
    section = params.section("tune", TuneParams)
    pruner, called = make_pruner(section, 1, before, ()), Called()

    def on_epoch_end(epoch: int, values: Mapping[int, float]) -> set[int]:
        ended = find_ended(pruner, epoch, values, section.epochs, len(before))
        called.append((epoch, dict(values), ended))
        return ended

    start = read_start(params, section.epochs)
    train_trials, _, _ = make_train_trials(start, in_step=False, keep_scores=True)
    return train_trials(TRIED, on_epoch_end), called


@pytest.mark.parametrize("num_before", [0, 5])
def test_whoever_trains_a_part_the_batch_is_that_of_one_machine(
    worker: Worker, num_before: int
) -> None:
    before = earlier(num_before)
    expected, called = trained_here(before)
    ends = ["complete"] * 3 if num_before == 0 else ["pruned"] * 3
    assert [result.end for result in expected] == [*ends, "diverged"]
    content = content_of(before)
    batch = read_batch(content)
    other = replace(worker, database=open_database(VARIABLE))
    parts = other.divide(batch)
    assert [places for places, _ in parts] == [[0, 2], [1], [3]]
    if num_before:
        # The other machine has trained a part before this one, which was killed, begins again.
        statement = "INSERT INTO reprise_batches VALUES ($1, $2, $3)"
        worker.database.ask(statement, STUDY, num_before, json.dumps(content))
        assert work_once(other, batch, parts)
        assert find_done(worker, batch) == {0}
    told = share(worker, content)
    heard = iter(called)

    def on_epoch_end(epoch: int, values: Mapping[int, float]) -> set[int]:
        before_epoch, known, ended = next(heard)
        assert (epoch, dict(values)) == (before_epoch, known)
        return ended

    found = replay(told, len(TRIED), on_epoch_end)
    assert next(heard, None) is None
    for ours, theirs in zip(found, expected, strict=True):
        assert (ours.end, ours.value) == (theirs.end, theirs.value)
        assert np.array_equal(np.asarray(ours.scores), np.asarray(theirs.scores))
    assert not work_once(other, batch, parts)
    other.database.close()


def test_what_a_lost_machine_was_training_is_trained_by_another(worker: Worker) -> None:
    post(worker)
    batch = read_batch(content_of([]))
    parts = worker.divide(batch)
    lost = open_database(VARIABLE)
    assert lost.try_lock(f"{STUDY}/0/0")
    assert lost.try_lock(f"{STUDY}/0/1")
    trained: list[str] = []
    assert work_once(worker, batch, parts, trained.append)
    # However long it takes: the others leave it alone as long as its connection is there.
    assert not work_once(worker, batch, parts, trained.append)
    lost.close()
    assert work_once(worker, batch, parts, trained.append)
    assert work_once(worker, batch, parts, trained.append)
    assert trained == ["4", "1, 3", "2"]


def test_after_the_end_nothing_is_trained_or_written(worker: Worker) -> None:
    batch = read_batch(content_of([]))
    parts, trained = worker.divide(batch), list[str]()

    def end_it(trials: str) -> None:
        trained.append(trials)
        end(worker.database, STUDY)

    post(worker)
    assert work_once(worker, batch, parts, end_it)
    assert find_done(worker, batch) == set()
    assert not work_once(worker, batch, parts, trained.append)
    assert trained == ["1, 3"]


def test_a_lost_connection_is_made_anew_with_its_locks(
    database: Database, postgres: Postgres
) -> None:
    assert database.try_lock("mine")
    me = database.ask("SELECT pg_backend_pid()")[0][0]
    postgres.ask(f"SELECT pg_terminate_backend({me})")
    assert database.ask("SELECT pg_backend_pid()")[0][0] != me
    other = open_database(VARIABLE)
    assert not other.try_lock("mine")
    database.unlock("mine")
    assert other.try_lock("mine")
    other.close()


def test_another_rule_or_address_is_refused(
    project: Project, postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = {"0": {"values": [0.3], "end": "pruned", "value": None, "scores": None}}
    with pytest.raises(UserError, match="by another rule"):
        replay([told], 1, lambda _epoch, _values: set())
    monkeypatch.setenv(VARIABLE, "sqlite:///study.db")
    with pytest.raises(UserError, match="names a file"):
        open_database(VARIABLE)
    monkeypatch.setenv(VARIABLE, f"postgresql://nobody:{WRITTEN}@127.0.0.1:{postgres.port}/none")
    with pytest.raises(UserError, match=f"{VARIABLE}: ") as raised:
        open_database(VARIABLE)
    assert WRITTEN not in str(raised.value)
    changes = {"tune.pruner": "halving", "tune.trials": 3, "tune.space": {LR: [0.1, 0.2]}}
    set_params(project, changes)
    with pytest.raises(UserError, match="epoch by epoch") as raised:
        run_stages(project, "tune")
    assert raised.value.problems[0].key == "tune.pruner"


def test_a_machine_works_until_the_search_has_ended(
    worker: Worker, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("stages.tools.search.worker.WAIT_SECONDS", 0.0)
    monkeypatch.setattr("stages.tools.search.worker.make_worker", lambda *_: worker)
    waited: list[float] = []

    def wait(seconds: float) -> None:
        waited.append(seconds)
        if len(waited) == 1:
            share(worker, content_of([]))
        if len(waited) == 2:
            end(worker.database, STUDY)

    monkeypatch.setattr("stages.tools.search.worker.time.sleep", wait)
    other = replace(worker, study="other")
    share(other, content_of([]))
    work(worker.database, STUDY)
    forget(worker.database, "other")
    said = capsys.readouterr().out
    assert "note: the search other is of other code" in said
    assert "trains 1, 3" not in said
    assert said.endswith("the search has ended\n")
    # Who comes late does not wait.
    work(worker.database, STUDY)
    assert len(waited) == 2


@pytest.mark.soak
def test_two_machines_one_of_which_is_killed_write_what_one_writes(
    postgres: Postgres, project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    space = {LR: {"low": 1e-4, "high": 0.1, "log": True}, WIDTH: [4, 8, 16]}
    search = {"tune.trials": 12, "tune.batch": 6, "tune.space": space, "tune.epochs": 60}
    set_params(project, {**search, "train.packed": False, "tune.keep_scores": 3})
    alone, helper = Project(tmp_path / "alone"), Project(tmp_path / "helper")
    for each in (alone, helper):
        shutil.copytree(project.path, each.path)
    run_stages(alone, "tune")

    environment = {**project_environment(), VARIABLE: postgres.url}

    def start(where: Project, *command: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            command,
            cwd=where.path,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    killed = start(helper, sys.executable, "-m", "stages.tools.search.worker")
    second = start(helper, "reprise", "tune", "--work")
    for each in (killed, second):
        assert each.stdout is not None
        assert each.stdout.readline().startswith("waits for work")
    running = start(project, sys.executable, "-m", "stages.tune")
    assert killed.stdout is not None
    assert next(line for line in killed.stdout if line.startswith("trains"))
    killed.kill()
    killed.communicate(timeout=30)
    said = running.communicate(timeout=300)[0]
    assert running.returncode == 0, said
    told = second.communicate(timeout=60)[0]
    assert second.returncode == 0, told
    assert "trains" in told
    assert "the search has ended" in told
    assert project.outputs() == alone.outputs()
    rows = read_csv(project.path / "data/tune/trials.csv")
    assert len(rows) == 12
    assert postgres.ask("SELECT count(*) FROM reprise_parts") == 0
