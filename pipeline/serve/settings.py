"""What `reprise serve` was asked for, and what has come of it: the model that is served now."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.serve.batching import Batcher
from pipeline.serve.bundle import Bundle
from pipeline.serve.metrics import Metrics


@dataclass(frozen=True)
class Settings:
    """Where the model is, its name in the protocol, the limits, and the token if there is one."""

    folder: Path
    name: str = "reprise"
    max_body_bytes: int = 16 << 20
    max_rows: int = 4096
    max_queued_rows: int = 16_384
    timeout_seconds: float = 30.0
    token: str | None = field(default=None, repr=False)


class Service:
    """What the routes share: settings, counters, the queue, and the model of the moment.

    A request takes `bundle` once and keeps it to its end, whatever is loaded meanwhile.
    """

    def __init__(self, settings: Settings, bundle: Bundle) -> None:
        self.settings = settings
        self.metrics = Metrics()
        self.batcher = Batcher(settings.max_queued_rows, self.metrics.batch_rows.observe)
        self.metrics.watch_queue(lambda: self.batcher.queued_rows)
        # Told to stop: what is under way is finished, and no more is asked for.
        self.is_stopping: Callable[[], bool] = lambda: False
        self.bundle = bundle
        self.metrics.serves(bundle)

    def take(self, bundle: Bundle) -> None:
        """Serve another model from the next request on."""
        self.bundle = bundle
        self.metrics.serves(bundle)
