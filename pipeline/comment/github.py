"""The part of GitHub's API that a comment on a pull request needs.

The pull request is found from what GitHub itself knows of the run. A fork's run names none
(`pull_requests` is empty for it, and so are the pulls of its commit), so the open ones that come
from the run's branch are asked for, and that whose head is the run's commit is meant.

`gh`, which GitHub's runners have, does not replace this. `gh run download` unpacks all files of an
artifact onto the disk without a bound on their sum, and a fork's code has made it. `gh pr comment
--edit-last` edits the last comment of its account, which all workflows of a repository share.
`gh api` sets no time limit and repeats nothing; GitLab needs `rest.py` in any case.
"""

from dataclasses import dataclass

from pipeline.comment.archive import read_member
from pipeline.comment.comment import MARKER, Found, Source, compose, put_comment
from pipeline.comment.rest import Api, RefusedError, ask, download, pages
from pipeline.comment.sanitise import one_line
from stages.common.errors import UserError

ARTIFACT = "reprise-report"
REPORT_FILE = "report.md"
MAX_ARCHIVE_BYTES = 10_000_000
MAX_REPORT_BYTES = 1_000_000
# Ends of a run after which there is nothing to tell: another takes its place, or it never began.
NO_ENDS = ("cancelled", "skipped", "stale", "action_required")


@dataclass(frozen=True)
class Run:
    """A run of the workflow: of which event and commit, how it ended, and where it is shown."""

    id: int
    event: str
    conclusion: str
    head_repository: str | None
    head_branch: str
    head_sha: str
    url: str


def post(api: Api, repository: str, run_id: int, author: str) -> str:
    """Post what a run of the workflow found on its pull request; what was done, as a line.

    `author` is the account that the token belongs to. Raises UserError, and what `ask` raises.
    """
    run = read_run(api, repository, run_id)
    if run.event != "pull_request" or run.conclusion in NO_ENDS:
        return f"nothing to post: a run of {one_line(run.event)} that ended as {run.conclusion}"
    number = find_pull_request(api, repository, run)
    if number is None:
        return (
            f"nothing to post: no open pull request has {run.head_sha[:10]} as its head "
            "(it is closed, or its branch has moved on)"
        )
    failed = find_failed_steps(api, repository, run)
    is_fork = run.head_repository != repository
    source = Source(run.url, run.head_sha, run.conclusion, failed, is_fork)
    thread = f"/repos/{repository}/issues/{number}/comments"

    def write(method: str, path: str, body: str) -> str:
        return str(ask(api, method, path, {"body": body})["html_url"])

    return put_comment(
        lambda: find_comment(api, thread, author),
        lambda body: write("POST", thread, body),
        lambda known, body: write("PATCH", f"/repos/{repository}/issues/comments/{known}", body),
        compose(fetch_report(api, repository, run), source),
    )


def read_run(api: Api, repository: str, run_id: int) -> Run:
    """A run of the repository's workflows, as the API knows it. Raises what `ask` raises."""
    answer = ask(api, "GET", f"/repos/{repository}/actions/runs/{run_id}")
    # It is null when the fork is gone.
    head = answer.get("head_repository") or {}
    return Run(
        id=run_id,
        event=answer["event"],
        conclusion=answer["conclusion"] or "",
        head_repository=head.get("full_name"),
        head_branch=answer["head_branch"] or "",
        head_sha=answer["head_sha"],
        url=answer["html_url"],
    )


def find_pull_request(api: Api, repository: str, run: Run) -> int | None:
    """The number of the open pull request whose head is the run's commit, or None.

    None also when the branch has moved on: a newer run reports on it then. Raises UserError when
    two fit, what `ask` raises.
    """
    if run.head_repository is None:
        return None
    owner, _, _ = run.head_repository.partition("/")
    asked = {"state": "open", "head": f"{owner}:{run.head_branch}"}
    numbers = [
        int(pull["number"])
        for pull in pages(api, f"/repos/{repository}/pulls", **asked)
        if pull["head"]["sha"] == run.head_sha
        and (pull["head"]["repo"] or {}).get("full_name") == run.head_repository
    ]
    if len(numbers) > 1:
        both = ", ".join(f"#{number}" for number in numbers)
        raise UserError(
            f"{both} have the same branch as their head, and GitHub does not say whose run this is"
            "\n  close all but one, or read the report in the run's artifact"
        )
    return numbers[0] if numbers else None


def fetch_report(api: Api, repository: str, run: Run) -> Found:
    """The report that a run has left as an artifact. Raises what `ask` raises."""
    path = f"/repos/{repository}/actions/runs/{run.id}/artifacts"
    named = pages(api, path, "artifacts", name=ARTIFACT)
    kept = [each for each in named if each["name"] == ARTIFACT and not each["expired"]]
    if not kept:
        return Found(None, "The run left no report.")
    # A repeated run leaves another.
    newest = max(kept, key=lambda each: int(each["id"]))
    number, url = int(newest["id"]), f"{run.url}/artifacts/{newest['id']}"
    try:
        archive = download(
            api, f"/repos/{repository}/actions/artifacts/{number}/zip", MAX_ARCHIVE_BYTES
        )
        text = read_member(archive, REPORT_FILE, MAX_REPORT_BYTES)
    except (RefusedError, ValueError) as error:
        if isinstance(error, RefusedError) and error.status != 200:
            raise
        return Found(None, f"The report can't be shown here: {one_line(error)}.", url)
    return Found(text.decode("utf-8", errors="replace"), url=url)


def find_failed_steps(api: Api, repository: str, run: Run) -> list[str]:
    """The names of the run's steps that failed, in their order. Raises what `ask` raises."""
    jobs = pages(api, f"/repos/{repository}/actions/runs/{run.id}/jobs", "jobs")
    return [
        str(step["name"])
        for job in jobs
        for step in job.get("steps") or ()
        if step.get("conclusion") == "failure"
    ]


def find_comment(api: Api, thread: str, author: str) -> tuple[int, str] | None:
    """The id and the text of the comment that `author` wrote and marked, or None.

    Somebody else's with the same mark is left alone. Raises what `ask` raises.
    """
    for comment in pages(api, thread):
        writer = (comment.get("user") or {}).get("login")
        if writer == author and (comment.get("body") or "").startswith(MARKER):
            return int(comment["id"]), comment["body"]
    return None
