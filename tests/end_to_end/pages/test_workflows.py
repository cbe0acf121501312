"""The workflows for pull requests: what they may do, and that their steps run as they stand."""

import re
import shlex
import shutil
from pathlib import Path

import click
import pytest
from ruamel.yaml import YAML

from pipeline.cli import main
from pipeline.comment import github, gitlab
from pipeline.comment.sanitise import make_safe
from tests.conftest import ROOT, Project
from tests.support.workflow import FOLDER, Job, all_steps, read_pins, read_workflow

BUILD, COMMENT = "reprise.yml", "reprise-comment.yml"
FILES = sorted(FOLDER.glob("*.yml"))
SETUP = ("Build the environment",)
FETCH = "Fetch DVC's cache"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_actions_are_pinned_by_commit_and_say_the_version(path: Path) -> None:
    pins = read_pins(path)
    assert pins
    for action, commit, comment in pins:
        assert re.fullmatch(r"actions/[\w-]+", action), "one more party to trust"
        assert re.fullmatch(r"[0-9a-f]{40}", commit), f"{action}@{commit}"
        assert re.fullmatch(r"# v\d+\.\d+\.\d+", comment), comment


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_no_text_of_a_user_is_part_of_a_script(path: Path) -> None:
    for step in all_steps(path.name):
        assert "${{" not in step.get("run", ""), step["name"]
        if "checkout" in step.get("uses", ""):
            assert step["with"]["persist-credentials"] is False
    assert "pull_request_target" not in path.read_text(encoding="utf-8")
    for job in read_workflow(path.name)["jobs"].values():
        assert job["timeout-minutes"] <= 60


def test_what_runs_a_forks_code_can_only_read() -> None:
    workflow = read_workflow(BUILD)
    assert set(workflow["on"]) == {"pull_request", "push"}
    assert workflow["permissions"] == {"contents": "read"}
    (job,) = workflow["jobs"].values()
    assert "permissions" not in job
    assert "secrets." not in (FOLDER / BUILD).read_text(encoding="utf-8")
    assert "pull_request.number" in workflow["concurrency"]["group"]


def test_what_may_write_runs_the_default_branch_alone() -> None:
    workflow = read_workflow(COMMENT)
    assert workflow["on"] == {"workflow_run": {"workflows": ["Reprise"], "types": ["completed"]}}
    assert read_workflow(BUILD)["name"] == "Reprise"
    assert workflow["permissions"] == {}
    (job,) = workflow["jobs"].values()
    assert job["permissions"] == {
        "contents": "read",
        "actions": "read",
        "pull-requests": "write",
    }
    checkout, post = job["steps"]
    # Without a ref it is the default branch.
    assert set(checkout["with"]) == {"persist-credentials"}
    assert post["run"] == 'python3 -m pipeline.comment.post github --run "$RUN"'
    assert set(re.findall(r"\$\{\{ (.*?) \}\}", str(post["env"]))) == {
        "github.token",
        "github.event.workflow_run.id",
    }


def commands_in(text: str) -> list[list[str]]:
    """The words of each `reprise …` command in a script or a page."""
    found = re.findall(r"(?:^|[`(;&]|\bthen|\bif) *(reprise [a-z][^`\n;&|]*)", text, re.MULTILINE)
    return [shlex.split(command, comments=True)[1:] for command in found]


@pytest.mark.parametrize("path", [FOLDER / BUILD, ROOT / "docs/review.md"], ids=lambda p: p.name)
def test_every_command_and_option_is_there(path: Path) -> None:
    text = path.read_text(encoding="utf-8").replace("run: ", "run:\n")
    commands = commands_in(text)
    assert {command[0] for command in commands} >= {"check", "deps", "plan", "report", "gate"}
    for name, *words in commands:
        known = main.commands[name]
        options = {o for p in known.params if isinstance(p, click.Option) for o in p.opts}
        assert {word for word in words if word.startswith("--")} <= options, name


def test_the_page_names_steps_and_variables_as_they_are() -> None:
    page = (ROOT / "docs/review.md").read_text(encoding="utf-8")
    names = {step["name"] for step in all_steps(BUILD)}
    (table,) = re.findall(r"\| step \| what to do \|\n\|---\|---\|\n((?:\|.*\n)+)", page)
    assert {row.split(" | ")[0].removeprefix("| ") for row in table.splitlines()} <= names
    assert f"- name: {FETCH}\n" in page
    variables = set(re.findall(r"vars\.(\w+)", (FOLDER / BUILD).read_text(encoding="utf-8")))
    assert variables
    for name in variables:
        assert f"variable `{name}`" in page
    assert f"`{github.ARTIFACT}`" in page
    kept = next(step for step in all_steps(BUILD) if step["name"] == "Keep the report")
    assert kept["with"]["name"] == github.ARTIFACT
    assert f"/{github.REPORT_FILE}" in kept["with"]["path"]


