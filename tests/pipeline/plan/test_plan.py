"""`reprise plan`: what would run and why, compared with what `dvc repro` then does."""

import json
import random
from collections.abc import Mapping
from pathlib import Path

import pytest

from pipeline.plan.plan import StagePlan, describe, make_plan
from stages.common.errors import UserError
from tests.conftest import Project
from tests.support.tiny import reproduced, running_stage, tiny_project

FRESH = {"first": "fresh", "second": "fresh", "third": "fresh"}


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.chdir(tmp_path)
    return reproduced(tmp_path)


def planned(*targets: str, lock_only: bool = False) -> Mapping[str, StagePlan]:
    return {plan.name: plan for plan in make_plan(targets, lock_only=lock_only)}


def states(*targets: str, lock_only: bool = False) -> dict[str, str]:
    return {name: plan.state for name, plan in planned(*targets, lock_only=lock_only).items()}


def why(name: str, *, lock_only: bool = False) -> list[str]:
    return [describe(reason) for reason in planned(lock_only=lock_only)[name].reasons]


def repro(project: Project) -> tuple[list[str], list[str]]:
    """The stages that ran, and those that came from the cache."""
    done = project.run("dvc", "repro").stdout
    cached = [line.split("'")[1] for line in done.splitlines() if "is cached" in line]
    ran = [line.split("'")[1] for line in done.splitlines() if line.startswith("Running stage '")]
    return [name for name in ran if name not in cached], cached


def test_each_edit_is_named_and_going_back_is_restored(tiny: Project) -> None:
    assert states() == FRESH
    assert planned()["second"].upstream == ("first",)
    assert planned()["second"].meta == {"retries": 2}

    tiny.edit("params.yaml", "number: 3", "number: 4")
    tiny.edit("params.yaml", "[1, 2]", "[1, 3]")
    tiny.edit("stages/code/b.py", "return 2", "return 3")
    (tiny.path / "stages/code/c.py").write_text("", encoding="utf-8")
    assert why("second") == [
        "stages/code/b.py changed",
        "stages/code/c.py is new",
        "second.number: 3 → 4",
        "second.deep.list: [1, 2] → [1, 3]",
    ]
    assert why("third") == ["upstream second"]
    assert repro(tiny) == (["second"], [])
    assert states() == FRESH

    tiny.run("git", "checkout", "params.yaml", "stages")
    (tiny.path / "stages/code/c.py").unlink()
    assert states() == {**FRESH, "second": "restorable"}
    assert repro(tiny) == ([], ["second"])


def test_what_follows_a_restored_stage_is_restored_or_fresh_too(tiny: Project) -> None:
    tiny.edit("params.yaml", "text: hello", "text: bye")
    assert why("first") == ["first.text: hello → bye", "command: hello → bye"]
    assert repro(tiny) == (["first", "second", "third"], [])
    tiny.edit("params.yaml", "text: bye", "text: hello")
    assert set(states().values()) == {"restorable"}
    assert why("third") == ["out/second.txt changed"]
    assert repro(tiny) == ([], ["first", "second", "third"])

    # The last run's output, but of an input that no run had: nothing after it is known.
    tiny.edit("raw.txt", "raw", "new")
    assert states() == dict.fromkeys(FRESH, "stale")
    assert why("first") == ["raw.txt changed"]


def test_a_path_that_is_null_is_named_by_its_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dvc_yaml = """\
vars: [{or_None: ''}]
stages:
  one: {cmd: date > out.txt, deps: ['${one.input}${or_None}', 'raw.txt'], outs: [out.txt]}
"""
    monkeypatch.chdir(tmp_path)
    project = tiny_project(tmp_path, dvc_yaml, "one: {input: stages/one.py}\n")
    Path("None").write_text("no file\n", encoding="utf-8")
    project.repro()
    project.edit("params.yaml", "stages/one.py", "null")
    assert why("one") == ["one.input is null now"]


def test_outputs_that_are_gone_or_edited(tiny: Project) -> None:
    (tiny.path / "out/second.txt").unlink()
    (tiny.path / "out/third.txt").write_text("edited", encoding="utf-8")
    assert states() == {"first": "fresh", "second": "restorable", "third": "restorable"}
    assert why("second") == ["out/second.txt is missing"]
    assert why("third") == ["out/third.txt is modified"]
    # `dvc.lock` is not current as long as an output is another.
    assert states(lock_only=True) == {**FRESH, "third": "stale"}
    assert repro(tiny) == ([], ["second", "third"])

    tiny.run("rm", "-r", ".dvc/cache", "out/third.txt", "out/size.json")
    assert why("first") == ["out/first.txt is not in the cache"]
    assert "out/third.txt is missing, and not in the cache" in why("third")
    assert why("second", lock_only=True) == ["out/size.json is missing"], "git has it, so it counts"
    assert why("third", lock_only=True) == ["upstream second"]


