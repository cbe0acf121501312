"""The whole pipeline, as a user drives it: fresh clones, a remote, git and DVC clean afterwards."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Project


def test_after_the_pipeline_everything_is_clean(example: Project) -> None:
    status = example.run("dvc", "status", cold=True).stdout
    assert "up to date" in status
    assert example.run("git", "status", "--porcelain").stdout == ""
    done = example.run("dvc", "repro", cold=True)
    assert "Running" not in done.stdout
    assert "is cached" not in done.stdout


def test_two_fresh_clones_give_the_same_bytes_by_dvc_and_by_prefect(
    example: Project, fresh: Callable[[str], Project], prefect_server: str
) -> None:
    other = fresh("another-place")
    # Advice that fails takes nothing back.
    url = {"PREFECT_API_URL": prefect_server}
    done = other.run("reprise", "run", "--advise", "1s", env=url)
    assert "no advice: a budget of 1 s is too short" in done.stdout
    ours, theirs = example.outputs(), other.outputs()
    assert sorted(ours) == sorted(theirs)
    assert [name for name in ours if ours[name] != theirs[name]] == []
    assert "data/train/model.safetensors" in ours
    lock = (example.path / "dvc.lock").read_bytes()
    assert (other.path / "dvc.lock").read_bytes() == lock
    assert other.repro() == []


def test_pull_from_a_remote_brings_everything(clone: Project, tmp_path: Path) -> None:
    remote = tmp_path / "remote"
    clone.run("dvc", "remote", "add", "--default", "folder", str(remote))
    clone.commit("remote")
    clone.run("dvc", "push")
    far = tmp_path / "far"
    clone.run("git", "clone", "--quiet", str(clone.path), str(far))
    other = Project(far)
    other.run("dvc", "pull")
    assert other.outputs() == clone.outputs()
    assert other.repro() == []
    assert other.run("git", "status", "--porcelain").stdout == ""


def assert_shown_against(project: Project, revision: str) -> None:
    """DVC's own views show what the working tree changes of a revision."""
    assert "epochs" in project.run("dvc", "params", "diff", revision).stdout
    assert "validation_loss" in project.run("dvc", "metrics", "diff", revision, "--md").stdout
    page = project.run("dvc", "plots", "diff", revision).stdout.strip().splitlines()[-1]
    html = Path(page.removeprefix("file://")).read_text(encoding="utf-8")
    for title in ("Loss while training", "Confusion matrix", "Calibration", "ROC"):
        assert title in html


@pytest.mark.soak
def test_diffs_work_unmodified(shorter: Project) -> None:
    assert_shown_against(shorter, "main")


# It runs three stages anew; of what it shows the diffs of a branch are the short form.
@pytest.mark.soak
def test_experiments_work_unmodified(clone: Project) -> None:
    clone.run("dvc", "exp", "run", "--name", "faster", "-S", "train.epochs=9")
    assert "faster" in clone.run("dvc", "exp", "show", "--csv").stdout
    assert_shown_against(clone, "HEAD")
    # Comments are what makes params.yaml readable; an experiment keeps them.
    assert "# a class of torch.nn" in (clone.path / "params.yaml").read_text(encoding="utf-8")
    clone.run("git", "checkout", "--quiet", ".")
    assert clone.repro() == []
