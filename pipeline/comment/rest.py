"""JSON over HTTP with a token, by the standard library alone: a trusted CI job installs nothing.

A request is tried again after a 5xx answer or a broken line, and waits when the server says so,
both within bounds. The token goes to the one server that it is for: a redirect does not carry it.
"""

import json
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from email.message import Message
from http.client import HTTPException
from typing import Any

from stages.common.errors import UserError

TIMEOUT_SECONDS = 30.0
NUM_TRIES = 4
# Of all the pauses of one request that a server asks for; a CI job should not idle for longer.
MAX_WAIT_SECONDS = 300.0
NUM_PER_PAGE = 100
MAX_PAGES = 50
MAX_ANSWER_BYTES = 20_000_000


class RefusedError(Exception):
    """The server's answer to a request that it would not do: its status and its own words.

    `needs` is the permission that it names, if it does.
    """

    def __init__(self, status: int, said: str, needs: str | None = None) -> None:
        self.status, self.said, self.needs = status, said, needs
        super().__init__(f"{status} {said}")


class NoAnswerError(Exception):
    """No whole answer came, so the request may have been done or not."""


@dataclass(frozen=True)
class Api:
    """A server's API: its address without a slash at the end, and what each request carries."""

    url: str
    headers: Mapping[str, str] = field(repr=False)
    pause_seconds: float = 1.0


def ask(api: Api, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
    """The JSON that the server answers to a request.

    A POST is not repeated when no answer came: it makes a second thing.

    Raises RefusedError for an answer of 4xx, NoAnswerError when there was none, UserError for a
    rate limit that asks for more patience than there is.
    """
    data = None if body is None else json.dumps(body).encode()
    answer = _send(api, method, f"{api.url}{path}", data, MAX_ANSWER_BYTES)
    try:
        return json.loads(answer or b"null")
    except ValueError:
        raise RefusedError(200, f"what {path} answered is not JSON") from None


def pages(api: Api, path: str, key: str | None = None, **query: str) -> Iterator[Any]:
    """The entries of a list that comes in pages; `key` names the list where it is in an object.

    Raises what `ask` raises, UserError when it has no end within `MAX_PAGES`.
    """
    for page in range(1, MAX_PAGES + 1):
        asked = urllib.parse.urlencode({**query, "per_page": NUM_PER_PAGE, "page": page})
        answer = ask(api, "GET", f"{path}?{asked}")
        entries = answer if key is None else answer[key]
        yield from entries
        if len(entries) < NUM_PER_PAGE:
            return
    raise UserError(f"{path} has more than {MAX_PAGES * NUM_PER_PAGE:,} entries")


def download(api: Api, path: str, limit_bytes: int) -> bytes:
    """The bytes that stand at a path, or at the address that it redirects to.

    Raises what `ask` raises, and RefusedError when there are more than `limit_bytes`.
    """
    return _send(api, "GET", f"{api.url}{path}", None, limit_bytes)


def _send(api: Api, method: str, url: str, data: bytes | None, limit_bytes: int) -> bytes:
    if not url.startswith(("https://", "http://")):
        raise UserError(f"the API's address must begin with https://: {api.url}")
    waited = 0.0
    for attempt in range(NUM_TRIES):
        last = attempt == NUM_TRIES - 1
        try:
            return _send_once(api, method, url, data, limit_bytes)
        except urllib.error.HTTPError as error:
            refused = _refused(error)
            asked_seconds = _asked_to_wait(error.code, error.headers)
            if asked_seconds is not None:
                waited += asked_seconds
                if last or waited > MAX_WAIT_SECONDS:
                    raise UserError(
                        f"rate limit: the server asks to wait {asked_seconds:.0f} s "
                        f"({refused.said})\n  run this job again later"
                    ) from None
                time.sleep(asked_seconds)
                continue
            if error.code < 500:
                raise refused from None
            problem = str(refused)
        except (OSError, HTTPException) as error:
            problem = str(getattr(error, "reason", None) or error or type(error).__name__)
        if last or method == "POST":
            raise NoAnswerError(problem)
        time.sleep(api.pause_seconds * 2**attempt)
    raise AssertionError


def _send_once(api: Api, method: str, url: str, data: bytes | None, limit_bytes: int) -> bytes:
    request = urllib.request.Request(url, data, method=method)  # noqa: S310
    if data is not None:
        request.add_header("Content-Type", "application/json")
    request.add_header("User-Agent", "reprise")
    for name, value in api.headers.items():
        # Files stand on another host, which must not see the token.
        request.add_unredirected_header(name, value)
    with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as answer:  # noqa: S310
        content: bytes = answer.read(limit_bytes + 1)
    if len(content) > limit_bytes:
        raise RefusedError(200, f"the answer is larger than {limit_bytes:,} bytes")
    return content


def _refused(error: urllib.error.HTTPError) -> RefusedError:
    try:
        said = json.loads(error.read(10_000))
        text = str(said.get("message") or said.get("error") or error.reason)
    except (OSError, ValueError, AttributeError, HTTPException):
        text = str(error.reason)
    # GitHub names what would have been enough.
    return RefusedError(error.code, text, error.headers.get("X-Accepted-GitHub-Permissions"))


def _asked_to_wait(status: int, headers: Message) -> float | None:
    """The seconds that a server asks for before the next request, None if it does not."""
    if status not in (403, 429):
        return None
    after, reset = headers.get("Retry-After", ""), headers.get("X-RateLimit-Reset", "")
    if after.isdecimal():
        return float(after)
    if headers.get("X-RateLimit-Remaining") == "0" and reset.isdecimal():
        return max(float(reset) - time.time(), 0.0) + 1.0
    return 60.0 if status == 429 else None
