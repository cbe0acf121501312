"""The journal of a search: a line of JSON for each event, so that a kill loses little.

    {"search": {…}}                         the first line: what `reprise tune --watch` shows
    {"batch": [{"number": 8, …}, …]}        these trials begin
    {"epoch": 2, "values": {"8": 0.31}, "ended": [9], "seconds": 1.4}
    {"told": [{"number": 8, …}, …], "seconds": 3.1}     they have ended

A search resumes after the last line of the kind `told`; the trials of a batch that has none are
run again under their numbers.
"""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from stages.tune.trials import Trial


class Journal:
    """The file of a running search; it is made anew of what the last search has finished."""

    def __init__(self, path: Path, facts: Mapping[str, Any]) -> None:
        told = [line for line in read_lines(path) if "told" in line]
        self.trials = [to_trial(each) for line in told for each in line["told"]]
        self.seconds = sum(line["seconds"] for line in told)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(".new")
        lines = [{"search": facts}, *told]
        text = "".join(json.dumps(line) + "\n" for line in lines)
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
        self._path = path

    def begin(self, trials: Sequence[Mapping[str, Any]]) -> None:
        """Note that these trials begin."""
        self._append({"batch": list(trials)})

    def reach(
        self, epoch: int, values: Mapping[int, float], ended: Sequence[int], seconds: float
    ) -> None:
        """Note the values after an epoch by the trials' numbers, and those that end there."""
        self._append({"epoch": epoch, "values": values, "ended": ended, "seconds": seconds})

    def tell(self, trials: Sequence[Trial], seconds: float) -> None:
        """Note the end of a batch; it is on the disk when this returns."""
        told = [asdict(trial) for trial in trials]
        self._append({"told": told, "seconds": seconds}, sync=True)
        self.seconds += seconds

    def _append(self, line: Mapping[str, Any], *, sync: bool = False) -> None:
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
            if sync:
                file.flush()
                os.fsync(file.fileno())


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the lines up to one that a kill has cut short; none of a file that is not there."""
    if not path.exists():
        return
    for line in path.read_bytes().splitlines(keepends=True):
        if not line.endswith(b"\n"):
            return
        yield json.loads(line)


def read_told(path: Path) -> list[Trial]:
    """The trials that have ended, from the journal of a search."""
    return [to_trial(each) for line in read_lines(path) for each in line.get("told", ())]


def to_trial(content: Mapping[str, Any]) -> Trial:
    """A trial from its line of JSON."""
    return Trial(**{**content, "values": tuple(content["values"])})
