"""Measurements of a training, from a process that imports torch and may be killed."""

import json
import re
import signal
import subprocess
from collections.abc import Iterator, Sequence
from typing import Any

from pipeline.common.programs import python
from pipeline.doctor.cause import Probe, find_cause
from pipeline.doctor.finding import Finding, note
from stages.common.errors import UserError
from stages.common.params import PARAMS
from stages.common.yamlfile import find_place

MODULE = "stages.tools.diagnose"
MARK = "measured: "
SECONDS = 120.0
MAX_REMEDIES = 3
# What a measurement proposes, such as 'train.micro_batch_size: 16'.
_EDIT = re.compile(r"([a-z]+\.[\w.]+): ")


def measure(probes: Sequence[Probe]) -> Iterator[Finding]:
    """Yield what the measurements find, those that were made before the process ended too."""
    if not probes:
        return
    try:
        done = subprocess.run(
            [*python(MODULE), *dict.fromkeys(probes)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=SECONDS,
            check=False,
        )
        output, end = done.stdout, _end(done.returncode, done.stderr)
    except subprocess.TimeoutExpired as error:
        said = error.stdout or b""
        output = said if isinstance(said, str) else said.decode("utf-8", "replace")
        end = f"no end after {SECONDS:.0f} s"
    told = [json.loads(line[len(MARK) :]) for line in output.splitlines() if line.startswith(MARK)]
    for number, each in enumerate(told):
        last = number == len(told) - 1
        if not each["passing"] or (last and end):
            yield to_finding(each)
    if end:
        yield note(f"measuring ended early: {end}", "what was measured until then stands above")


def _end(code: int, errors: str) -> str:
    """The end of the process, in words; '' if it ended well."""
    if code == 0:
        return ""
    if code < 0:
        return f"the system ended it with {signal.Signals(-code).name}"
    lines = [line.strip() for line in errors.splitlines() if line.strip()]
    said = [line for line in lines if not line.endswith("stopped")]
    return said[0] if said else f"exit code {code}"


def to_finding(told: dict[str, Any]) -> Finding:
    """The finding of a measurement, with what the table says of its cause."""
    what, mend = f"measured: {told['what']}", tuple(_at_line(text) for text in told["mend"])
    if not told["cause"]:
        return Finding(told["level"], what, "", mend)
    cause = find_cause(told["cause"])
    what = f"{cause.name}; {what}"
    return Finding(told["level"], what, cause.means, (*mend, *cause.remedies[:MAX_REMEDIES]))


def _at_line(text: str) -> str:
    """An edit of a key with the line at which it stands."""
    key = _EDIT.match(text)
    try:
        place = None if key is None else find_place(PARAMS, key[1])
    except (UserError, OSError):
        place = None
    return text if place is None else f"{PARAMS}:{place[0]}  {text}"
