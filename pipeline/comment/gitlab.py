"""The part of GitLab's API that a note on a merge request needs.

A job on the default branch, where protected variables are, looks through the open merge requests.
A pipeline of a fork belongs to the fork's project; its artifact is read there.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from pipeline.comment.comment import GOOD_END, MARKER, Found, Source, compose, put_comment
from pipeline.comment.rest import Api, RefusedError, ask, download, pages
from pipeline.comment.sanitise import one_line
from stages.common.errors import UserError

JOB = "reprise"
REPORT_PATH = "report/report.md"
MAX_REPORT_BYTES = 1_000_000
# GitLab's word for a pipeline's end, and the one used here.
ENDS = {"success": GOOD_END, "failed": "failure"}


def post(api: Api, project: int) -> Iterator[str]:
    """Bring the note of each open merge request up to date; what was done, a line for each.

    The token's own account is the author. Raises what `ask` raises, and UserError at the end when
    a merge request could not be written to.
    """
    refused = []
    author = str(ask(api, "GET", "/user")["username"])
    for listed in pages(api, f"/projects/{project}/merge_requests", state="opened"):
        number = int(listed["iid"])
        # Only this answer names the pipeline of the head.
        request = ask(api, "GET", f"/projects/{project}/merge_requests/{number}")
        pipeline = request.get("head_pipeline")
        if pipeline is None or pipeline["status"] not in ENDS:
            yield f"!{number}: no pipeline of its head has ended"
            continue
        try:
            yield f"!{number}: {_post_one(api, project, request, pipeline, author)}"
        except RefusedError as error:
            # Of one whose discussion is locked the others know nothing.
            refused.append(f"!{number}: it says {one_line(error)}")
    if refused:
        raise UserError(
            "\n  ".join(["these could not be written to (scope api, role Reporter?):", *refused])
        )


def _post_one(
    api: Api, project: int, request: Mapping[str, Any], pipeline: Mapping[str, Any], author: str
) -> str:
    is_fork = int(request["source_project_id"] or 0) != project
    found, failed = _fetch(api, pipeline)
    source = Source(pipeline["web_url"], request["sha"], ENDS[pipeline["status"]], failed, is_fork)
    notes = f"/projects/{project}/merge_requests/{request['iid']}/notes"

    def write(method: str, path: str, body: str) -> str:
        return f"note {ask(api, method, path, {'body': body})['id']}"

    def find() -> tuple[int, str] | None:
        for note in pages(api, notes):
            if note["author"]["username"] == author and note["body"].startswith(MARKER):
                return int(note["id"]), note["body"]
        return None

    return put_comment(
        find,
        lambda body: write("POST", notes, body),
        lambda known, body: write("PUT", f"{notes}/{known}", body),
        compose(found, source),
    )


def _fetch(api: Api, pipeline: Mapping[str, Any]) -> tuple[Found, list[str]]:
    """The report of a pipeline, and the names of its jobs that failed."""
    project = int(pipeline["project_id"])
    try:
        jobs = list(pages(api, f"/projects/{project}/pipelines/{int(pipeline['id'])}/jobs"))
        failed = [str(job["name"]) for job in jobs if job["status"] == "failed"]
        reports = [job for job in jobs if job["name"] == JOB and job.get("artifacts_file")]
        if not reports:
            return Found(None, "The pipeline left no report."), failed
        job = max(reports, key=lambda each: int(each["id"]))
        path = f"/projects/{project}/jobs/{int(job['id'])}/artifacts/{REPORT_PATH}"
        text = download(api, path, MAX_REPORT_BYTES).decode("utf-8", errors="replace")
        return Found(text, url=f"{job['web_url']}/artifacts/browse"), failed
    except RefusedError as error:
        if error.status == 401:
            raise
        # A private fork, or an artifact that has expired.
        return Found(None, f"The report can't be read: {one_line(error)}."), []
