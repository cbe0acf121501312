"""The state of a stage on its way: what the commit holds, what can't travel, what comes back."""

import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.common.dvc_repo import open_repo
from pipeline.common.git import git
from pipeline.elsewhere.data import missing_inputs, push_inputs, push_outputs
from pipeline.elsewhere.inputs import name_clone, name_run, read_inputs
from pipeline.elsewhere.refs import RESULT, fetch_ref, find_refs, push_ref, ref_of, remove_refs
from pipeline.elsewhere.result import commit_result
from pipeline.elsewhere.snapshot import MAX_UNTRACKED_BYTES, make_snapshot
from pipeline.elsewhere.take import take_result
from pipeline.params.work_pool import check_variables, find_work_pool
from pipeline.plan.plan import make_plan
from pipeline.plan.way import check_remote, find_origin
from pipeline.scheduled.workspace import WORKSPACES
from stages.common.errors import UserError
from tests.conftest import Project
from tests.support.remotes import branches, make_tiny, snapshot

KEY = "0123456789" * 4


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    project = make_tiny(tmp_path / "tiny")
    monkeypatch.chdir(project.path)
    return project


@pytest.fixture
def repo(tiny: Project) -> Iterator[Any]:
    with open_repo() as opened:
        yield opened


def commit_of(repo: Any, stage: str = "count") -> str:
    inputs = read_inputs(repo, stage)
    return make_snapshot(repo, inputs.plain, inputs.cached, "sent")


def test_one_state_is_one_commit_and_moves_nothing(tiny: Project, repo: Any) -> None:
    (tiny.path / "source.txt").write_text("edited, and committed by nobody\n")
    (tiny.path / "notes.txt").write_text("no input of any stage\n")
    (tiny.path / "broken.txt").write_text("nor this\n")
    (tiny.path / "count.sh").chmod(0o755)
    before = snapshot(tiny.path)
    first, again = commit_of(repo), commit_of(repo)
    assert first == again
    assert snapshot(tiny.path) == before
    assert branches(tiny.path) == {"main": git(tiny.path, "rev-parse", "HEAD")}
    shown = git(tiny.path, "show", "--format=", "--name-status", first)
    assert shown.split() == ["M", "count.sh", "M", "source.txt"]
    (tiny.path / "source.txt").write_text("edited again\n")
    assert commit_of(repo) != first


def test_a_new_input_travels_and_what_is_staged_does(tiny: Project) -> None:
    tiny.edit("dvc.yaml", "deps: [source.txt, count.sh]", "deps: [source.txt, count.sh, more]")
    (tiny.path / "more").mkdir()
    (tiny.path / "more/a*.txt").write_text("a name that git would take for a pattern\n")
    (tiny.path / "more/ab.txt").write_text("2\n")
    (tiny.path / "staged.txt").write_text("3\n")
    tiny.run("git", "add", "staged.txt")
    with open_repo() as repo:
        commit = commit_of(repo)
    shown = git(tiny.path, "show", "--format=", "--name-only", commit).splitlines()
    assert shown == ["dvc.yaml", "more/a*.txt", "more/ab.txt", "staged.txt"]


@pytest.mark.parametrize(
    ("file", "size", "said"),
    [
        (".reprise/hidden.txt", 1, "neither git nor DVC has these inputs"),
        ("large.bin", MAX_UNTRACKED_BYTES + 1, "too large for git"),
        ("../outside.txt", 1, "lies outside the repository"),
    ],
)
def test_an_input_that_cannot_travel_is_named(
    tiny: Project, file: str, size: int, said: str
) -> None:
    path = tiny.path / file
    path.parent.mkdir(exist_ok=True)
    with path.open("wb") as content:
        content.truncate(size)
    tiny.edit("dvc.yaml", "deps: [source.txt, count.sh]", f"deps: [source.txt, count.sh, {file}]")
    with open_repo() as repo, pytest.raises(UserError, match=said) as caught:
        commit_of(repo)
    assert Path(file).name in str(caught.value)
    assert "dvc add" in str(caught.value)


