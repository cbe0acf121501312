"""A stage in a work pool, with a real server, workers, git and DVC remotes."""

import json
from pathlib import Path

import pytest

from tests.conftest import Project, copy_of
from tests.pipeline.elsewhere.places import Place, clone_for_worker, log_of, make_place, worker
from tests.support.dags import make_dag
from tests.support.remotes import branches
from tests.support.samples import set_params

FAR = {"cmd": "cat new/note.txt Makefile > far.txt", "deps": ["new", "Makefile"]}
STAGES = {
    "first": {},
    "far": {**FAR, "after": ["first"], "metrics": ["far.json"]},
    "near": {"after": ["far"], "cmd": "grep far far.out"},
}


@pytest.fixture
def place(prefect_server: str, tmp_path: Path) -> Place:
    """A project of three stages in a row, of which the second goes elsewhere."""
    stages = {
        "first": {},
        "far": {
            "after": ["first"],
            "deps": ["Makefile", "new"],
            "cmd": "cat new/note.txt && head -n 1 Makefile && echo '{\"lines\": 1}' > far.json",
            "metrics": [{"far.json": {"cache": False}}],
            "meta": {"retries": 1},
        },
        "near": {"after": ["far"]},
    }
    return make_place(make_dag(tmp_path / "dag", stages), prefect_server)


def test_train_elsewhere_ends_with_the_bytes_of_dvc_repro(
    example: Project, prefect_server: str, tmp_path: Path
) -> None:
    place = make_place(copy_of(example, tmp_path / "project"), prefect_server)
    project = place.project
    # Nobody commits that.
    set_params(project, {"train.epochs": 1, "train.replicas": 1})
    at_home = copy_of(project, tmp_path / "home")
    before = branches(place.origin), branches(project.path)
    with worker(place, clone_for_worker(place)):
        said = place.run("train", "train")
    assert "train    │ replica" in said or "cnn: 38,378 weights" in said
    at_home.run("dvc", "repro", "train")
    for name in ("dvc.lock", "data/train/metrics.json", "data/train/plots/loss.csv"):
        assert (project.path / name).read_bytes() == (at_home.path / name).read_bytes(), name
    assert (branches(place.origin), branches(project.path)) == before
    assert place.refs() == ["refs/heads/main"]
    # What DVC caches is elsewhere until it is asked for.
    assert not (project.path / "data/train/model.safetensors").exists()
    states = json.loads(project.run("reprise", "plan", "--json", "train").stdout)
    assert {each["state"] for each in states} == {"fresh"}
    project.run("dvc", "pull", "train")
    assert project.outputs() == at_home.outputs()


def test_edits_travel_and_outputs_come_back_when_they_are_needed(place: Place) -> None:
    project = place.project
    (project.path / "new").mkdir()
    (project.path / "new/note.txt").write_text("nobody has committed this\n")
    project.edit("Makefile", "# make repro ", "# edited ")
    before = branches(place.origin), project.run("git", "log", "--oneline", "--all").stdout
    index = (project.path / ".git/index").read_bytes()
    with worker(place, clone_for_worker(place)):
        said = place.run("far", "far")
        assert "far   │ nobody has committed this" in said, said + log_of(place)
        assert "far   │ # edited" in said
        assert "far   │ ran in" in said
        assert not (project.path / "far.out").exists()
        assert json.loads((project.path / "far.json").read_text()) == {"lines": 1}
        shown = project.run("reprise", "plan", env=place.environment("far")).stdout
        assert f"in the work pool {place.pool}" in " ".join(shown.split())
        assert "would run: near" in shown
        # The next stage needs them, and they are not sent for again.
        said = place.run("far")
        assert "far   │ unchanged" in said
        assert "near  │ dvc pull far.out" in said
        # Back to what was, and to this again: from the cache, without the pool.
        note = (project.path / "new/note.txt").read_text()
        (project.path / "new/note.txt").write_text("another\n")
        assert "far   │ another" in place.run("far")
    (project.path / "new/note.txt").write_text(note)
    assert "far   │ restored" in place.run("far")
    assert project.run("dvc", "status").stdout.strip().endswith("up to date.")
    assert (
        branches(place.origin),
        project.run("git", "log", "--oneline", "--all").stdout,
    ) == before
    assert (project.path / ".git/index").read_bytes() == index
    assert place.refs() == ["refs/heads/main"]
    assert [run["state_type"] for run in place.runs()] == ["COMPLETED"] * 2


def test_a_stage_that_fails_there_says_why_here(place: Place) -> None:
    project = place.project
    (project.path / "new").mkdir()
    (project.path / "new/other.txt").touch()
    with worker(place, clone_for_worker(place)):
        said = place.run("far", "far", ok=False)
    assert "far failed (exit code 1)" in said
    assert "new/note.txt: No such file" in said.split("far failed")[1]
    # Its retries are held here: there is one run for each try.
    assert [run["state_type"] for run in place.runs()] == ["FAILED"] * 2
    assert place.refs() == ["refs/heads/main"]
