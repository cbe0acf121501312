"""The service: the settings, the model of the moment, and how a new one takes its place.

A stage, or DVC, first deletes the two files and then puts new ones there, one after the other. So
a pair is taken only when both are there and belong together, and a pair that can't be used is told
of only when it has stood still from one look to the next.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.serve.batching import Batcher
from pipeline.serve.bundle import Bundle, Stamp, load_bundle, read_stamp
from pipeline.serve.metrics import Metrics
from stages.common.errors import UserError

LOOK_SECONDS = 1.0


@dataclass(frozen=True)
class Settings:
    """The model's folder, its name in the protocol, the limits, and the token if there is one.

    `hosts`: the names, in lower case, by which this server may be asked for, besides localhost.
    """

    folder: Path
    name: str = "reprise"
    max_body_bytes: int = 16 << 20
    max_rows: int = 4096
    max_queued_rows: int = 16_384
    timeout_seconds: float = 30.0
    header_seconds: float = 10.0
    max_connections: int = 2048
    hosts: frozenset[str] = frozenset()
    token: str | None = field(default=None, repr=False)


class Service:
    """State that the routes share: settings, counters, the queue, and the model of the moment.

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


async def watch(service: Service, say: Callable[[str], None]) -> None:
    """Look at the files every LOOK_SECONDS, until cancelled; serve what is new there."""
    known = service.bundle.stamp
    before: Stamp | None = known
    while True:
        await asyncio.sleep(LOOK_SECONDS)
        found = await asyncio.to_thread(read_stamp, service.settings.folder)
        still, before = found == before, found
        if found is None or found == known:
            continue
        try:
            bundle = await asyncio.to_thread(load_bundle, service.settings.folder)
        except Exception as error:
            # Of whatever kind: the models after this one must be looked for.
            if still:
                known = found
                service.metrics.reloaded("broken")
                serving = service.bundle.version[:12]
                why = error if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
                say(f"a new model can't be served, {serving} still is:\n  {why}")
            continue
        known = bundle.stamp
        _take(service, bundle, say)


def _take(service: Service, bundle: Bundle, say: Callable[[str], None]) -> None:
    old = service.bundle
    if bundle.signature == old.signature:
        return
    service.take(bundle)
    service.metrics.reloaded("taken")
    changed = "" if bundle.signature.inputs == old.signature.inputs else "; its columns are others"
    say(f"serving {bundle.version[:12]} in place of {old.version[:12]}{changed}")
