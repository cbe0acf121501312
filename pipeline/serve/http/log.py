"""The log of `reprise serve`: strangers cause its lines, and must not fill a disk with them."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

MOST = 10
PERIOD_SECONDS = 60.0


@dataclass
class _Kind:
    began: float
    num: int = 0


class RateLimit(logging.Filter):
    """Lets `MOST` records of a kind through in PERIOD_SECONDS; a kind is the line that logs it.

    The first one after a pause says how many were left out. Lines that somebody asked for, such as
    those of an access log, are below WARNING and not limited.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock, self._kinds = clock, dict[tuple[str, int], _Kind]()

    def filter(self, record: logging.LogRecord) -> bool:
        """Decide whether the record is written."""
        if record.levelno < logging.WARNING:
            return True
        now = self._clock()
        kind = self._kinds.setdefault((record.pathname, record.lineno), _Kind(now))
        if now - kind.began >= PERIOD_SECONDS:
            left_out, kind.began, kind.num = kind.num - MOST, now, 0
            if left_out > 0:
                record.msg = f"{record.getMessage()} ({left_out} more like it were left out)"
                record.args = ()
        kind.num += 1
        return kind.num <= MOST


def set_up_log(*, access_log: bool) -> None:
    """Write warnings, and with `access_log` a line for each request, to stderr."""
    handler = logging.StreamHandler()
    handler.addFilter(RateLimit())
    level = logging.INFO if access_log else logging.WARNING
    logging.basicConfig(format="%(message)s", level=level, handlers=[handler])
