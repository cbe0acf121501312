"""Names and times that a sender and the run in the work pool agree on."""

import os

from stages.common.errors import UserError

# The loggers below Prefect's own whose lines are the stage's, and those that only say 'alive'.
STAGE_LOG = ".stage"
ALIVE_LOG = ".alive"
# On the last of these: the result is at origin, and only the run's own end is left.
DONE = "the result is at origin"
# No word for as long: the run counts as lost with its machine.
SILENT_VARIABLE = "REPRISE_SILENT_SECONDS"
SILENT_SECONDS = 180.0
MIN_SILENT_SECONDS = 5.0


def not_run(stage: str, pool: str) -> str:
    """The line before the reason why a stage was not run, which the message of a run holds."""
    return f"{stage} was not run in the work pool '{pool}'"


def read_silent_seconds() -> float:
    """The silence after which a run counts as lost. Raises UserError."""
    text = os.environ.get(SILENT_VARIABLE, str(SILENT_SECONDS))
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not MIN_SILENT_SECONDS <= seconds < float("inf"):
        raise UserError(
            f"{SILENT_VARIABLE} is '{text}': it must be seconds, {MIN_SILENT_SECONDS:g} or more"
        )
    return seconds
