"""Post the report on a pull request as its one comment, or bring that comment up to date.

    python3 -m pipeline.comment.post github --run 123456789
    python3 -m pipeline.comment.post gitlab

Runs in a job that may write comments, on the default branch's code, and installs nothing. The
report is data from the pull request's own run. The token and where the API is come from the
environment: `GITHUB_TOKEN`, `GITHUB_REPOSITORY`, `GITHUB_API_URL`; for GitLab
`REPRISE_GITLAB_TOKEN`, `CI_PROJECT_ID`, `CI_API_V4_URL`.
"""

import argparse
import os
import sys
from collections.abc import Iterator, Sequence

from pipeline.comment import github, gitlab
from pipeline.comment.rest import Api, NoAnswerError, RefusedError
from pipeline.comment.sanitise import one_line
from stages.common.errors import UserError

TOKENS = {"github": "GITHUB_TOKEN", "gitlab": "REPRISE_GITLAB_TOKEN"}
NEEDS = {
    "github": "actions: read and pull-requests: write",
    "gitlab": "the scope api and the role Reporter",
}
# Whom a workflow's own token belongs to.
ACTIONS = "github-actions[bot]"
HELP = {
    401: "the token is not valid: {setting} is wrong or has expired",
    403: "the token may not do this: it needs {needs}",
    404: "not found, or the token may not see it: it needs {needs}",
    410: "it is gone",
    422: "the server takes the comment for invalid",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Post what the arguments ask for; the exit code."""
    parser = argparse.ArgumentParser(prog="python3 -m pipeline.comment.post")
    hosts = parser.add_subparsers(dest="host", required=True)
    asked = hosts.add_parser("github", help="on the pull request of a workflow's run")
    asked.add_argument("--run", type=int, required=True, help="the number of the run")
    asked.add_argument("--author", default=ACTIONS, help="whose token it is (default: %(default)s)")
    hosts.add_parser("gitlab", help="on every open merge request whose pipeline has ended")
    chosen = parser.parse_args(arguments)
    try:
        for line in _post(chosen):
            print(line)
    except RefusedError as error:
        needs = one_line(error.needs or NEEDS[chosen.host])
        meant = HELP.get(error.status, "the server refuses")
        problem = meant.format(setting=TOKENS[chosen.host], needs=needs)
        problem += f"\n  it says {error.status}: {one_line(error.said)}"
    except NoAnswerError as error:
        problem = f"the server can't be reached: {one_line(error)}"
    except UserError as error:
        problem = str(error)
    else:
        return 0
    print(problem, file=sys.stderr)
    return 1


def _post(chosen: argparse.Namespace) -> Iterator[str]:
    token = _setting(TOKENS[chosen.host])
    if chosen.host == "gitlab":
        api = Api(_setting("CI_API_V4_URL").rstrip("/"), {"PRIVATE-TOKEN": token})
        yield from gitlab.post(api, int(_setting("CI_PROJECT_ID")))
        return
    headers = {
        "Authorization": f"Bearer {token}",
        "Accept": "application/vnd.github+json",
        "X-GitHub-Api-Version": "2022-11-28",
    }
    api = Api(_setting("GITHUB_API_URL").rstrip("/"), headers)
    yield github.post(api, _setting("GITHUB_REPOSITORY"), chosen.run, chosen.author)


def _setting(name: str) -> str:
    value = os.environ.get(name, "").strip()
    if not value:
        raise UserError(f"{name} is not set: it comes from the job's environment")
    if not (value.isascii() and value.isprintable()):
        # Python would say which, and with it a token.
        raise UserError(f"{name} has a character in it that no header or address may have")
    return value


if __name__ == "__main__":
    sys.exit(main())
