"""The one comment on a pull request: whose it is, and where it is put."""

import subprocess
import sys

import pytest

from pipeline.comment import post as post_comment
from pipeline.comment import rest
from pipeline.comment.archive import read_member
from pipeline.comment.comment import MARKER
from tests.conftest import ROOT
from tests.pipeline.comment.conftest import Post
from tests.pipeline.comment.hosts import BOT, SHA, TOKEN, archive, comment, make_host, pull


def test_it_is_created_once_and_then_updated(
    post: Post, capsys: pytest.CaptureFixture[str]
) -> None:
    host = make_host()
    assert post(host) == 0
    assert capsys.readouterr().out == "created https://github.example/c/1000\n"
    (text,) = host.texts()
    assert text.startswith("<!-- reprise report -->\n\n### Better: accuracy.\n\n| a | b |")
    assert "/actions/runs/41/artifacts/90)" in text
    assert "this branch's code" in text
    assert post(host) == 0
    assert capsys.readouterr().out == "unchanged\n"
    host.content = archive(report_md="### Worse: accuracy.")
    assert post(host) == 0
    assert capsys.readouterr().out == "updated https://github.example/c/1000\n"
    (text,) = host.texts()
    assert "Worse: accuracy" in text


def test_the_token_reaches_the_api_alone(post: Post, capsys: pytest.CaptureFixture[str]) -> None:
    host = make_host()
    assert post(host) == 0
    assert host.file_headers
    assert TOKEN not in str(host.file_headers)
    assert TOKEN not in str(capsys.readouterr())
    assert TOKEN not in repr(rest.Api("https://x", {"Authorization": TOKEN}))


def test_it_looks_through_all_pages_and_leaves_others_comments(post: Post) -> None:
    host = make_host()
    theirs = comment(1, f"{MARKER}\n\nI am the report", "mallory")
    host.comments = [theirs, *[comment(n, "talk", "ann") for n in range(2, 203)]]
    host.comments.append(comment(203, f"{MARKER}\n\nold"))
    assert post(host) == 0
    assert theirs["body"].endswith("I am the report")
    assert len(host.comments) == 203
    assert "Better: accuracy" in host.comments[-1]["body"]
    assert host.asked.count("GET /repos/team/model/issues/7/comments") == 3


def test_a_fork_is_found_by_branch_and_commit_and_said(post: Post) -> None:
    host = make_host(head="ann/model")
    host.pulls = [pull(5, "ann/other"), pull(6, "ann/model", "0" * 40), *host.pulls]
    assert post(host) == 0
    (text,) = host.texts()
    assert "the fork's own code" in text


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"pulls": []}, "no open pull request has 5f0c5f0c5f as its head"),
        ({"pulls": [pull(7, "team/model", "0" * 40)]}, "its branch has moved on"),
        ({"run": {"event": "push"}}, "a run of push"),
        ({"run": {"conclusion": "cancelled"}}, "ended as cancelled"),
        ({"run": {"head_repository": None}}, "no open pull request"),
    ],
)
def test_nothing_is_posted_where_nothing_fits(
    post: Post, capsys: pytest.CaptureFixture[str], change: dict[str, object], said: str
) -> None:
    host = make_host()
    for name, value in change.items():
        setattr(host, name, {**host.run, **value} if isinstance(value, dict) else value)
    assert post(host) == 0
    assert said in capsys.readouterr().out
    assert host.comments == []


def test_two_pull_requests_of_one_branch_get_none(
    post: Post, capsys: pytest.CaptureFixture[str]
) -> None:
    host = make_host()
    host.pulls.append(pull(8, "team/model"))
    assert post(host) == 1
    assert "#7, #8 have the same branch as their head" in capsys.readouterr().err
    assert host.comments == []


def test_a_failed_run_says_where_and_a_missing_report_too(post: Post) -> None:
    host = make_host()
    host.run["conclusion"] = "failure"
    names = {"Set up": "success", "Is dvc.lock current": "failure", "@ann <!-- ": "failure"}
    steps = [{"name": name, "conclusion": end} for name, end in names.items()]
    host.jobs = [{"steps": steps}, {"steps": None}]
    assert post(host) == 0
    assert "**The run ended as failure** at: Is dvc.lock current, @" in host.texts()[0]
    assert "@ann" not in host.texts()[0]
    host.artifacts = []
    assert post(host) == 0
    (text,) = host.texts()
    assert "The run left no report." in text
    assert "Better" not in text


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"no archive", "the archive is broken"),
        (archive(other_md="x"), "the archive has no report.md"),
        (archive(report_md=b"0" * 50_000_000), "report.md is larger than 1,000,000 bytes"),
        (archive(**{"../report_md": "x"}), "the archive has no report.md"),
        (b"0" * 10_000_001, "larger than 10,000,000 bytes"),
    ],
)
def test_a_bad_artifact_is_said_and_does_no_harm(post: Post, content: bytes, said: str) -> None:
    host = make_host()
    host.content = content
    assert post(host) == 0
    (text,) = host.texts()
    assert said in text
    assert "[its artifact]" in text


def test_an_archive_that_lies_is_refused() -> None:
    made = bytearray(archive(report_md="text " * 100))
    assert read_member(bytes(made), "report.md", 500) == b"text " * 100
    for place in range(30, len(made)):
        broken = bytes(made[:place]) + bytes([made[place] ^ 0xFF]) + bytes(made[place + 1 :])
        try:
            read_member(broken, "report.md", 500)
        except ValueError:
            continue


def test_it_runs_without_any_library() -> None:
    """In the trusted job nothing is installed: -S leaves out site-packages."""
    done = subprocess.run(
        [sys.executable, "-S", "-m", "pipeline.comment.post", "github", "--run", "1"],
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert done.stderr == "GITHUB_TOKEN is not set: it comes from the job's environment\n"


def test_names_of_the_bot_and_the_commit_are_what_the_tests_use() -> None:
    assert BOT == post_comment.ACTIONS
    assert len(SHA) == 40
