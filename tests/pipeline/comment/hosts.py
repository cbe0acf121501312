"""Servers on loopback that speak the part of GitHub's and GitLab's API that the comment needs."""

import io
import json
import re
import threading
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

TOKEN = "secret-of-the-job"
SHA = "5f0c" * 10
BOT = "github-actions[bot]"


def archive(**files: str | bytes) -> bytes:
    """A ZIP archive; `report_md` is the file `report.md`."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as opened:
        for name, content in files.items():
            opened.writestr(name.replace("_", "."), content)
    return made.getvalue()


@dataclass
class Host:
    """What the server knows, and what it was asked. `answers` are given first, then the real ones.

    An answer is a status and headers, for the next request of a method and a path's pattern; -1
    drops the line after the work was done.
    """

    url: str = ""
    files_url: str = ""
    repository: str = "team/model"
    run: dict[str, Any] = field(default_factory=dict)
    pulls: list[dict[str, Any]] = field(default_factory=list)
    artifacts: list[dict[str, Any]] = field(default_factory=list)
    content: bytes = b""
    jobs: list[dict[str, Any]] = field(default_factory=list)
    comments: list[dict[str, Any]] = field(default_factory=list)
    answers: list[tuple[str, str, int, dict[str, str]]] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    file_headers: list[dict[str, str]] = field(default_factory=list)

    def allows(self, headers: Mapping[str, str]) -> bool:
        """Whether a request has the token."""
        return headers.get("Authorization") == f"Bearer {TOKEN}"

    def answer(self, method: str, path: str, query: Mapping[str, list[str]], body: Any) -> Any:
        """What GitHub answers: JSON, or a status for a refusal."""
        base = f"/repos/{self.repository}"
        if path == f"{base}/actions/runs/41":
            return self.run
        if path == f"{base}/pulls":
            owner, branch = query["head"][0].split(":", 1)
            assert query["state"] == ["open"]
            return _page(
                [
                    each
                    for each in self.pulls
                    if each["head"]["repo"]["owner"]["login"] == owner
                    and each["head"]["ref"] == branch
                ],
                query,
            )
        if path == f"{base}/actions/runs/41/artifacts":
            return {"artifacts": _page(self.artifacts, query)}
        if path == f"{base}/actions/runs/41/jobs":
            return {"jobs": _page(self.jobs, query)}
        if path == f"{base}/issues/7/comments" and method == "GET":
            return _page(self.comments, query)
        if path == f"{base}/issues/7/comments":
            if len(body["body"]) > 65_536:
                return 422
            self.comments.append(comment(len(self.comments) + 1000, body["body"]))
            return {"html_url": f"https://github.example/c/{self.comments[-1]['id']}"}
        found = re.fullmatch(rf"{base}/issues/comments/(\d+)", path)
        if found is not None and method == "PATCH":
            (ours,) = [each for each in self.comments if each["id"] == int(found[1])]
            ours["body"] = body["body"]
            return {"html_url": f"https://github.example/c/{found[1]}"}
        return 404

    def texts(self) -> list[str]:
        """The bodies of the bot's comments."""
        return [each["body"] for each in self.comments if each["user"]["login"] == BOT]


@dataclass
class GitLabHost:
    """Project 3 with its merge requests; what is asked of it is kept as in `Host`."""

    url: str = ""
    files_url: str = ""
    requests: dict[int, dict[str, Any]] = field(default_factory=dict)
    jobs: list[dict[str, Any]] = field(default_factory=list)
    notes: dict[int, list[dict[str, Any]]] = field(default_factory=dict)
    content: bytes = b"### Better: accuracy."
    answers: list[tuple[str, str, int, dict[str, str]]] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    file_headers: list[dict[str, str]] = field(default_factory=list)

    def allows(self, headers: Mapping[str, str]) -> bool:
        """Whether a request has the token."""
        return headers.get("PRIVATE-TOKEN") == TOKEN

    def answer(self, method: str, path: str, query: Mapping[str, list[str]], body: Any) -> Any:
        """What GitLab answers: JSON, or a status for a refusal."""
        if path == "/user":
            return {"username": "project_3_bot"}
        if path == "/projects/3/merge_requests":
            assert query["state"] == ["opened"]
            return _page([{"iid": iid} for iid in self.requests], query)
        if re.fullmatch(r"/projects/\d+/pipelines/\d+/jobs", path):
            return _page(self.jobs, query)
        found = re.fullmatch(r"/projects/3/merge_requests/(\d+)(/notes)?(?:/(\d+))?", path)
        if found is None:
            return 404
        iid = int(found[1])
        if found[2] is None:
            return self.requests[iid]
        notes = self.notes.setdefault(iid, [])
        if method == "GET":
            return _page(notes, query)
        if method == "POST":
            author = {"username": "project_3_bot"}
            notes.append({"id": len(notes) + 500, "body": body["body"], "author": author})
            return notes[-1]
        (ours,) = [note for note in notes if note["id"] == int(found[3])]
        ours["body"] = body["body"]
        return ours


