"""What every request passes first: the token, the count, and how errors are told."""

import asyncio
import base64
import binascii
import hmac
import json
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import orjson
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pipeline.serve.problems import Answer, RequestError
from pipeline.serve.service import Service

# More than these at once are turned away: each may hold a body.
MAX_REQUESTS = 1024
OPEN = ("/v2/health/live", "/v2/health/ready")
CLOSE = {"Connection": "close"}
Handler = Callable[[Scope, Receive], Awaitable[Answer]]


def guarded(app: ASGIApp, service: Service, find: Callable[[str], Handler | None]) -> ASGIApp:
    """`app` behind the token, counted and timed; what breaks is told in JSON.

    A path for which `find` has a handler is answered by that, and never comes to `app`.
    """
    num_requests = 0

    async def guard(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal num_requests
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        start, status, path = time.perf_counter(), 500, scope["path"]

        async def note(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        num_requests += 1
        try:
            check_token(scope, service.settings.token)
            handler = find(path)
            if handler is None:
                await app(scope, receive, note)
                return
            if num_requests > MAX_REQUESTS:
                raise RequestError(503, "too many requests at once", headers={"Retry-After": "1"})
            answer = await _within(service.settings.timeout_seconds, handler, scope, receive)
            status = answer.status
            await answer.send(send)
        except RequestError as error:
            await error.answer().send(note)
        finally:
            num_requests -= 1
            service.metrics.answered(path, status, time.perf_counter() - start)

    return guard


async def _within(seconds: float, handler: Handler, scope: Scope, receive: Receive) -> Answer:
    """The handler's answer, or an error after `seconds`, and when it breaks."""
    if scope["method"] != "POST":
        raise RequestError(405, f"{scope['path']} takes POST", headers={"Allow": "POST"})
    try:
        async with asyncio.timeout(seconds):
            return await handler(scope, receive)
    except TimeoutError:
        raise RequestError(504, f"no answer within {seconds:g} s", headers=CLOSE) from None
    except RequestError:
        raise
    except Exception as error:
        logging.getLogger(__name__).exception("%s", scope["path"])
        raise RequestError(500, f"the server failed: {type(error).__name__}") from None


def check_token(scope: Scope, token: str | None) -> None:
    """Raise RequestError 401 unless the request has the token, or needs none.

    As `Authorization: Bearer TOKEN`, or as the password of any user, which is what a browser asks
    for.
    """
    if token is None or scope["path"] in OPEN:
        return
    kind, _, given = _header(scope, b"authorization").partition(b" ")
    if kind.lower() == b"basic":
        try:
            given = base64.b64decode(given, validate=True).partition(b":")[2]
        except binascii.Error:
            given = b""
    elif kind.lower() != b"bearer":
        given = b""
    if not hmac.compare_digest(given.strip(), token.encode()):
        headers = {"WWW-Authenticate": 'Bearer, Basic realm="reprise"'}
        raise RequestError(401, "this server asks for its token", headers=headers)


def _header(scope: Scope, name: bytes) -> bytes:
    headers: list[tuple[bytes, bytes]] = scope["headers"]
    return next((value for key, value in headers if key == name), b"")


def _number(scope: Scope, name: bytes) -> int | None:
    """A header's whole number; None where it is none, or longer than any that is meant."""
    text = _header(scope, name)
    return int(text) if text.isdigit() and len(text) < 19 else None


async def read_body(scope: Scope, receive: Receive, max_bytes: int) -> bytes:
    """The request's body. Raises RequestError 413 as soon as it is known to be too long."""
    if (_number(scope, b"content-length") or 0) > max_bytes:
        raise _too_long(max_bytes)
    if _header(scope, b"content-encoding") not in (b"", b"identity"):
        raise RequestError(415, "a compressed body is not understood", headers=CLOSE)
    parts: list[bytes] = []
    num_bytes, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise RequestError(400, "the request ended within its body", headers=CLOSE)
        parts.append(message.get("body", b""))
        num_bytes += len(parts[-1])
        if num_bytes > max_bytes:
            raise _too_long(max_bytes)
        more = message.get("more_body", False)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def split_body(scope: Scope, body: bytes) -> tuple[bytes, bytes]:
    """The JSON of a body and the bytes that the binary extension has after it."""
    if not _header(scope, b"inference-header-content-length"):
        return body, b""
    length = _number(scope, b"inference-header-content-length")
    if length is None or length > len(body):
        raise RequestError(400, "Inference-Header-Content-Length is not the length of the JSON")
    return body[:length], body[length:]


def parse_json(body: bytes) -> Any:
    """The value in a body; Python's NaN and Infinity are understood too, as Triton's client is.

    Raises RequestError 400 when it is no JSON, or nested deeper than anything here is.
    """
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        if b"NaN" in body or b"Infinity" in body:
            with suppress(ValueError, RecursionError, TypeError):
                found = json.loads(body)
                # As strict as before in all else: no half characters, no endless numbers.
                orjson.dumps(found)
                return found
        raise RequestError(400, f"the body is no JSON: {str(error)[:200]}") from None


def _too_long(max_bytes: int) -> RequestError:
    return RequestError(413, f"the body is longer than {max_bytes} bytes", headers=CLOSE)