def test_a_clone_that_pulled_nothing_can_be_checked(tiny: Project, tmp_path: Path) -> None:
    (tiny.path / "data.txt").write_text("data\n", encoding="utf-8")
    tiny.run("dvc", "add", "data.txt")
    tiny.edit("dvc.yaml", "deps: [raw.txt,", "deps: [raw.txt, data.txt,")
    tiny.repro()
    tiny.commit("with an input that DVC tracks")
    clone = Project(tmp_path / "clone")
    tiny.run("git", "clone", "--quiet", ".", str(clone.path))
    clone.run("dvc", "remote", "add", "--default", "store", "../store")
    assert "dvc.lock is current" in clone.run("reprise", "plan", "--check").stdout
    shown = clone.run("reprise", "plan").stdout
    assert "out/first.txt is missing" in shown
    assert "'dvc pull' fetches outputs that a remote has" in shown
    assert "dvc pull data.txt.dvc" in shown

    clone.edit("params.yaml", "number: 3", "number: 4")
    done = clone.run("reprise", "plan", "--check", ok=False)
    assert "second.number: 3 → 4" in done.stdout
    assert "2 stages are stale" in done.stderr
    assert [p["state"] for p in json.loads(clone.run("reprise", "plan", "--json").stdout)] == [
        "stale"
    ] * 4


def test_it_works_while_a_stage_runs_and_writes_nothing(tmp_path: Path) -> None:
    with running_stage(tmp_path) as project:
        before = project.run("git", "status", "--porcelain", "--ignored").stdout
        (plan,) = json.loads(project.run("reprise", "plan", "--json").stdout)
        assert [reason["text"] for reason in plan["reasons"]] == ["never run"]
        assert project.run("git", "status", "--porcelain", "--ignored").stdout == before
    assert "nothing would run" in project.run("reprise", "plan").stdout


EVERY_FORM = """\
stages:
  frozen: {cmd: cp raw.txt out/frozen.txt, deps: [raw.txt], outs: [out/frozen.txt], frozen: true}
  after_frozen: {cmd: cp out/frozen.txt out/b.txt, deps: [out/frozen.txt], outs: [out/b.txt]}
  always: {cmd: echo 1 > out/always.txt, outs: [out/always.txt], always_changed: true}
  callback: {cmd: 'true'}
  no_deps: {cmd: echo 1 > out/no_deps.txt, outs: [out/no_deps.txt]}
  each:
    foreach: [1, 2]
    do: {cmd: 'cp raw.txt out/${item}.txt', deps: [raw.txt], outs: ['out/${item}.txt']}
  grid:
    matrix: {a: [x, y], b: [1]}
    cmd: mkdir -p out/${item.a} && cp data.txt out/${item.a}/${item.b}
    deps: [data.txt]
    outs: ['out/${item.a}']
  part: {cmd: cp out/x/1 out/part.txt, deps: [out/x/1], outs: [out/part.txt]}
  around: {cmd: ls around > out/around.txt, deps: [around], outs: [out/around.txt]}
  into: {cmd: mkdir -p around && cp raw.txt around/raw.txt, deps: [raw.txt], outs: [around/raw.txt]}
  whole: {cmd: cat other.json > out/w.txt, params: [{other.json: null}], outs: [out/w.txt]}
"""


