"""The one comment on a pull request: whose it is, what it may hold, what happens when it fails."""

import re
import subprocess
import sys
import time
from collections.abc import Callable

import pytest
from markdown_it import MarkdownIt

from pipeline.comment import post as post_comment
from pipeline.comment import rest
from pipeline.comment.archive import read_member
from pipeline.comment.comment import MARKER
from pipeline.comment.sanitise import BREAK, MAX_COMMENT_BYTES, cut, make_safe, one_line
from tests.conftest import ROOT
from tests.pipeline.comment.hosts import (
    BOT,
    SHA,
    TOKEN,
    Host,
    archive,
    comment,
    make_host,
    pull,
    serving,
)

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


def test_a_long_report_is_cut_and_says_where_the_rest_is(post: Post) -> None:
    host = make_host()
    rows = "\n".join(f"| row {n} | some ✅ text |" for n in range(6000))
    folded = (
        f"<details><summary>Rows (6000)</summary>\n\n| a | b |\n| --- | --- |\n{rows}\n\n</details>"
    )
    host.content = archive(
        report_md=f"### Better\n\n{folded}\n\n**More**\n\n| x |\n| --- |\n| 1 |\n"
    )
    assert post(host) == 0
    (text,) = host.texts()
    assert 60_000 < len(text.encode()) <= MAX_COMMENT_BYTES
    assert text.count("<details>") == text.count("</details>") == 1
    table, rest_of_it = text.split("\n\n</details>")
    assert table.endswith("| some ✅ text |")
    assert "The report is longer" in rest_of_it
    assert "/artifacts/90)" in rest_of_it
    assert "More" not in text


def test_a_cut_leaves_no_title_alone_and_nothing_open() -> None:
    text = make_safe(
        "### Better\n\n**One**\n\n| a |\n| --- |\n| 1 |\n\n"
        "<details><summary>Two</summary>\n\nlong long long\n\n</details>\n\nend"
    )
    for limit in range(len(text.encode()) + 1):
        part = cut(text, limit)
        assert len(part.encode()) <= limit
        assert part.count("<details>") == part.count("</details>")
        last = part.split("\n\n")[-1]
        assert last not in ("**One**", "<details><summary>Two</summary>")
        assert not last.startswith("| a |") or last == "| a |\n| --- |\n| 1 |"
    assert cut(text, len(text.encode())) == text


@pytest.mark.parametrize(
    "evil",
    [
        "ping @ann and @team/all",
        "ping &#64;ann or &commat;ann",
        "see #12, team/model#12, GH-12, gh-12 and !12",
        "https://evil.example HTTP://evil.example www.evil.example",
        "[log in](https://evil.example) [log in][x] [log in]: https://evil.example",
        "![x](https://evil.example/pixel.png)",
        "<img src=https://evil.example> <a href='//evil.example'>x</a> <https://evil.example>",
        f"{MARKER} <!-- hidden",
        "<details open>x <summary>y",
        "</details> x </details>",
        "/merge",
        "- > /close",
        "```mermaid\ngraph TD\n```",
        "~~~~math\nx\n~~~~",
        "$\\color{red}x$",
        "a\u202eb\u200bc\u0000d\x1b[31me\u2066f",
        "z" + "\u0336" * 50,
        "line\u2028line",
    ],
)
def test_what_a_fork_writes_stays_text(evil: str) -> None:
    safe = make_safe(f"### Title\n\n{evil}\n\n| a |\n| --- |\n| {evil} |\n\nend")
    tokens = MarkdownIt("commonmark", {"html": True}).enable("table").parse(safe)
    tokens += [child for token in tokens for child in token.children or ()]
    # What a reader's page is made of: of HTML nothing but sections that open and close.
    kinds = {token.type for token in tokens}
    assert not kinds & {"link_open", "image", "fence", "html_inline"}, safe
    html = [line for t in tokens if t.type == "html_block" for line in t.content.split("\n")]
    assert {line for line in html if "<" in line.replace(f"<{BREAK}", "")} <= {"</details>"}
    assert safe.count("<details>") == safe.count("</details>")
    # What the hosts look for in the text of the page, entities resolved.
    shown = "\n".join(token.content for token in tokens if token.type == "text")
    assert shown.startswith("Title")
    for pattern in (r"@\w", r"#\d", r"!\d", r"://", r"(?i)www\.|gh-\d", r"\$"):
        assert re.search(pattern, shown) is None, shown
    assert re.search(r"(?m)^[^\w\u200b]*/\w", shown) is None
    assert re.search("[\x00-\x09\x0b-\x1f\u202a-\u202e\u2066-\u2069\u2028]|\u0336{3}", safe) is None


def test_folded_sections_are_balanced() -> None:
    assert make_safe("</details>\n\na") == "a"
    assert make_safe("<details><summary>a @b</summary>\n\nc").endswith("\n\n</details>")
    assert f"a @{BREAK}b</summary>" in make_safe("<details><summary>a @b</summary>\n\nc")


def test_a_line_for_a_log_is_one_line() -> None:
    assert one_line("a\n::set-output x\x1b[1m") == "a ::set-output x[1m"
    assert len(one_line("x" * 1000)) == 200


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
