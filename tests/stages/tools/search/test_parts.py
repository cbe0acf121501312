"""Batches that machines share, with SQLite in the place of PostgreSQL, and no training."""

import json
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from stages.common.errors import UserError
from stages.runtime.audit import Audit
from stages.runtime.snapshot import Snapshot
from stages.tools.search.database import TABLES, Database
from stages.tools.search.host import begin, share
from stages.tools.search.parts import Worker, check_inputs, name_search, name_trials, work_once
from stages.tools.search.posts import (
    ENDED,
    end,
    find_done,
    find_posted,
    post,
    read_done,
    read_posted,
    write_done,
)
from stages.tools.search.worker import find_difference
from stages.tune.params import TuneParams
from stages.tune.training.batch import Trainer
from stages.tune.training.groups import Part
from stages.tune.training.shared import share_batches
from stages.tune.training.told import Batch, CannotPackError, Told, replay

STUDY = "study-cpu-code"
PARTS = [[0, 2], [1]]
CONTENT: dict[str, Any] = {"first": 0, "tried": [{"a": 1}, {"a": 2}, {"a": 3}], "before": []}


class Meeting:
    """The tables in memory, and locks by the name of who has them. Final."""

    def __init__(self) -> None:
        self.connection = sqlite3.connect(":memory:", isolation_level=None)
        for statement in TABLES:
            self.connection.execute(statement)
        self.locks: set[str] = set()

    def ask(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        named = {str(number): value for number, value in enumerate(values, start=1)}
        return self.connection.execute(statement, named).fetchall()

    def try_lock(self, name: str) -> bool:
        free = name not in self.locks
        self.locks.add(name)
        return free

    keep_lock = try_lock

    def unlock(self, name: str) -> None:
        self.locks.remove(name)


@pytest.fixture
def database() -> Database:
    return cast(Database, Meeting())


@pytest.fixture
def worker(database: Database, monkeypatch: pytest.MonkeyPatch) -> Worker:
    """A machine that trains at once, and divides as `PARTS` says."""
    monkeypatch.setattr("stages.tools.search.parts.train_part", train)
    monkeypatch.setattr(
        "stages.tools.search.host.divide_batch",
        lambda *_: [Part(places, None, 0) for places in PARTS],
    )
    section, trainer = cast(TuneParams, None), cast(Trainer, None)
    return Worker(database, STUDY, section, trainer, lambda: None)


def told(a: int, **changes: Any) -> dict[str, Any]:
    result = {"overrides": {"a": a}, "values": [0.3], "end": "complete", "value": 0.3}
    return {**result, "scores": None, **changes}


def train(_trainer: object, _section: object, batch: Batch, places: Sequence[int]) -> Any:
    return {str(place): told(batch.tried[place]["a"]) for place in places}


def test_the_same_batch_posted_again_keeps_what_was_trained_and_another_one_does_not(
    database: Database, worker: Worker
) -> None:
    batch = post(database, STUDY, {**CONTENT, "parts": PARTS})
    assert work_once(worker, batch)
    assert (
        post(database, STUDY, {**CONTENT, "parts": PARTS}) == batch == read_posted(database, STUDY)
    )
    assert find_done(database, STUDY, batch) == {0}
    # Under the same number of the first trial: a batch that another machine has divided
    # otherwise, or that a search before this one has left.
    for other in ({"parts": [[0], [1], [2]]}, {"parts": PARTS, "tried": [{"a": 4}] * 3}):
        posted = post(database, STUDY, {**CONTENT, **other})
        assert posted.name != batch.name
        assert database.ask("SELECT count(*) FROM reprise_trained") == [(0,)]
        # A machine that still trains the old one finds nobody who takes it.
        write_done(database, STUDY, batch, 1, {})
        assert find_done(database, STUDY, posted) == find_done(database, STUDY, batch) == set()
    assert database.ask("SELECT count(*) FROM reprise_posted") == [(1,)]


def test_a_machine_leaves_a_pack_that_it_cannot_have_to_others(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_trainer: object, _section: object, batch: Batch, places: Sequence[int]) -> Any:
        if len(places) > 1:
            raise CannotPackError("the rows are read from disk")
        return train(None, None, batch, places)

    monkeypatch.setattr("stages.tools.search.parts.train_part", refuse)
    batch, said = post(worker.database, STUDY, {**CONTENT, "parts": PARTS}), list[str]()
    assert work_once(worker, batch, said.append)
    assert not work_once(worker, batch, said.append)
    left = "leaves to other machines trials 1, 3: the rows are read from disk"
    assert said == ["trains 1, 3", left, "trains 2"]
    assert cast(Meeting, worker.database).locks == set()
    assert name_trials(batch, 0, 1) == "1, 3, 2"
    # The machine that has divided the batch so does not wait for others to do it.
    with pytest.raises(UserError, match="trials 1, 3: the rows are read from disk"):
        share(replace(worker, declined={}), CONTENT)


def test_what_has_changed_is_not_written_down(
    worker: Worker, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("code.py").write_text("a = 1\n")
    monkeypatch.setattr("stages.tools.search.parts.check_installed", lambda: None)
    monkeypatch.setattr("stages.tools.search.parts.audit_process", Audit)
    Path("dvc.yaml").write_text("stages: {tune: {}}\n")
    snapshot = Snapshot("tune", 0.0, {}, ["code.py"], {}, {})
    batch = post(worker.database, STUDY, {**CONTENT, "parts": PARTS})
    with pytest.raises(UserError, match=r"changed while it ran:\n  code\.py is new"):
        work_once(replace(worker, check=lambda: check_inputs(snapshot)), batch)
    assert find_done(worker.database, STUDY, batch) == set()
    assert cast(Meeting, worker.database).locks == set()


def test_the_host_waits_says_so_and_ends_where_its_batch_is_removed(
    worker: Worker, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("stages.tools.search.host.QUIET_SECONDS", 0.0)
    batch = post(worker.database, STUDY, {**CONTENT, "parts": PARTS})
    assert worker.database.try_lock(f"{STUDY}/{batch.name}/0")

    def finish(_seconds: float) -> None:
        write_done(worker.database, STUDY, batch, 0, train(None, None, batch, PARTS[0]))

    monkeypatch.setattr("stages.tools.search.host.time.sleep", finish)
    assert share(worker, CONTENT) == [{"0": told(1), "2": told(3)}, {"1": told(2)}]
    assert capsys.readouterr().out == "waits for other machines: trials 1, 3\n"

    worker.database.ask("DELETE FROM reprise_trained")
    monkeypatch.setattr(
        "stages.tools.search.host.time.sleep",
        lambda _: worker.database.ask("DELETE FROM reprise_posted"),
    )
    with pytest.raises(UserError, match="was removed from the database"):
        share(worker, CONTENT)


def test_one_machine_runs_the_search_and_removes_the_mark_of_the_last_end(
    database: Database,
) -> None:
    post(database, STUDY, {**CONTENT, "parts": PARTS})
    end(database, STUDY)
    assert find_posted(database, STUDY) == ENDED
    assert read_posted(database, STUDY) is None
    begin(database, STUDY)
    assert find_posted(database, STUDY) is None
    # A batch is no mark: a search that was killed goes on from it.
    batch = post(database, STUDY, {**CONTENT, "parts": PARTS})
    cast(Meeting, database).locks.clear()
    begin(database, STUDY)
    assert find_posted(database, STUDY) == batch.name
    assert read_done(database, STUDY, batch) == []
    with pytest.raises(UserError, match="another machine runs this search"):
        begin(database, STUDY)


@pytest.mark.parametrize(
    ("parts", "reason"),
    [
        ([{"0": told(1)}], "of other trials"),
        ([{"0": told(1), "1": told(2)}, {"1": told(2)}], "of other trials"),
        ([{"0": told(1), "1": told(1)}], "of other trials"),
        ([{"0": told(1), "2": told(2)}], "of other trials"),
        ([{"0": told(1), "1": told(2, end="pruned")}], "by another rule"),
    ],
)
def test_results_of_other_trials_are_refused(parts: list[Mapping[str, Told]], reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        replay(parts, [{"a": 1}, {"a": 2}], lambda _epoch, _values: set())


def test_a_search_is_named_by_the_code_that_speaks_of_it() -> None:
    assert name_search("study-cpu").startswith("study-cpu-")
    assert find_difference("study-cpu-1", "study-cpu-2") == "another version of 'reprise tune'"
    assert find_difference("study-cuda-1", "study-cpu-1") == "another device: cuda"
    assert find_difference("other-cuda-1", "study-cpu-1") == "other code, parameters or data"


def test_json_of_a_batch_is_its_name(database: Database) -> None:
    one = post(database, STUDY, {**CONTENT, "parts": PARTS})
    again = post(database, STUDY, json.loads(json.dumps({**CONTENT, "parts": PARTS})))
    assert one.name == again.name


@pytest.mark.parametrize("says", ["", '{"pa', "{}\n"])
def test_a_process_beside_the_stage_that_has_ended_is_a_mistake_and_no_traceback(
    says: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    code = f"import os, sys\nos.close(0)\nos.write(int(sys.argv[2]), {says.encode()!r})\n"
    Path(tmp_path, "beside.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("stages.tune.training.shared.HOST", "beside")
    begun = False
    with (
        pytest.raises(UserError, match="has ended; see above"),
        share_batches(STUDY, tmp_path / "none.journal"),
    ):
        begun = True
    assert begun == (says == "{}\n")
