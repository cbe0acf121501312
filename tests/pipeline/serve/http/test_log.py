"""What a log says when much is said."""

import logging

from pipeline.serve.http.log import MOST, PERIOD_SECONDS, RateLimit


def test_a_log_says_what_it_has_left_out() -> None:
    now = 0.0
    limit = RateLimit(lambda: now)

    def record(line: int, level: int = logging.WARNING) -> logging.LogRecord:
        return logging.LogRecord("x", level, "file.py", line, "said %d", (7,), None)

    assert sum(limit.filter(record(1)) for _ in range(1000)) == MOST
    assert limit.filter(record(2))
    assert all(limit.filter(record(1, logging.INFO)) for _ in range(100))
    now = PERIOD_SECONDS
    later = record(1)
    assert limit.filter(later)
    assert later.getMessage() == f"said 7 ({1000 - MOST} more like it were left out)"
