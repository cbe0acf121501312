"""A new model in place of the one that is served, without a request that notices.

A stage, or DVC, first deletes the two files and then puts new ones there, one after the other. So
a pair is taken only when both are there and belong together, and a pair that can't be used is told
of only when it has stood still from one look to the next.
"""

import asyncio
from collections.abc import Callable

from pipeline.serve.bundle import Bundle, Stamp, load_bundle, stamp_of
from pipeline.serve.settings import Service
from stages.common.errors import UserError

LOOK_SECONDS = 1.0


async def watch(service: Service, say: Callable[[str], None]) -> None:
    """Look at the files every LOOK_SECONDS, until cancelled; serve what is new there."""
    known = service.bundle.stamp
    before: Stamp | None = known
    while True:
        await asyncio.sleep(LOOK_SECONDS)
        found = await asyncio.to_thread(stamp_of, service.settings.folder)
        still, before = found == before, found
        if found is None or found == known:
            continue
        try:
            bundle = await asyncio.to_thread(load_bundle, service.settings.folder)
        except (UserError, OSError, MemoryError) as error:
            if still:
                known = found
                service.metrics.reloaded("broken")
                serving = service.bundle.version[:12]
                say(f"a new model can't be served, {serving} still is:\n  {error}")
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
