"""`reprise merge-lock` on real conflicts, and what `dvc repro` runs after it."""

from pathlib import Path

import pytest

from tests.conftest import Project
from tests.support.tiny import made_once, tiny_project

# Two chains side by side, and one stage that reads both.
TWO_CHAINS = """\
stages:
  left: {cmd: 'echo ${left} > out/left.txt', params: [left], deps: [raw.txt], outs: [out/left.txt]}
  right:
    cmd:
      - echo ${right} > out/right.txt
      - echo ${right} > out/right.json
    params: [right]
    deps: [raw.txt]
    outs: [out/right.txt]
    metrics: [{out/right.json: {cache: false}}]
  both:
    cmd:
      - cat out/left.txt out/right.txt > out/both.txt
      - wc -c < out/both.txt > out/both.json
    deps: [out/left.txt, out/right.txt]
    outs: [out/both.txt]
    metrics: [{out/both.json: {cache: false}}]
"""


def branch(project: Project, name: str, *edits: tuple[str, str]) -> None:
    """A branch off main with these edits of params.yaml, reproduced and committed."""
    project.run("git", "checkout", "--quiet", "-b", name, "main")
    project.run("dvc", "checkout")
    for old, new in edits:
        project.edit("params.yaml", old, new)
    project.repro()
    project.commit(name)


@made_once
def two_branches(folder: Path) -> None:
    """The branches `longer` (left) and `other` (right, checked out)."""
    project = tiny_project(folder, TWO_CHAINS, "left: a\n# apart\n# apart\nright: b\n")
    project.repro()
    project.commit("reproduced")
    branch(project, "longer", ("left: a", "left: aaa"))
    branch(project, "other", ("right: b", "right: bbbbb"))


def test_each_entry_from_the_side_that_fits(tmp_path: Path) -> None:
    project = two_branches(tmp_path)
    project.run("git", "merge", "longer", ok=False)
    assert "dvc.lock" in project.run("git", "ls-files", "--unmerged").stdout
    assert "reprise merge-lock" in project.run("reprise", "plan", ok=False).stderr
    # Another git is at work, or has been killed: nothing is resolved, whatever was written.
    (project.path / ".git/index.lock").touch()
    refused = project.run("reprise", "merge-lock", ok=False)
    assert "index.lock': File exists" in refused.stderr
    assert "then run 'reprise merge-lock' again" in refused.stderr
    assert "resolved" not in refused.stdout
    (project.path / ".git/index.lock").unlink()
    said = project.run("reprise", "merge-lock").stdout
    assert "1 of 3 stages must run" in said
    rows = [line.split("│")[1:3] for line in said.splitlines() if line.startswith("│")]
    assert [[cell.strip() for cell in row] for row in rows if row[0].strip()] == [
        ["left", "MERGE_HEAD"],
        ["right", "HEAD"],
        ["both", "HEAD"],
    ]
    assert project.run("git", "ls-files", "--unmerged").stdout == ""
    assert (project.path / "out/right.json").read_text(encoding="utf-8") == "bbbbb\n"
    project.run("dvc", "checkout")
    assert project.repro() == ["both"]
    assert (project.path / "out/both.txt").read_text(encoding="utf-8") == "aaa\nbbbbb\n"
    project.commit("merged")
    assert "nothing would run" in project.run("reprise", "plan").stdout


def test_a_rebase(tmp_path: Path) -> None:
    project = two_branches(tmp_path)
    project.run("git", "rebase", "longer", ok=False)
    assert "REBASE_HEAD" in project.run("reprise", "merge-lock").stdout
    project.run("dvc", "checkout")
    assert project.repro() == ["both"]
    project.run("git", "add", "--all")
    project.run("git", "-c", "core.editor=true", "rebase", "--continue")
    assert project.run("git", "status", "--porcelain").stdout == ""


def test_it_refuses_while_anything_else_is_open(tmp_path: Path) -> None:
    project = two_branches(tmp_path)
    assert "has no conflict" in project.run("reprise", "merge-lock", ok=False).stderr
    branch(project, "third", ("left: a", "left: cc"))
    project.run("git", "merge", "longer", ok=False)
    lock = (project.path / "dvc.lock").read_bytes()
    said = project.run("reprise", "merge-lock", ok=False).stderr
    assert "still have conflicts:\n  params.yaml" in said
    assert (project.path / "dvc.lock").read_bytes() == lock

    # A third value, which neither side has run with: left and what follows must run.
    params = "left: dddd\n# apart\n# apart\nright: b\n"
    (project.path / "params.yaml").write_text(params, encoding="utf-8")
    project.run("git", "add", "params.yaml")
    assert "2 of 3 stages must run" in project.run("reprise", "merge-lock").stdout
    project.run("dvc", "checkout")
    assert project.repro() == ["left", "both"]


@pytest.mark.soak
def test_two_knobs_of_the_pipeline(clone: Project) -> None:
    branch(clone, "rate", ("lr: 3e-3", "lr: 2e-3"))
    branch(clone, "gates", ("  - f1_macro\n", "  - f1_macro\n  - brier\n"))
    clone.run("git", "merge", "rate", ok=False)
    said = clone.run("reprise", "merge-lock").stdout
    assert "1 of 6 stages must run" in said
    clone.run("dvc", "checkout")
    assert clone.repro() == ["evaluate"]
