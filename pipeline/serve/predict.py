"""The two routes that predict: rows by column name, and the protocol's tensors.

They are plain ASGI, and read and write JSON themselves: in FastAPI, the way to a route and the
check of a body, value by value, would take longer than the prediction.
"""

import asyncio
import re
from collections.abc import Callable
from typing import Any, TypeVar

import orjson
from starlette.types import Receive, Scope

from pipeline.serve.bundle import Bundle
from pipeline.serve.codec.problems import Answer, RequestError
from pipeline.serve.codec.rows import Row, check_rows, decode
from pipeline.serve.http.body import find_header, parse_json, read_body, split_body
from pipeline.serve.http.guard import Handler
from pipeline.serve.http.multipart import FORM, read_form
from pipeline.serve.protocol import answer, read_request
from pipeline.serve.service import Service
from stages.common.errors import shorten

# A longer body is read in a thread: on the event loop others would wait for it.
INLINE_BYTES = 64 << 10
# Each may hold the largest image that is decoded.
MAX_DECODERS = 2
_INFER = re.compile(r"/v2/models/(?P<name>[^/]+)(?:/versions/(?P<version>[^/]+))?/infer")
T = TypeVar("T")


def make_finder(service: Service) -> Callable[[str], Handler | None]:
    """The function from a path to what answers it; None for all but the two."""
    predict = _predictor(service)

    def find(path: str) -> Handler | None:
        if path == "/predict":
            return predict
        named = _INFER.fullmatch(path)
        return None if named is None else _inferrer(service, **named.groupdict())

    return find


def check_model(service: Service, bundle: Bundle, name: str, version: str | None = None) -> None:
    """Raise RequestError 404 when a path names another model, or a version that is not served."""
    if name != service.settings.name:
        message = f"there is no model '{shorten(name)}'; this is '{service.settings.name}'"
        raise RequestError(404, message)
    if version not in (None, bundle.version):
        raise RequestError(404, f"version {shorten(version)} is not served; {bundle.version} is")


def _predictor(service: Service) -> Handler:
    settings = service.settings
    decoders = asyncio.Semaphore(MAX_DECODERS)

    async def predict(scope: Scope, receive: Receive) -> Answer:
        bundle = service.bundle

        def read() -> list[Row]:
            kind = find_header(scope, b"content-type")
            max_rows = min(settings.max_rows, bundle.signature.max_images or settings.max_rows)
            if kind.lower().startswith(FORM):
                return read_form(kind, body, bundle.signature, max_rows)
            return check_rows(parse_json(body), max_rows)

        def write() -> Answer:
            predictions = decode(bundle.signature, outputs, rows)
            return Answer(orjson.dumps({"model": bundle.version, "predictions": predictions}))

        body = await read_body(scope, receive, settings.max_body_bytes)
        rows = await _run_by_size(body, read)
        if has_files(rows, bundle.signature.image_columns):
            async with decoders:
                feeds = await asyncio.to_thread(bundle.encode, rows)
        else:
            feeds = await _run_by_size(body, lambda: bundle.encode(rows))
        outputs = await service.batcher.run(bundle, feeds, len(rows))
        service.metrics.rows.inc(len(rows))
        return await _run_by_size(body, write)

    return predict


def _inferrer(service: Service, name: str, version: str | None) -> Handler:
    settings = service.settings

    async def infer(scope: Scope, receive: Receive) -> Answer:
        bundle = service.bundle
        check_model(service, bundle, name, version)

        def read() -> Any:
            text, binary = split_body(scope, body)
            return read_request(parse_json(text), binary, bundle, settings.max_rows)

        body = await read_body(scope, receive, settings.max_body_bytes)
        feeds, num_rows, wanted = await _run_by_size(body, read)
        outputs = await service.batcher.run(bundle, feeds, num_rows)
        service.metrics.rows.inc(num_rows)
        return await _run_by_size(body, lambda: answer(bundle, settings.name, wanted, outputs))

    return infer


def has_files(rows: list[Row], columns: tuple[str, ...]) -> bool:
    """Check whether a row holds an image as bytes, of which a small one may take long."""
    return bool(columns) and any(
        isinstance(row.get(column), str | bytes)
        for row in rows
        if isinstance(row, dict)
        for column in columns
    )


async def _run_by_size(body: bytes, work: Callable[[], T]) -> T:
    """Call `work`: at once for a small body, in a thread for a large one."""
    return work() if len(body) <= INLINE_BYTES else await asyncio.to_thread(work)
