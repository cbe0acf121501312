"""The application of `reprise serve`: FastAPI, with what predicts in front of it."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from importlib.metadata import version

from fastapi import FastAPI, Request
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp

from pipeline.serve.codec.problems import RequestError
from pipeline.serve.codec.signature import example_row
from pipeline.serve.http.guard import guarded
from pipeline.serve.http.page import add_page
from pipeline.serve.predict import check_model, make_finder
from pipeline.serve.protocol import describe
from pipeline.serve.service import Service, watch
from stages.common.errors import shorten

MODEL = "/v2/models/{name}"
VERSION = MODEL + "/versions/{version}"


def make_app(service: Service, say: Callable[[str], None]) -> ASGIApp:
    """The application; `say` is told of reloads, which begin with its start."""

    @asynccontextmanager
    async def watched(_: FastAPI) -> AsyncIterator[None]:
        task = asyncio.create_task(watch(service, say))
        yield
        task.cancel()
        service.batcher.close()

    app = FastAPI(
        title="Reprise",
        version=version("reprise"),
        lifespan=watched,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        exception_handlers={
            RequestError: _refused,
            HTTPException: _not_here,
            Exception: _broken,
        },
    )
    _add_health(app, service)
    _add_models(app, service)
    _add_others(app, service)
    add_page(app, service)
    return guarded(app, service, make_finder(service))


async def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestError)
    return JSONResponse({"error": error.message}, error.status, error.headers)


async def _not_here(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    message = f"{request.method} {shorten(request.url.path)}: {error.detail}"
    return JSONResponse({"error": message}, error.status_code, error.headers)


async def _broken(_: Request, error: Exception) -> Response:
    return JSONResponse({"error": f"the server failed: {type(error).__name__}"}, 500)


def _add_health(app: FastAPI, service: Service) -> None:
    def ready(**more: str) -> Response:
        stopping = service.is_stopping()
        return JSONResponse({**more, "ready": not stopping}, 503 if stopping else 200)

    async def live() -> Response:
        """Check that the server answers at all."""
        return JSONResponse({"live": True})

    async def server_ready() -> Response:
        """Check that requests are taken: 503 once the server has been told to stop."""
        return ready()

    async def model_ready(request: Request) -> Response:
        """Check that this model takes requests."""
        check_model(service, service.bundle, **request.path_params)
        return ready(name=service.settings.name)

    app.get("/v2/health/live", tags=["health"])(live)
    app.get("/v2/health/ready", tags=["health"])(server_ready)
    for path in (MODEL, VERSION):
        app.get(path + "/ready", tags=["protocol"])(model_ready)


def _add_models(app: FastAPI, service: Service) -> None:
    async def server() -> Response:
        """The server's name, version and the protocol's extensions that it knows."""
        content = {
            "name": "reprise",
            "version": app.version,
            "extensions": ["binary_tensor_data"],
        }
        return JSONResponse(content)

    async def model(request: Request) -> Response:
        """The model's inputs and outputs, and its version: the hash of its weights."""
        check_model(service, service.bundle, **request.path_params)
        return JSONResponse(describe(service.bundle, service.settings.name))

    app.get("/v2", tags=["protocol"])(server)
    for path in (MODEL, VERSION):
        app.get(path, tags=["protocol"])(model)


def _add_others(app: FastAPI, service: Service) -> None:
    async def example() -> Response:
        """A body for POST /predict that this model takes."""
        return JSONResponse({"rows": [example_row(service.bundle.signature)]})

    async def metrics() -> Response:
        """Metrics for Prometheus."""
        kind = "text/plain; version=0.0.4; charset=utf-8"
        return Response(service.metrics.text(), media_type=kind)

    app.get("/example", tags=["rows"])(example)
    app.get("/metrics", tags=["health"])(metrics)
