"""The checks that every request passes first: the token, the count, and how errors are told."""

import asyncio
import base64
import binascii
import hmac
import logging
import time
from collections.abc import Awaitable, Callable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pipeline.serve.codec.problems import NO_SNIFF, Answer, RequestError
from pipeline.serve.http.body import CLOSE, find_header
from pipeline.serve.http.hosts import check_site, make_host_check
from pipeline.serve.service import Service

# More than these at once are turned away: each may hold a body.
MAX_REQUESTS = 1024
OPEN = ("/v2/health/live", "/v2/health/ready")
Handler = Callable[[Scope, Receive], Awaitable[Answer]]


def guarded(app: ASGIApp, service: Service, find: Callable[[str], Handler | None]) -> ASGIApp:
    """`app` behind the token, counted and timed; what breaks is told in JSON.

    A path for which `find` has a handler is answered by that, and never comes to `app`.
    """
    num_requests = 0
    check_host = make_host_check(service.settings.hosts)

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
                message["headers"] = [*message["headers"], NO_SNIFF]
            await send(message)

        num_requests += 1
        try:
            check_host(scope)
            check_token(scope, service.settings.token)
            handler = find(path)
            if handler is None:
                await app(scope, receive, note)
                return
            check_site(scope)
            if num_requests > MAX_REQUESTS:
                raise RequestError(503, "too many requests at once", headers={"Retry-After": "1"})
            answer = await _within(service.settings.timeout_seconds, handler, scope, receive)
            status = answer.status
            await answer.send(send)
        except RequestError as error:
            status = error.status
            await error.answer().send(send)
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
    kind, _, secret = find_header(scope, b"authorization").partition(b" ")
    if kind.lower() == b"basic":
        try:
            secret = base64.b64decode(secret, validate=True).partition(b":")[2]
        except binascii.Error:
            secret = b""
    elif kind.lower() != b"bearer":
        secret = b""
    if not hmac.compare_digest(secret.strip(), token.encode()):
        headers = {"WWW-Authenticate": 'Bearer, Basic realm="reprise"'}
        raise RequestError(401, "this server asks for its token", headers=headers)