def test_every_form_of_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    project = tiny_project(tmp_path, EVERY_FORM)
    for name, text in {
        "data.txt": "data\n",
        "around/own.txt": "own\n",
        "other.json": '{"a": {"b": 1}}',
        "sub/dvc.yaml": "stages: {inner: {cmd: cp ../data.txt o, deps: [../data.txt], outs: [o]}}",
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    project.run("dvc", "add", "data.txt")
    # A frozen stage that has never run is not run either: DVC stops.
    project.edit("dvc.yaml", ", frozen: true", "")
    project.run("dvc", "repro", "--all-pipelines")
    project.edit("dvc.yaml", "outs: [out/frozen.txt]", "outs: [out/frozen.txt], frozen: true")
    project.commit("reproduced")

    always = {"always": "stale", "callback": "stale"}
    assert {name: s for name, s in states().items() if s != "fresh"} == always
    assert set(states(lock_only=True).values()) == {"fresh"}
    assert set(states("grid")) == {"grid@x-1", "grid@y-1"}

    (tmp_path / "raw.txt").write_text("new\n", encoding="utf-8")
    (tmp_path / "data.txt").write_text("new\n", encoding="utf-8")
    (tmp_path / "other.json").write_text('{"a": {"b": 2}}', encoding="utf-8")
    plan = planned()
    stale = {name for name, p in plan.items() if p.state == "stale"}
    made = {"each@1", "each@2", "grid@x-1", "grid@y-1", "part", "around", "into", "whole"}
    assert stale == {*always, *made, "data.txt.dvc", "sub/dvc.yaml:inner"}
    assert plan["grid@x-1"].upstream == ("data.txt.dvc",)
    assert plan["part"].reasons[0].what == "grid@x-1"
    assert plan["around"].reasons[0].what == "into"
    assert describe(plan["whole"].reasons[0]) == "other.json:a.b: 1 → 2"
    ran = project.run("dvc", "repro", "--all-pipelines").stdout
    assert {n for n in plan if f"Running stage '{n}'" in ran} == stale - {"data.txt.dvc"}

    project.run("git", "checkout", "raw.txt", "other.json")
    (tmp_path / "data.txt").write_text("data\n", encoding="utf-8")
    back = {name: p.state for name, p in planned().items() if p.state != "fresh"}
    assert back == {
        **always,
        **dict.fromkeys(made, "restorable"),
        "sub/dvc.yaml:inner": "restorable",
        "data.txt.dvc": "stale",
        # Restored outputs inside a folder with other files: known only when they are there.
        "around": "stale",
    }


def test_mistakes_are_told_with_the_place(tiny: Project) -> None:
    with pytest.raises(UserError, match="did you mean 'second'"):
        make_plan(["secnd"])
    assert list(states("second")) == ["first", "second"]
    tiny.edit("params.yaml", "number: 3", "number: [3")
    with pytest.raises(UserError, match=r"params.yaml:2: not valid YAML"):
        make_plan()
    tiny.edit("params.yaml", "number: [3", "number: 3")
    tiny.edit("dvc.yaml", "cmd: cp out", "command: cp out")
    with pytest.raises(UserError, match="extra keys not allowed"):
        make_plan()
    tiny.edit("dvc.yaml", "command: cp out", "cmd: cp out")
    (tiny.path / "dvc.lock").write_text("<<<<<<< HEAD\n", encoding="utf-8")
    with pytest.raises(UserError, match="reprise merge-lock"):
        make_plan()


def test_the_pipeline(example: Project, tmp_path: Path) -> None:
    shown = example.run("reprise", "plan").stdout
    assert all(len(line) <= 80 for line in shown.splitlines())
    assert "nothing would run" in shown
    plans = json.loads(example.run("reprise", "plan", "--json").stdout)
    assert [plan["name"] for plan in plans] == [
        "prepare",
        "build",
        "tune",
        "train",
        "evaluate",
        "infer",
    ]
    # Each stage has noted how long it took.
    assert all(plan["last_seconds"] > 0 for plan in plans)
    clone = Project(tmp_path / "clone")
    example.run("git", "clone", "--quiet", ".", str(clone.path))
    clone.run("reprise", "plan", "--check")
    clone.edit("params.yaml", "lr: 3e-3", "lrr: 3e-3")
    assert "did you mean 'lr'" in clone.run("reprise", "plan", ok=False).stderr


EDITS = {
    "params.yaml": [("number: 3", "number: 4"), ("text: hello", "text: bye")],
    "raw.txt": [("raw", "new")],
    "stages/code/a.py": [("return 1", "return 1  # one")],
    "stages/code/b.py": [("return 2", "return 5")],
}


@pytest.mark.soak
def test_any_edits_run_what_was_planned(tiny: Project) -> None:
    choose = random.Random(0)
    for _ in range(100):
        for file, edits in EDITS.items():
            for edit in edits:
                text = (tiny.path / file).read_text(encoding="utf-8")
                if choose.random() < 0.3:
                    there, other = edit if edit[1] not in text else edit[::-1]
                    (tiny.path / file).write_text(text.replace(there, other), encoding="utf-8")
        for out in ("first.txt", "second.txt", "third.txt", "size.json"):
            if choose.random() < 0.1:
                (tiny.path / "out" / out).unlink()
        plan = planned()
        ran, cached = repro(tiny)
        for name, stage in plan.items():
            kinds = {reason.kind for reason in stage.reasons}
            done = "stale" if name in ran else "restorable" if name in cached else "fresh"
            # What waits for its upstream may find its inputs as they were.
            expected = {stage.state}
            if "upstream" in kinds:
                expected |= {"restorable", "fresh"} if kinds == {"upstream"} else {"restorable"}
            assert done in expected, (name, done, stage)
