"""A request's headers and body: read within a limit, split, and parsed with every digit."""

import json
import math
import re
from contextlib import suppress
from typing import Any

import orjson
from starlette.types import Receive, Scope

from pipeline.serve.codec.problems import RequestError

CLOSE = {"Connection": "close"}
# Whole numbers that may be beyond 64 bits: orjson reads such a one as the nearest float64.
_LONG = re.compile(rb"(?<![\d.])(?:-\d{19}|\d{20})\d*+(?![.eE])")
_ZEROS = bytes.maketrans(b"123456789", b"000000000")
_LONG_RUN = b"0" * 19
# The first bytes of a PNG and of a JPEG.
_IMAGES = (b"\x89PNG", b"\xff\xd8\xff")


def find_header(scope: Scope, name: bytes) -> bytes:
    """The value of the first header of that name, which is in lower case; b'' without one."""
    headers: list[tuple[bytes, bytes]] = scope["headers"]
    return next((value for key, value in headers if key == name), b"")


def _number(scope: Scope, name: bytes) -> int | None:
    """A header's whole number; None where it is none, or longer than any that is meant."""
    text = find_header(scope, name)
    return int(text) if text.isdigit() and len(text) < 19 else None


async def read_body(scope: Scope, receive: Receive, max_bytes: int) -> bytes:
    """The request's body. Raises RequestError 413 as soon as it is known to be too long."""
    if (_number(scope, b"content-length") or 0) > max_bytes:
        raise _too_long(max_bytes)
    if find_header(scope, b"content-encoding") not in (b"", b"identity"):
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
    if not find_header(scope, b"inference-header-content-length"):
        return body, b""
    length = _number(scope, b"inference-header-content-length")
    if length is None or length > len(body):
        raise RequestError(400, "Inference-Header-Content-Length is not the length of the JSON")
    return body[:length], body[length:]


def parse_json(body: bytes) -> Any:
    """The value in a body; Python's NaN and Infinity are understood too, as Triton's client is.

    Whole numbers keep all their digits. Raises RequestError 400 when it is no JSON, or nested
    deeper than anything here is.
    """
    try:
        found = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        if b"NaN" in body or b"Infinity" in body:
            with suppress(ValueError, RecursionError, TypeError):
                found = json.loads(body, parse_float=_finite)
                # As strict as before in all else: no half characters.
                orjson.dumps(found)
                return found
        message = f"the body is no JSON: {str(error)[:200]}"
        if body.startswith(_IMAGES):
            message = "the body is an image, which a model of images takes in a form: "
            message += "curl -F COLUMN=@FILE"
        elif body.lstrip()[:1] not in (b"{", b"["):
            message += "; rows come as JSON, and those of a file by `reprise predict FILE`"
        raise RequestError(400, message) from None
    # To look for a row of digits so takes a hundredth of what the expression takes.
    if _LONG_RUN not in body.translate(_ZEROS) or _LONG.search(body) is None:
        return found
    try:
        return json.loads(body)
    except RecursionError:
        raise RequestError(400, "the body is no JSON: it is nested too deeply") from None


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError(f"{text} is too large")
    return number


def _too_long(max_bytes: int) -> RequestError:
    return RequestError(413, f"the body is longer than {max_bytes} bytes", headers=CLOSE)
