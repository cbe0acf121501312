"""The note on a merge request: one, the bot's own, of forks as well."""

import time
from typing import Any

import pytest

from pipeline.comment import post as post_comment
from pipeline.comment.comment import MARKER
from tests.pipeline.comment.hosts import SHA, TOKEN, GitLabHost, serving


def request(iid: int, source: int = 3, status: str | None = "success") -> dict[str, Any]:
    """A merge request into project 3 as the API gives it."""
    url = f"https://gitlab.example/p/-/pipelines/{iid}"
    pipeline = {"id": iid, "project_id": source, "status": status, "web_url": url}
    return {
        "iid": iid,
        "sha": SHA,
        "source_project_id": source,
        "head_pipeline": None if status is None else pipeline,
    }


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> GitLabHost:
    monkeypatch.setattr(time, "sleep", lambda _: None)
    job = {"id": 11, "name": "reprise", "status": "success", "artifacts_file": {"size": 1}}
    job["web_url"] = "https://gitlab.example/p/-/jobs/11"
    return GitLabHost(requests={7: request(7)}, jobs=[job])


def post(host: GitLabHost, monkeypatch: pytest.MonkeyPatch, token: str = TOKEN) -> int:
    with serving(host):
        monkeypatch.setenv("CI_API_V4_URL", host.url)
        monkeypatch.setenv("CI_PROJECT_ID", "3")
        monkeypatch.setenv("REPRISE_GITLAB_TOKEN", token)
        return post_comment.main(["gitlab"])


def test_each_merge_request_gets_one_note(
    host: GitLabHost, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    host.requests |= {8: request(8, source=9), 9: request(9, status="running")}
    host.requests[10] = request(10, status=None)
    theirs = {"id": 1, "body": f"{MARKER} mine", "author": {"username": "mallory"}}
    host.notes[7] = [theirs, *[{**theirs, "id": n, "body": "talk"} for n in range(2, 120)]]
    host.content = b"### Better\n\n/merge\n\n@ann"
    assert post(host, monkeypatch) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["!7: created note 619", "!8: created note 500"]
    assert lines[2:] == [f"!{n}: no pipeline of its head has ended" for n in (9, 10)]
    assert theirs["body"].endswith("mine")
    assert "this branch's code" in host.notes[7][-1]["body"]
    (note,) = host.notes[8]
    assert "the fork's own code" in note["body"]
    assert "\n/merge" not in note["body"]
    assert "@ann" not in note["body"]
    assert "/jobs/11/artifacts/browse)" in note["body"]
    assert "GET /projects/9/pipelines/8/jobs" in host.asked
    assert TOKEN not in str(host.file_headers)
    host.content = b"### Worse"
    host.jobs.append({"id": 12, "name": "test", "status": "failed"})
    host.requests[8] = request(8, source=9, status="failed")
    assert post(host, monkeypatch) == 0
    assert capsys.readouterr().out.splitlines()[1] == "!8: updated note 500"
    assert "ended as failure** at: test" in host.notes[8][0]["body"]
    assert "### Worse" in host.notes[8][0]["body"]


def test_what_can_not_be_read_is_said(host: GitLabHost, monkeypatch: pytest.MonkeyPatch) -> None:
    host.answers = [("GET", "report.md$", 404, {})]
    assert post(host, monkeypatch) == 0
    assert "The report can't be read: 404 planned." in host.notes[7][0]["body"]
    host.jobs = []
    assert post(host, monkeypatch) == 0
    assert "The pipeline left no report." in host.notes[7][0]["body"]


def test_one_that_is_locked_stops_no_other(
    host: GitLabHost, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    host.requests[8] = request(8)
    host.answers = [("POST", "/7/notes", 403, {})]
    assert post(host, monkeypatch) == 1
    assert "!7: it says 403 planned" in capsys.readouterr().err
    assert len(host.notes[8]) == 1


def test_a_wrong_token(
    host: GitLabHost, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert post(host, monkeypatch, "a-wrong-one") == 1
    error = capsys.readouterr().err
    assert "REPRISE_GITLAB_TOKEN is wrong or has expired" in error
    assert "a-wrong-one" not in error
