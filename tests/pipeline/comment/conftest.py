"""The poster of a comment, run against a host."""

import time
from collections.abc import Callable

import pytest

from pipeline.comment import post as post_comment
from tests.pipeline.comment.hosts import TOKEN, Host, serving

Post = Callable[..., int]


@pytest.fixture
def post(monkeypatch: pytest.MonkeyPatch) -> Post:
    """Run the poster against a host; its exit code."""

    def run(host: Host, token: str = TOKEN, *, alive: bool = True) -> int:
        with serving(host):
            monkeypatch.setenv("GITHUB_API_URL", host.url)
            monkeypatch.setenv("GITHUB_REPOSITORY", host.repository)
            monkeypatch.setenv("GITHUB_TOKEN", token)
            if alive:
                return post_comment.main(["github", "--run", "41"])
        return post_comment.main(["github", "--run", "41"])

    monkeypatch.setattr(time, "sleep", lambda _: None)
    return run