def make_host(repository: str = "team/model", head: str | None = None) -> Host:
    """A run of a pull request from `head`, number 7, that has left a report."""
    head = head or repository
    owner = head.split("/")[0]
    host = Host(repository=repository)
    host.run = {
        "event": "pull_request",
        "conclusion": "success",
        "head_repository": {"full_name": head, "owner": {"login": owner}},
        "head_branch": "lower/lr",
        "head_sha": SHA,
        "html_url": f"https://github.example/{repository}/actions/runs/41",
        "pull_requests": [],
    }
    host.pulls = [pull(7, head)]
    host.artifacts = [{"id": 90, "name": "reprise-report", "expired": False}]
    host.content = archive(
        report_md="### Better: accuracy.\n\n| a | b |\n| --- | --- |\n| 1 | 2 |\n"
    )
    return host


def pull(number: int, head: str, sha: str = SHA, branch: str = "lower/lr") -> dict[str, Any]:
    """An open pull request as the API lists it."""
    repository = {"full_name": head, "owner": {"login": head.split("/")[0]}}
    return {"number": number, "head": {"sha": sha, "ref": branch, "repo": repository}}


def comment(number: int, body: str, login: str = BOT) -> dict[str, Any]:
    """A comment as the API lists it."""
    return {"id": number, "body": body, "user": {"login": login}}


@contextmanager
def serving(host: Any) -> Iterator[None]:
    """The host's API and, at another address, its files; both end with the block."""
    servers = [_server(_api_handler(host)), _server(_files_handler(host))]
    host.url, host.files_url = (f"http://127.0.0.1:{each.server_port}" for each in servers)
    threads = [
        threading.Thread(target=each.serve_forever, kwargs={"poll_interval": 0.02})
        for each in servers
    ]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        for server, thread in zip(servers, threads, strict=True):
            server.shutdown()
            thread.join()
            server.server_close()


def _server(handler: type[BaseHTTPRequestHandler]) -> ThreadingHTTPServer:
    return ThreadingHTTPServer(("127.0.0.1", 0), handler)


def _page(entries: list[Any], query: Mapping[str, list[str]]) -> list[Any]:
    size, page = int(query["per_page"][0]), int(query["page"][0])
    assert size <= 100, "GitHub gives no more than 100"
    return entries[(page - 1) * size : page * size]


def _api_handler(host: Any) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            parts = urlsplit(self.path)
            length = int(self.headers.get("Content-Length", 0))
            body = json.loads(self.rfile.read(length) or b"null")
            host.asked.append(f"{self.command} {parts.path}")
            planned = next(
                (
                    each
                    for each in host.answers
                    if each[0] == self.command and re.search(each[1], parts.path)
                ),
                None,
            )
            if planned is not None:
                host.answers.remove(planned)
                if planned[2] > 0:
                    self.say({"message": "planned"}, planned[2], planned[3])
                    return
            if not host.allows(self.headers):
                self.say({"message": "Bad credentials"}, 401)
                return
            if parts.path.endswith(("/zip", "/report.md")):
                self.say(None, 302, {"Location": f"{host.files_url}/artifact.zip"})
                return
            said = host.answer(self.command, parts.path, parse_qs(parts.query), body)
            if planned is not None:
                self.close_connection = True
                return
            self.say(*(({"message": "no"}, said) if isinstance(said, int) else (said, 200)))

        do_GET = do_POST = do_PATCH = do_PUT = answer  # noqa: N815

        def say(self, said: object, status: int, headers: Mapping[str, str] | None = None) -> None:
            content = json.dumps(said).encode()
            self.send_response(status)
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    return Handler


def _files_handler(host: Any) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            host.file_headers.append({name.lower(): value for name, value in self.headers.items()})
            self.send_response(200)
            self.send_header("Content-Length", str(len(host.content)))
            self.end_headers()
            self.wfile.write(host.content)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    return Handler