def test_without_origin_or_remote_it_says_what_to_add(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bare = make_tiny(tmp_path / "bare", origin=False, store=False)
    monkeypatch.chdir(bare.path)
    with pytest.raises(UserError, match="git remote add origin ADDRESS"):
        find_origin(bare.path)
    with pytest.raises(UserError, match="dvc remote add --default NAME ADDRESS"):
        check_remote(bare.path)


def test_upstream_must_be_up_to_date(tiny: Project, repo: Any) -> None:
    with pytest.raises(UserError, match="nobody knows yet what counted"):
        read_inputs(repo, "double")


def test_one_state_has_one_key(tiny: Project) -> None:
    def key(stage: str = "count", pool: str = "gpu", sender: str = "me") -> str:
        with open_repo() as repo:
            inputs = read_inputs(repo, stage)
            return name_run(inputs, commit_of(repo), find_origin(tiny.path), pool, sender)

    first = key()
    # What is no input of the stage is none of its key.
    tiny.edit("dvc.yaml", "cat counted.txt counted.txt", "cat counted.txt")
    assert key() == first
    assert len({first, key(pool="other"), key(sender="you")}) == 3
    (tiny.path / "source.txt").write_text("two\n")
    assert key() != first


def test_a_clone_has_a_name_that_no_other_has(tiny: Project, tmp_path: Path) -> None:
    other = tmp_path / "other"
    # A scheduled run's, which is gone when it ends: the next one has to find what it has sent.
    scheduled = tiny.path / WORKSPACES / "nightly"
    for path in (other, scheduled):
        tiny.run("git", "clone", "--quiet", ".", str(path))
    names = [name_clone(path) for path in (tiny.path, other, scheduled, tiny.path)]
    assert names == [names[0], names[1], names[0], names[0]]
    assert names[0] != names[1]


def test_files_that_git_was_told_not_to_look_at_travel_as_they_are(tiny: Project) -> None:
    for name, option in (("source.txt", "--skip-worktree"), ("count.sh", "--assume-unchanged")):
        tiny.run("git", "update-index", option, name)
        with (tiny.path / name).open("a") as file:
            file.write("# edited\n")
    before = snapshot(tiny.path)
    with open_repo() as repo:
        commit = commit_of(repo)
    assert git(tiny.path, "show", f"{commit}:source.txt") == "one\n# edited"
    assert git(tiny.path, "show", f"{commit}:count.sh").endswith("# edited")
    assert snapshot(tiny.path) == before


def test_a_folder_around_an_output_is_not_here_for_a_tracked_file(tiny: Project) -> None:
    tiny.edit("dvc.yaml", "outs: [counted.txt]", "outs: [out/counted.txt]")
    tiny.edit("dvc.yaml", "deps: [counted.txt]", "deps: [out]")
    tiny.edit("count.sh", "cp source.txt counted.txt", "cp source.txt out/counted.txt")
    (tiny.path / "out").mkdir()
    (tiny.path / "out/readme.txt").write_text("git has it\n")
    with open_repo() as repo:
        assert missing_inputs(repo, "double") == ["out/counted.txt"]
        (tiny.path / "out/counted.txt").write_text("1\n")
        assert missing_inputs(repo, "double") == []


def test_outputs_of_a_stage_that_dvc_keeps_no_record_of_are_pushed(tiny: Project) -> None:
    tiny.edit("dvc.yaml", "    deps: [source", "    always_changed: true\n    deps: [source")
    tiny.repro("--single-item", "count")
    with open_repo() as repo:
        push_outputs(repo, "count")
    assert any(path.is_file() for path in (tiny.path.parent / "store").rglob("*"))


def sent_back(project: Project, other: Project, stage: str) -> str:
    """The result of `stage` from a second clone, at origin; its commit."""
    with open_repo() as repo:
        commit = commit_of(repo, stage)
        push_inputs(repo, read_inputs(repo, stage).cached)
    push_ref(project.path, commit, ref_of(KEY, "state"))
    other.run("git", "fetch", "--quiet", "origin", ref_of(KEY, "state"))
    other.run("git", "checkout", "--quiet", "--detach", commit)
    return commit


def test_a_result_comes_back_whole_or_not_at_all(
    tiny: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Project(tmp_path / "other")
    files = "deps: [source.txt, count.sh]"
    tiny.edit("dvc.yaml", files, f"{files}\n    params: [factor, deep]")
    params = tiny.path / "params.yaml"
    params.write_text("factor: 1e-3\ndeep: {list: [1, 2.5, null]}\n")
    tiny.commit("parameters")
    Project(tmp_path).run("git", "clone", "--quiet", "origin.git", "other")
    commit = sent_back(tiny, other, "count")
    other.repro("--single-item", "count")
    monkeypatch.chdir(other.path)
    with open_repo() as repo:
        result = commit_result(repo, "count", commit)
    push_ref(other.path, result, ref_of(KEY, RESULT))
    monkeypatch.chdir(tiny.path)
    assert find_refs(tiny.path, KEY) == {"state": commit, "result": result}
    assert fetch_ref(tiny.path, ref_of(KEY, RESULT)) == result
    (tiny.path / "counted.txt").write_text("of another run\n")
    with open_repo() as repo:
        inputs = read_inputs(repo, "count")
        # Of a lock that is empty, and of other inputs.
        with pytest.raises(UserError, match="has no entry of 'count'"):
            take_result(repo, inputs, commit, KEY)
        (tiny.path / "source.txt").write_text("another\n")
    with open_repo() as repo:
        with pytest.raises(UserError, match=r"other content than was sent: source\.txt"):
            take_result(repo, read_inputs(repo, "count"), result, KEY)
        assert not (tiny.path / "dvc.lock").exists()
        assert (tiny.path / "counted.txt").read_text() == "of another run\n"
    (tiny.path / "source.txt").write_text("one\n")
    sent = params.read_text()
    params.write_text(sent.replace("2.5", "3"))
    with open_repo() as repo:
        with pytest.raises(UserError, match=r"than was sent: params\.yaml:deep\n"):
            take_result(repo, read_inputs(repo, "count"), result, KEY)
        params.write_text(sent)
    with open_repo() as repo:
        take_result(repo, read_inputs(repo, "count"), result, KEY)
    assert (tiny.path / "dvc.lock").read_bytes() == (other.path / "dvc.lock").read_bytes()
    assert (tiny.path / "metrics.json").read_bytes() == (other.path / "metrics.json").read_bytes()
    assert not (tiny.path / "counted.txt").exists()
    assert {plan.name: plan.state for plan in make_plan()} == {"count": "fresh", "double": "stale"}
    assert "counted.txt" in (tiny.path / ".gitignore").read_text()
    # Where the record of that is lost, it would run again, as in any clone without its outputs.
    (tiny.path / ".reprise/elsewhere/count.json").unlink()
    assert make_plan()[0].state == "stale"
    assert remove_refs(tiny.path, KEY)
    assert find_refs(tiny.path, KEY) == {}
    refs = git(tiny.path, "for-each-ref", "--format=%(refname)")
    assert "refs/reprise" not in refs


def test_a_wrong_pool_is_an_error_that_names_the_others(tiny: Project, prefect_server: str) -> None:
    from pipeline.server.prefect_api import request

    pool = f"pool-{uuid.uuid4().hex[:8]}"
    request(prefect_server, "/work_pools/", {"name": pool, "type": "process"})
    command = [sys.executable, "-m", "pipeline.elsewhere.send", "count", pool.replace("-", "_")]
    done = tiny.run(*command, ok=False, env={"PREFECT_API_URL": prefect_server})
    assert f"Prefect has no work pool '{pool.replace('-', '_')}'" in done.stdout
    assert f"did you mean '{pool}'?" in done.stdout
    assert "prefect work-pool create" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr
    assert branches(tiny.path.parent / "origin.git").keys() == {"main"}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PREFECT_LOGGING_LEVEL", "WARNING"),
        pytest.param("PREFECT_LOGGING_TO_API_ENABLED", "false", marks=pytest.mark.soak),
    ],
)
def test_a_worker_that_nobody_could_follow_is_refused(
    tiny: Project, prefect_server: str, name: str, value: str
) -> None:
    code = f"""\
from pipeline.elsewhere.flow import elsewhere
print(elsewhere('count', '{KEY}', False, 60.0, return_state=True))
"""
    environment = {"PREFECT_API_URL": prefect_server, name: value}
    done = tiny.run(sys.executable, "-c", code, env=environment)
    assert done.stdout.startswith("Failed(")
    assert name in done.stdout
    assert "nobody could follow the run" in done.stdout


def test_the_pool_is_that_of_the_variable_or_of_meta(monkeypatch: pytest.MonkeyPatch) -> None:
    meta = {"work_pool": "gpu"}
    assert find_work_pool("train", {}) is None
    assert find_work_pool("train", meta) == "gpu"
    monkeypatch.setenv("REPRISE_WORK_POOL_train", "big")
    assert find_work_pool("train", meta) == "big"
    monkeypatch.setenv("REPRISE_WORK_POOL_train", "")
    assert find_work_pool("train", meta) is None
    monkeypatch.setenv("REPRISE_WORK_POOL_fit_a", "gpu")
    assert find_work_pool("fit@a", {}) == "gpu"
    monkeypatch.setenv("REPRISE_WORK_POOL_train", "no/pool")
    with pytest.raises(UserError, match="must be the name of a Prefect work pool"):
        find_work_pool("train", {})
    monkeypatch.setenv("REPRISE_WORK_POOL_trian", "gpu")
    with pytest.raises(UserError, match="did you mean 'train'") as caught:
        check_variables(["train", "fit@a"])
    assert "REPRISE_WORK_POOL_trian is set, and there is no stage 'trian'" in str(caught.value)