def test_the_example_for_gitlab_fits_its_poster() -> None:
    page = (ROOT / "docs/review.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```yaml\n(stages:.*?)```", page, flags=re.DOTALL)
    jobs = YAML(typ="safe").load(example)
    assert all(isinstance(line, str) for line in jobs[gitlab.JOB]["script"])
    assert gitlab.REPORT_PATH in jobs[gitlab.JOB]["artifacts"]["paths"]
    assert jobs[gitlab.JOB]["artifacts"]["when"] == "always"
    assert jobs["comment"]["script"] == ["python3 -m pipeline.comment.post gitlab"]
    (rule,) = jobs["comment"]["rules"]
    assert "$CI_COMMIT_BRANCH == $CI_DEFAULT_BRANCH" in rule["if"]


def test_the_gate_is_last_and_after_the_report_was_kept() -> None:
    names = [step["name"] for step in all_steps(BUILD)]
    assert names[-3:] == ["Report", "Keep the report", "Gate"]


@pytest.fixture(scope="module")
def origin(example: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A repository with a pull request, merged as the branch `pull`, and a DVC remote beside it.

    The base has moved on since the branch began; the remote has both sides.
    """
    folder = tmp_path_factory.mktemp("origin")
    shutil.copytree(example.path, folder / "repository", symlinks=True)
    project = Project(folder / "repository")
    project.run("dvc", "remote", "add", "--quiet", "--default", "store", str(folder / "store"))
    project.commit("a remote")
    project.run("git", "switch", "--quiet", "--create", "fewer")
    project.edit("params.yaml", "  - f1_macro\n", "")
    project.repro("evaluate")
    project.commit("fewer metrics")
    project.run("dvc", "push", "--quiet")
    project.run("git", "switch", "--quiet", "main")
    (project.path / "notes.txt").write_text("another change\n")
    project.commit("moved on")
    project.run("git", "switch", "--quiet", "--create", "pull")
    project.run("git", "merge", "--quiet", "--no-ff", "--message", "merged", "fewer")
    project.run("git", "switch", "--quiet", "main")
    return project


@pytest.fixture
def checkout(origin: Project, tmp_path: Path) -> Project:
    """The pull request as GitHub checks it out: a commit, all branches, and no data."""
    project = Project(tmp_path / "checkout")
    origin.run("git", "clone", "--quiet", str(origin.path), str(project.path))
    project.run("git", "switch", "--quiet", "--detach", "origin/pull")
    return project


def run_steps(project: Project, **known: str) -> tuple[dict[str, str], Job]:
    """The build job's steps in `project`, as for a pull request into main."""
    pull = {"github.event_name": "pull_request", "github.base_ref": "main"}
    job = Job(project, {**pull, **known})
    return job.run(BUILD, SETUP), job


@pytest.mark.soak
def test_the_steps_run_in_a_clean_clone(checkout: Project) -> None:
    ends, job = run_steps(checkout)
    failed = {name: job.said[name] for name, end in ends.items() if end == "failure"}
    assert failed == {}
    assert [name for name, end in ends.items() if end == "skipped"] == ["Run what is stale"]
    text = (checkout.path / ".reprise/report/report.md").read_text()
    # Both sides were fetched, and the base is where the branch was merged.
    # Three seeds on either side, and both sides the same model.
    assert text.startswith("### This change: no metric differs by more than noise.")
    assert "Compared with before/main" in text
    assert "| `evaluate.metrics` |" in text
    assert (checkout.path / ".reprise/summary").read_text() == text
    # The comment takes nothing from an honest report.
    assert make_safe(text) == text.strip()
    assert checkout.run("git", "status", "--porcelain").stdout == ""


@pytest.mark.soak
def test_what_fails_is_told_and_the_report_is_made_all_the_same(
    origin: Project, checkout: Project
) -> None:
    # Somebody forgot to run what they changed; and the remote is not to be had.
    checkout.edit("params.yaml", "epochs: 30", "epochs: 3")
    checkout.commit("not run")
    store = origin.path.parent / "store"
    store.rename(store.with_name("elsewhere"))
    try:
        ends, job = run_steps(checkout)
    finally:
        store.with_name("elsewhere").rename(store)
    assert "::warning::" in job.said[FETCH]
    assert ends[FETCH] == "success"
    assert ends["Is params.yaml right"] == "skipped"
    assert [name for name, end in ends.items() if end == "failure"] == ["Is dvc.lock current"]
    assert "train" in job.said["Is dvc.lock current"]
    assert ends["Report"] == ends["Keep the report"] == ends["Gate"] == "success"
    text = (checkout.path / ".reprise/report/report.md").read_text()
    assert "No verdict" in text
    assert "dvc fetch" in text


def test_what_a_push_is_compared_with(checkout: Project) -> None:
    names = [step["name"] for step in all_steps(BUILD)]
    rest = tuple(name for name in names if name != "Name what to compare with")
    before = checkout.run("git", "rev-parse", "HEAD^").stdout.strip()
    for told, meant in ((before, before), ("0" * 40, "HEAD")):
        push = {"github.event_name": "push", "github.ref_name": "main"}
        ends = Job(checkout, {**push, "github.event.before": told}).run(BUILD, rest)
        assert set(ends.values()) == {"success"} | {"skipped"}
        named = checkout.run("git", "rev-parse", "before/main").stdout
        assert named == checkout.run("git", "rev-parse", meant).stdout
