"""`reprise accept`: comments and formatting go into dvc.lock without a rerun, nothing else does."""

import hashlib
from pathlib import Path

import pytest

from pipeline.commands.accept import accept
from pipeline.plan.file_diff import same_code
from pipeline.plan.git_history import History, Locked
from stages.common.errors import UserError
from tests.conftest import Project
from tests.support.tiny import reproduced


@pytest.fixture
def tiny(tmp_path: Path) -> Project:
    return reproduced(tmp_path)


def test_comments_are_accepted_and_nothing_runs(tiny: Project) -> None:
    outputs = (tiny.path / "out/second.txt").read_bytes()
    tiny.edit("stages/code/a.py", "def a():", "# why\ndef a( ):")
    tiny.edit("stages/one.py", "X = 1", "X=1  # one")
    shown = tiny.run("reprise", "plan").stdout
    assert "only comments: stages/code/a.py" in shown
    assert "'reprise accept' takes changes of comments alone" in shown
    assert "accepted: first, second" in tiny.run("reprise", "accept").stdout
    assert tiny.repro() == []
    assert (tiny.path / "out/second.txt").read_bytes() == outputs
    changed = tiny.run("git", "diff", "--stat", "dvc.lock").stdout
    assert "8 ++++----" in changed, "hash and size of two dependencies"

    # The run-cache knows the outputs under the new code: after an edit they come back from it.
    tiny.commit("accepted")
    tiny.edit("params.yaml", "number: 3", "number: 4")
    assert tiny.repro() == ["second"]
    tiny.run("git", "checkout", "params.yaml")
    assert "Stage 'second' is cached" in tiny.run("dvc", "repro").stdout
    assert tiny.run("git", "status", "--porcelain").stdout == ""


def test_a_version_of_an_older_commit_is_found(tiny: Project) -> None:
    for text in ("def a():\n    return 1  # one\n", "def a():\n    return 1  # uno\n"):
        (tiny.path / "stages/code/a.py").write_text(text, encoding="utf-8")
        tiny.commit("comments, not accepted")
    assert "accepted: second" in tiny.run("reprise", "accept", "second").stdout
    assert tiny.repro() == []


REFUSED = {
    "code": (("stages/code/a.py", "return 1", "return 3"), "stages/code/a.py changed"),
    "a docstring": (("stages/one.py", "One.", "Two."), "stages/one.py changed"),
    "a parameter": (("params.yaml", "number: 3", "number: 4"), "second.number: 3 → 4"),
    "the command": (("dvc.yaml", "wc -c", "wc -l"), "command: "),
    "another input": (("raw.txt", "raw", "new"), "raw.txt changed"),
    "an output": (("out/size.json", "19", "21"), "out/size.json is modified"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_anything_else_is_refused_by_name(
    tiny: Project, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    edit, reason = REFUSED[what]
    tiny.edit("stages/code/b.py", "def b():", "# b\ndef b():")
    tiny.edit("stages/one.py", "X = 1", "X = 1  # one")
    tiny.edit(*edit)
    lock = (tiny.path / "dvc.lock").read_bytes()
    monkeypatch.chdir(tiny.path)
    with pytest.raises(UserError, match="must run") as error:
        accept(["first", "second"])
    assert reason in str(error.value)
    assert (tiny.path / "dvc.lock").read_bytes() == lock


def test_what_git_does_not_hold_is_refused_and_the_rest_accepted(tiny: Project) -> None:
    tiny.edit("stages/code/a.py", "return 1", "return 5")
    tiny.repro()
    tiny.edit("stages/code/a.py", "return 5", "return 5  # five")
    tiny.edit("stages/one.py", "X = 1", "X = 1  # one")
    said = tiny.run("reprise", "accept", "second", ok=False).stderr
    assert "stages/code changed, and no commit has the version that dvc.lock knows" in said
    said = tiny.run("reprise", "accept").stdout
    assert "accepted: first" in said
    assert "second must run" in said
    assert tiny.repro() == ["second"]


def test_a_lock_that_another_command_holds_is_waited_for_and_then_named(tiny: Project) -> None:
    code = "from dvc.repo import Repo\nimport subprocess\nwith Repo().lock:\n    "
    code += "print(subprocess.run(['reprise', 'accept'], capture_output=True, text=True).stderr)"
    assert "another dvc or reprise command" in tiny.run("python", "-c", code).stdout


def test_history_is_that_of_this_repository_inside_a_hook_of_another(
    tiny: Project, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tiny.path)
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere"))
    raw = Locked("raw.txt", hashlib.md5(b"raw\n").hexdigest(), 4, None)
    assert History(lambda _: False).find(raw) == {"raw.txt": b"raw\n"}


def test_what_counts_as_the_same_code() -> None:
    before = b"def f(a, b=1):\n    'Doc.'\n    return (a + b)\n"
    assert same_code(
        before, b"# c\ndef f(\n    a,\n    b=1,\n):\n    '''Doc.'''\n    return a + b\n"
    )
    assert not same_code(before, before.replace(b"Doc.", b"Doc"))
    assert not same_code(before, before.replace(b"a + b", b"b + a"))
    assert not same_code(b"x = 1", b"x = 1.0")
    assert not same_code(b"x = 'a'", b"x = b'a'")
    assert not same_code(b"x = 1", b"x = = 1"), "what does not parse is never the same"
    # The encoding is said in a comment, and changes what a text is.
    assert not same_code("# coding: utf-8\nx = 'é'".encode(), "# coding: latin-1\nx = 'é'".encode())
