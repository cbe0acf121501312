"""Hosts that refuse, stumble, make wait or do not answer a comment."""

import time

import pytest

from tests.pipeline.comment.conftest import Post
from tests.pipeline.comment.hosts import archive, comment, make_host


@pytest.mark.parametrize(
    ("status", "headers", "said"),
    [
        (401, {}, "the token is not valid"),
        (403, {}, "actions: read and pull-requests: write"),
        (
            403,
            {"X-Accepted-GitHub-Permissions": "pull_requests=write"},
            "needs pull_requests=write",
        ),
        (404, {}, "not found, or the token may not see it"),
        (410, {}, "it is gone"),
        (422, {}, "takes the comment for invalid"),
    ],
)
def test_a_refusal_says_what_is_missing(
    post: Post,
    capsys: pytest.CaptureFixture[str],
    status: int,
    headers: dict[str, str],
    said: str,
) -> None:
    host = make_host()
    host.answers = [("POST", "comments", status, headers)]
    assert post(host) == 1
    error = capsys.readouterr().err
    assert said in error
    assert f"it says {status}: planned" in error
    assert host.comments == []


def test_a_wrong_token(post: Post, capsys: pytest.CaptureFixture[str]) -> None:
    host = make_host()
    assert post(host, "a-wrong-one") == 1
    error = capsys.readouterr().err
    assert "Bad credentials" in error
    assert "a-wrong-one" not in error
    assert post(host, "") == 1
    assert "GITHUB_TOKEN is not set" in capsys.readouterr().err
    assert post(host, "two\nlines") == 1
    assert capsys.readouterr().err.startswith("GITHUB_TOKEN has a character in it")


def test_a_list_without_end_is_left(post: Post, capsys: pytest.CaptureFixture[str]) -> None:
    host = make_host()
    host.comments = [comment(n, "talk", "ann") for n in range(5100)]
    assert post(host) == 1
    assert "has more than 5,000 entries" in capsys.readouterr().err
    assert len(host.comments) == 5100


def test_it_waits_as_long_as_a_rate_limit_asks(
    post: Post, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    host = make_host()
    reset = {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": str(int(time.time()) + 20)}
    host.answers = [("GET", "runs/41$", 429, {"Retry-After": "7"}), ("GET", "pulls", 403, reset)]
    assert post(host) == 0
    assert slept[0] == 7.0
    assert 15 < slept[1] <= 21
    assert len(host.texts()) == 1
    # Not for an hour.
    host.answers = [("PATCH", "", 403, {"Retry-After": "3600"})]
    host.content = archive(report_md="new")
    assert post(host) == 1
    assert "rate limit: the server asks to wait 3600 s" in capsys.readouterr().err
    assert len(slept) == 2


def test_a_server_that_stumbles_is_asked_again(
    post: Post, capsys: pytest.CaptureFixture[str]
) -> None:
    host = make_host()
    host.answers = [("GET", "runs/41$", 502, {}), ("GET", "runs/41$", 500, {})]
    assert post(host) == 0
    assert host.asked.count("GET /repos/team/model/actions/runs/41") == 3
    host.answers = [("GET", "runs/41$", 503, {})] * 4
    assert post(host) == 1
    assert "the server can't be reached: 503 planned" in capsys.readouterr().err


@pytest.mark.parametrize("status", [502, -1])
def test_a_creation_without_an_answer_never_makes_two(post: Post, status: int) -> None:
    host = make_host()
    host.answers = [("POST", "comments", status, {})]
    assert post(host) == 0
    assert len(host.texts()) == 1


def test_no_network(post: Post, capsys: pytest.CaptureFixture[str]) -> None:
    assert post(make_host(), alive=False) == 1
    assert "the server can't be reached: " in capsys.readouterr().err
