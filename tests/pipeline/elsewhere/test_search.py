"""A search in a work pool, helped by more runs of it through PostgreSQL."""

from pathlib import Path

import pytest

from pipeline.params.work_pool import find_workers
from stages.common.errors import UserError
from tests.conftest import Project, copy_of
from tests.pipeline.elsewhere.places import (
    clone_for_worker,
    log_of,
    make_place,
    wait_for_nobody,
    worker,
)
from tests.support.dags import END_SECONDS
from tests.support.postgres import start_postgres
from tests.support.samples import set_params

SEARCH = {
    "tune.trials": 8,
    "tune.batch": 4,
    "tune.epochs": 2,
    "tune.pruner": "none",
    "train.packed": False,
}


@pytest.mark.soak
@pytest.mark.parametrize("num", [2, 4])
def test_trials_of_several_runs_are_those_of_one(
    example: Project, prefect_server: str, tmp_path: Path, num: int
) -> None:
    place = make_place(copy_of(example, tmp_path / "project"), prefect_server)
    project = place.project
    set_params(project, SEARCH)
    at_home = copy_of(project, tmp_path / "home")
    at_home.run("dvc", "repro", "tune")
    clone = clone_for_worker(place)
    with start_postgres() as postgres, worker(place, clone, REPRISE_STUDY=postgres.url):
        said = place.run("tune", "tune", REPRISE_WORKERS_tune=str(num - 1))
        wait_for_nobody(place, END_SECONDS)
        helped = {
            number for number in range(1, num) if f"helper {number} of the search: the run" in said
        }
    assert helped == set(range(1, num)), said + log_of(place)
    assert postgres.url not in said + log_of(place)
    # Only who helps says so, and none finds another search than the one that runs.
    assert log_of(place).count("stage - waits for work at the search") >= num - 1
    assert "note: the search" not in log_of(place)
    for name in ("dvc.lock", "data/tune/plots/history.csv"):
        assert (project.path / name).read_bytes() == (at_home.path / name).read_bytes(), name
    project.run("dvc", "pull", "tune")
    trials = "data/tune/trials.csv"
    assert (project.path / trials).read_bytes() == (at_home.path / trials).read_bytes()
    assert {run["state_type"] for run in place.runs()} <= {"COMPLETED", "CANCELLED"}
    assert place.refs() == ["refs/heads/main"]


def test_workers_are_a_number_and_those_of_tune(monkeypatch: pytest.MonkeyPatch) -> None:
    meta = {"work_pool": "gpu", "workers": 3}
    assert find_workers("tune", {}) == 0
    assert find_workers("tune", meta) == 3
    monkeypatch.setenv("REPRISE_WORKERS_tune", "4")
    assert find_workers("tune", meta) == 4
    with pytest.raises(UserError, match="has no work pool that they could be runs of"):
        find_workers("tune", {})
    monkeypatch.setenv("REPRISE_WORKERS_tune", "many")
    with pytest.raises(UserError, match="must be a number of workers"):
        find_workers("tune", meta)
    with pytest.raises(UserError, match="only 'tune' is shared"):
        find_workers("train", meta)
