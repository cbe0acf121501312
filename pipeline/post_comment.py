"""Post the report on a pull request as its one comment, or bring that comment up to date.

    python3 -m pipeline.post_comment github --run 123456789

Runs in a job that may write comments, on the default branch's code, and installs nothing. The
report comes from the pull request's run as data. The repository (`GITHUB_REPOSITORY`), the API's
address (`GITHUB_API_URL`) and the token (`GITHUB_TOKEN`) come from the environment.
"""

import argparse
import os
import sys
import time
from collections.abc import Callable, Sequence

from pipeline import github
from pipeline.comment_text import MAX_COMMENT_BYTES, cut, make_safe, one_line
from pipeline.rest import Api, NoAnswerError, RefusedError
from stages.common.errors import UserError

MARKER = "<!-- reprise report -->"
# Whom a workflow's own token belongs to.
ACTIONS = "github-actions[bot]"
PULL_REQUEST = "pull_request"
# Ends of a run after which there is nothing to tell: another takes its place, or it never began.
NO_ENDS = ("cancelled", "skipped", "stale", "action_required")
NUM_TRIES = 3
HELP = {
    401: "the token is not valid: {setting} must be the job's own, or one that has not expired",
    403: "the token may not do this: it needs {needs}",
    404: "not found, or the token may not see it: it needs {needs}",
    410: "it is gone",
    422: "the server takes the comment for invalid",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Post the comment that the arguments ask for; the exit code."""
    parser = argparse.ArgumentParser(prog="pipeline.post_comment", description=__doc__)
    hosts = parser.add_subparsers(dest="host", required=True)
    asked = hosts.add_parser("github", help="on GitHub, from a run of the workflow")
    asked.add_argument("--run", type=int, required=True, help="the number of the workflow's run")
    asked.add_argument("--author", default=ACTIONS, help="whose token it is (default: %(default)s)")
    chosen = parser.parse_args(arguments)
    try:
        print(post_to_github(chosen.run, chosen.author))
    except RefusedError as error:
        help_text = HELP.get(error.status, "the server refuses")
        needs = error.needs or "actions: read and pull-requests: write"
        help_text = help_text.format(setting="GITHUB_TOKEN", needs=one_line(needs))
        print(f"{help_text}\n  it says {error.status}: {one_line(error.said)}", file=sys.stderr)
        return 1
    except NoAnswerError as error:
        print(f"the server can't be reached: {one_line(error)}", file=sys.stderr)
        return 1
    except UserError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def post_to_github(run_id: int, author: str) -> str:
    """Post what a run of the workflow found on its pull request; what was done, as a line.

    Raises UserError, RefusedError, NoAnswerError.
    """
    repository = _setting("GITHUB_REPOSITORY")
    api = Api(
        os.environ.get("GITHUB_API_URL", "https://api.github.com").rstrip("/"),
        {
            "Authorization": f"Bearer {_setting('GITHUB_TOKEN')}",
            "Accept": "application/vnd.github+json",
            "X-GitHub-Api-Version": "2022-11-28",
        },
    )
    run = github.read_run(api, repository, run_id)
    if run.event != PULL_REQUEST or run.conclusion in NO_ENDS:
        return f"nothing to post: a run of {one_line(run.event)} that ended as {run.conclusion}"
    number = github.find_pull_request(api, repository, run)
    if number is None:
        return (
            f"nothing to post: no open pull request has {run.head_sha[:10]} as its head "
            "(it is closed, or its branch has moved on)"
        )
    body = compose(
        github.fetch_report(api, repository, run),
        run,
        github.find_failed_steps(api, repository, run) if run.conclusion != "success" else [],
        is_fork=run.head_repository != repository,
    )
    return put_comment(
        lambda: github.find_comment(api, repository, number, author, MARKER),
        lambda: github.create_comment(api, repository, number, body),
        lambda comment: github.update_comment(api, repository, comment, body),
        body,
    )


def compose(
    found: github.Found, run: github.Run, failed_steps: Sequence[str], *, is_fork: bool
) -> str:
    """The comment: what the run's end was, if not good; the report, made safe; where it is from."""
    head = [MARKER]
    if run.conclusion != "success":
        steps = ", ".join(make_safe(name) for name in failed_steps[:10])
        where = f" at: {steps}" if steps else ""
        head.append(f"**The run ended as {one_line(run.conclusion)}**{where} ([log]({run.url})).")
    whose = "the fork's own code" if is_fork else "this branch's code"
    foot = ["---", f"Made by {whose} at {run.head_sha[:10]} in [this run]({run.url})"]
    if found.url is not None:
        foot[-1] += f"; the page with curves, `report.html`, is in [its artifact]({found.url})"
    foot[-1] += "."
    if found.text is None:
        return "\n\n".join([*head, found.why_not or "", *foot])
    text = make_safe(found.text)
    note = f"*The report goes on: all of it is in [the artifact]({found.url}).*"
    room = MAX_COMMENT_BYTES - len("\n\n".join([*head, note, *foot]).encode()) - 4
    shown = cut(text, room)
    parts = [*head, shown, *foot] if shown == text else [*head, shown, note, *foot]
    return "\n\n".join(part for part in parts if part)


def put_comment(
    find: Callable[[], tuple[int, str] | None],
    create: Callable[[], str],
    update: Callable[[int], str],
    body: str,
) -> str:
    """Make the one comment hold `body`; what was done, as a line.

    When no answer to the creation came it looks again first, so that there are never two. Raises
    NoAnswerError when that goes on, and what the three raise.
    """
    for attempt in range(NUM_TRIES):
        found = find()
        if found is not None:
            comment, before = found
            return "unchanged" if before == body else f"updated {update(comment)}"
        try:
            return f"created {create()}"
        except NoAnswerError:
            if attempt == NUM_TRIES - 1:
                raise
            time.sleep(2.0**attempt)
    raise AssertionError


def _setting(name: str) -> str:
    value = os.environ.get(name, "").strip()
    if not value:
        raise UserError(f"{name} is not set: it comes from the job's environment")
    return value


if __name__ == "__main__":
    sys.exit(main())
