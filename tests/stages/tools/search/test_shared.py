"""A search that several machines share through PostgreSQL: the same trials, whoever trains them."""

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
from stages.tools.search.host import share
from stages.tools.search.parts import Worker, make_worker, work_once
from stages.tools.search.posts import end, find_done, post
from stages.tools.search.worker import work
from stages.tune.params import TuneParams
from stages.tune.pruners import find_ended, make_pruner
from stages.tune.training.batch import make_train_trials, read_start
from stages.tune.training.shared import VARIABLE
from stages.tune.training.told import Batch, replay
from stages.tune.trials import Trial, TrialResult
from tests.conftest import Project, project_environment
from tests.stages.tune.conftest import LR, WIDTH, built, project
from tests.support.postgres import WRITTEN, Postgres, start_postgres
from tests.support.samples import run_stages, set_params

__all__ = ["built", "project"]
STUDY = "study-cpu-code"
PARTS = [[0, 2], [1], [3]]
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
    for table in ("reprise_posted", "reprise_trained"):
        opened.ask(f"DELETE FROM {table}")
    opened.close()


@pytest.fixture
def worker(database: Database, project: Project, monkeypatch: pytest.MonkeyPatch) -> Worker:
    monkeypatch.chdir(project.path)
    changes = {"train.clip_norm": None, "train.packed": True, "tune.keep_scores": 3}
    set_params(project, {**changes, "tune.pruner": "median"})
    return make_worker(database, STUDY, read_params("tune"), lambda: None)


def earlier(num: int) -> list[Trial]:
    """Complete trials of earlier batches, all of which are hard to beat."""
    ended = {"end": "complete", "value": 0.1, "values": (0.7, 0.1, 0.1, 0.1), "suggested": {}}
    made = [Trial(number=n, origin="tpe", overrides={}, asked=n, **ended) for n in range(num)]  # type: ignore[arg-type]
    return [replace(each, memory={}) for each in made]


def content_of(before: list[Trial]) -> dict[str, Any]:
    return {"first": len(before), "tried": TRIED, "before": [asdict(each) for each in before]}


def posted(worker: Worker, before: list[Trial]) -> Batch:
    return post(worker.database, STUDY, {**content_of(before), "parts": PARTS})


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
    other = replace(worker, database=open_database(VARIABLE))
    if num_before:
        # The other machine has trained a part before this one, which was killed, begins again.
        batch = posted(worker, before)
        assert work_once(other, batch)
        assert find_done(worker.database, STUDY, batch) == {0}
    told = share(worker, content_of(before))
    # Parts that are trained side by side are heard of in any order.
    heard = {(epoch, tuple(known)): (known, ended) for epoch, known, ended in called}

    def on_epoch_end(epoch: int, values: Mapping[int, float]) -> set[int]:
        known, ended = heard.pop((epoch, tuple(values)))
        assert dict(values) == known
        return ended

    found = replay(told, TRIED, on_epoch_end)
    assert not heard
    for ours, theirs in zip(found, expected, strict=True):
        assert (ours.end, ours.value) == (theirs.end, theirs.value)
        assert np.array_equal(np.asarray(ours.scores), np.asarray(theirs.scores))
    assert not work_once(other, posted(worker, before))
    # Were all of it removed, the same machine would train it again, and come to the same.
    worker.database.ask("DELETE FROM reprise_trained")
    assert share(other, content_of(before)) == told
    other.database.close()


def test_what_a_lost_machine_was_training_is_trained_by_another(worker: Worker) -> None:
    batch = posted(worker, [])
    lost = open_database(VARIABLE)
    assert lost.try_lock(f"{STUDY}/{batch.name}/0")
    assert lost.try_lock(f"{STUDY}/{batch.name}/1")
    said: list[str] = []
    assert work_once(worker, batch, said.append)
    # However long it takes: the others leave it alone as long as its connection is there.
    assert not work_once(worker, batch, said.append)
    lost.close()
    assert work_once(worker, batch, said.append)
    assert work_once(worker, batch, said.append)
    assert said == ["trains 4", "trains 1, 3", "trains 2"]


def test_trials_that_are_no_pack_here_are_left_to_others(worker: Worker) -> None:
    batch, said = post(worker.database, STUDY, {**content_of([]), "parts": [[0, 1]]}), list[str]()
    assert not work_once(worker, batch, said.append)
    assert said[1].startswith("leaves to other machines trials 1, 2: they differ in more than")


def test_after_the_end_nothing_is_trained_or_written(worker: Worker) -> None:
    batch, said = posted(worker, []), list[str]()

    def end_it(line: str) -> None:
        said.append(line)
        end(worker.database, STUDY)

    assert work_once(worker, batch, end_it)
    assert find_done(worker.database, STUDY, batch) == set()
    assert not work_once(worker, batch, said.append)
    assert said == ["trains 1, 3"]


def test_a_lost_connection_is_made_anew_with_the_locks_that_are_kept(
    database: Database, postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lose() -> None:
        me = database.ask("SELECT pg_backend_pid()")[0][0]
        # The second number is how long to wait until it has ended, in milliseconds.
        assert postgres.ask(f"SELECT pg_terminate_backend({me}, 30000)")

    assert database.keep_lock("mine")
    assert database.try_lock("part")
    lose()
    other = open_database(VARIABLE)
    assert database.ask("SELECT 1") == [(1,)]
    assert not other.try_lock("mine")
    assert other.try_lock("part")
    # Another machine was quicker.
    monkeypatch.setattr("stages.tools.search.database.RECONNECT_SECONDS", 0.0)
    lose()
    assert other.try_lock("mine")
    with pytest.raises(UserError, match="another machine has taken this search over"):
        database.ask("SELECT 1")
    other.close()


def test_another_rule_or_address_is_refused(
    project: Project, postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
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
    waited: list[float] = []

    def wait(seconds: float) -> None:
        waited.append(seconds)
        if len(waited) == 1:
            share(worker, content_of([]))
        if len(waited) == 2:
            end(worker.database, STUDY)

    monkeypatch.setattr("stages.tools.search.worker.time.sleep", wait)
    for name in ("other-cpu-code", "study-cuda-code"):
        share(replace(worker, study=name), content_of([]))
    work(worker)
    said = capsys.readouterr().out
    assert "the search other-cpu-code is of other code, parameters or data\n" in said
    assert "the search study-cuda-code is of another device: cuda\n" in said
    assert "trains 1, 3" not in said
    assert said.endswith("the search has ended\n")
    # Who comes late does not wait.
    work(worker)
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
    assert postgres.ask("SELECT count(*) FROM reprise_trained") == 0
