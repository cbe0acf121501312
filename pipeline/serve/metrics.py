"""The metrics that Prometheus reads at /metrics."""

from collections.abc import Callable
from functools import cache

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from pipeline.serve.bundle import Bundle

SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096)
# Every other path is one label, or a stranger could make as many series as he likes.
_PATHS = ("/", "/predict", "/example", "/docs", "/openapi.json", "/metrics", "/v2")
_ENDINGS = ("infer", "ready", "live")


class Metrics:
    """The counters of one server, in a registry of their own."""

    def __init__(self) -> None:
        registry = CollectorRegistry()
        self._registry = registry
        self._requests = Counter(
            "reprise_requests", "Requests answered", ["route", "status"], registry=registry
        )
        self._seconds = Histogram(
            "reprise_request_seconds",
            "From a request's headers to the end of its answer",
            ["route"],
            buckets=SECONDS,
            registry=registry,
        )
        self.rows = Counter("reprise_rows", "Rows predicted", registry=registry)
        self.batch_rows = Histogram(
            "reprise_batch_rows", "Rows of one run of the model", buckets=ROWS, registry=registry
        )
        self._queued_rows = Gauge(
            "reprise_queued_rows", "Rows that wait for a run", registry=registry
        )
        self._model = Gauge(
            "reprise_model", "1 for the model that is served", ["version"], registry=registry
        )
        self._reloads = Counter(
            "reprise_reloads", "New models found: taken, or broken", ["result"], registry=registry
        )
        self._connections = Gauge(
            "reprise_connections", "Connections that are open", registry=registry
        )
        self.closed = Counter(
            "reprise_connections_closed",
            "Closed by the server: slow, to make room, refused for want of room, too large",
            ["reason"],
            registry=registry,
        )
        for reason in ("slow", "room", "refused", "large"):
            self.closed.labels(reason)
        for result in ("taken", "broken"):
            self._reloads.labels(result)
        # To look up labels takes longer than to count.
        self._count = cache(lambda route, status: self._requests.labels(route, status).inc)
        self._observe = cache(lambda route: self._seconds.labels(route).observe)

    def watch_queue(self, read: Callable[[], int]) -> None:
        """Take the length of the queue from `read` whenever it is asked for."""
        self._queued_rows.set_function(read)

    def watch_connections(self, read: Callable[[], int]) -> None:
        """Take the number of connections from `read` whenever it is asked for."""
        self._connections.set_function(read)

    def answered(self, path: str, status: int, seconds: float) -> None:
        """Count a request."""
        route = route_of(path)
        self._count(route, status)()
        self._observe(route)(seconds)

    def serves(self, bundle: Bundle) -> None:
        """Name the model that is served from now on."""
        self._model.clear()
        self._model.labels(bundle.version).set(1)

    def reloaded(self, result: str) -> None:
        """Count a new model: 'taken' or 'broken'."""
        self._reloads.labels(result).inc()

    def text(self) -> bytes:
        """All of it in Prometheus's text format."""
        return generate_latest(self._registry)


@cache
def _model_route(ending: str) -> str:
    return f"/v2/models/{{name}}/{ending}" if ending else "/v2/models/{name}"


def route_of(path: str) -> str:
    """The label of a path: the same one for all models and versions."""
    if path in _PATHS:
        return path
    if path.startswith("/v2/models/"):
        ending = path.rsplit("/", 1)[-1]
        return _model_route(ending if ending in _ENDINGS else "")
    if path in ("/v2/health/live", "/v2/health/ready"):
        return path
    return "other"
