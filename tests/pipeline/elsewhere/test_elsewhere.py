"""A stage in a work pool, with a real server, workers, git and DVC remotes."""

import json
import shutil
from pathlib import Path

import pytest

from stages.common.yamlfile import read_yaml
from tests.conftest import Project, copy_of
from tests.pipeline.elsewhere.conftest import Served
from tests.pipeline.elsewhere.places import clone_for_worker, log_of, make_place, worker
from tests.support.remotes import branches
from tests.support.samples import set_params

ONLY_MAIN = ["refs/heads/main"]


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
    assert "train   │ cnn: 38,378 weights" in said, said
    at_home.run("dvc", "repro", "train")
    for name in ("dvc.lock", "data/train/metrics.json", "data/train/plots/loss.csv"):
        assert (project.path / name).read_bytes() == (at_home.path / name).read_bytes(), name
    assert (branches(place.origin), branches(project.path)) == before
    assert place.refs() == ONLY_MAIN
    # What DVC caches is elsewhere until it is asked for.
    assert not (project.path / "data/train/model.safetensors").exists()
    states = json.loads(project.run("reprise", "plan", "--json", "train").stdout)
    assert {each["state"] for each in states} == {"fresh"}
    project.run("dvc", "pull", "train")
    assert project.outputs() == at_home.outputs()


@pytest.mark.soak
def test_edits_travel_and_outputs_come_back_when_they_are_needed(served: Served) -> None:
    place, project = served.place, served.place.project
    (project.path / "new").mkdir()
    (project.path / "new/note.txt").write_text("nobody has committed this\n")
    project.edit("Makefile", "# make repro ", "# edited ")
    commits = project.run("git", "log", "--oneline", "--all").stdout
    before, index = branches(place.origin), (project.path / ".git/index").read_bytes()
    said = place.run("far", "far")
    assert "far   │ nobody has committed this" in said, said + log_of(place)
    assert "far   │ # edited" in said
    assert "far   │ ran in" in said
    assert not (project.path / "far.out").exists()
    assert json.loads((project.path / "far.json").read_text()) == {"lines": 1}
    assert (branches(place.origin), place.refs()) == (before, ONLY_MAIN)
    assert project.run("git", "log", "--oneline", "--all").stdout == commits
    assert (project.path / ".git/index").read_bytes() == index
    shown = project.run("reprise", "plan", env=place.environment("far")).stdout
    assert f"in the work pool {place.pool}" in " ".join(shown.split())
    assert "would run: near" in shown
    # The next stage needs them, and they are not sent for again.
    said = place.run("far")
    assert "far   │ unchanged" in said
    assert "near  │ dvc pull far.out" in said
    assert project.run("dvc", "status").stdout.strip().endswith("up to date.")
    # What the cache has is not sent for, either.
    lock = (project.path / "dvc.lock").read_text()
    (project.path / "dvc.lock").write_text(lock[: lock.index("  far:")])
    assert "far   │ restored" in place.run("far")
    assert (project.path / "dvc.lock").read_text() == lock
    assert [run["state_type"] for run in place.runs()] == ["COMPLETED"]


@pytest.mark.soak
def test_a_stage_that_fails_there_says_why_here(served: Served) -> None:
    place, project = served.place, served.place.project
    (project.path / "new").mkdir(exist_ok=True)
    (project.path / "new/note.txt").unlink(missing_ok=True)
    (project.path / "new/other.txt").touch()
    said = place.run("far", "far", ok=False)
    assert "far failed (exit code 1)" in said
    assert "new/note.txt: No such file" in said.partition("its last lines:")[2]
    # A worker with other libraries says so before any data moves.
    versions = read_yaml(project.path / "stages/versions.yaml")
    project.edit("stages/versions.yaml", f"numpy: {versions['numpy']}", "numpy: 1.0.0")
    said = place.run("far", "far", ok=False)
    assert f"numpy: {versions['numpy']}, but stages/versions.yaml says 1.0.0" in said
    assert "run 'make setup' for the pinned libraries" in said.partition("its last lines:")[2]
    assert place.refs() == ONLY_MAIN
    assert [run["state_type"] for run in place.runs()][-2:] == ["FAILED"] * 2
    shutil.rmtree(project.path / "new")
