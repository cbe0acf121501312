"""The state of a search, running or finished, from its journal or its outputs."""

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from stages.common.errors import UserError
from stages.common.files import read_csv, read_json
from stages.locks import is_free
from stages.runtime.alone import LOCKS

JOURNALS = Path(".reprise/tune")
# The stage holds it from its start to its end, however it ends.
LOCK = LOCKS / "tune.lock"
TRIALS, SEARCH = Path("data/tune/trials.csv"), Path("data/tune/search.json")


@dataclass(frozen=True)
class Row:
    """One trial. `value` is the best of its epochs so far; `end` is empty while it trains."""

    number: int
    origin: str
    values: dict[str, Any]
    end: str = ""
    value: float | None = None
    epochs: int = 0


@dataclass(frozen=True)
class Progress:
    """A search at one moment. `reason` is empty until it has ended.

    `stopped_at` is when a search that nobody runs any more last wrote; `resumes`: the stage has
    begun again, and no trial of it yet.

    `seconds_left` is None where nothing tells it; `quiet_seconds` is how long ago it last wrote.
    `picked` is the trial of `best.yaml`, which need not have the best value; None while it runs.
    """

    direction: str
    sampler: str
    num_trials: int
    num_epochs: int | None
    rows: list[Row]
    seconds_left: float | None = None
    quiet_seconds: float = 0.0
    stopped_at: float | None = None
    resumes: bool = False
    reason: str = ""
    picked: int | None = None

    @property
    def training(self) -> list[Row]:
        """The trials that train."""
        return [row for row in self.rows if not row.end]

    def best(self, count: int) -> list[Row]:
        """The best trials that have a value and were not cut short, best first, and `picked`."""
        sign = 1 if self.direction == "minimize" else -1
        known = [row for row in self.rows if row.value is not None and row.end in ("", "complete")]
        ranked = sorted(known, key=lambda row: sign * float(row.value or 0.0))
        return [
            row for place, row in enumerate(ranked) if place < count or row.number == self.picked
        ]


def read_progress() -> Progress:
    """The search that wrote last: one that runs or was stopped, or the outputs.

    Raises UserError without any.
    """
    runs = is_running()
    facts = read_json(SEARCH) if SEARCH.exists() else {}
    written = SEARCH.stat().st_mtime if facts else 0.0
    for journal in JOURNALS.glob("*.journal"):
        try:
            modified = journal.stat().st_mtime
            found = _read_journal(journal) if modified > written else None
        except FileNotFoundError:
            continue  # the search ended just now
        if found is not None:
            return replace(
                found,
                quiet_seconds=time.time() - modified,
                stopped_at=None if runs else modified,
                # The first thing that a search does is to write its journal anew.
                resumes=runs and LOCK.stat().st_mtime > modified,
            )
    if not facts:
        if runs:
            raise UserError(
                "the stage tune has begun, and no trial yet: 'reprise tune --watch' waits"
            )
        raise UserError("no search runs, and none has run: set tune.trials, then 'dvc repro'")
    return _read_outputs(facts)


def is_running() -> bool:
    """Check whether a process runs the stage tune in this clone."""
    return not is_free(LOCK)


def _read_journal(path: Path) -> Progress | None:
    lines = list(_read_lines(path))
    if not lines:
        return None
    facts = lines[0].get("search")
    if facts is None:
        # Of a version that wrote another kind of journal.
        return None
    better = min if facts["direction"] == "minimize" else max
    rows: dict[int, Row] = {}
    told, seconds, since = 0, 0.0, 0.0
    for line in lines[1:]:
        for each in line.get("batch", ()) or line.get("told", ()):
            values = {**facts["current"], **each["overrides"]}
            rows[each["number"]] = Row(each["number"], each["origin"], values)
        for number, value in ((int(name), v) for name, v in line.get("values", {}).items()):
            row = rows[number]
            best = value if row.value is None else better(row.value, value)
            end = "pruned" if number in line["ended"] else ""
            rows[number] = replace(row, end=end, value=best, epochs=line["epoch"])
        for each in line.get("told", ()):
            given = {"end": each["end"], "value": each["value"], "epochs": len(each["values"])}
            rows[each["number"]] = replace(rows[each["number"]], **given)
        since = line.get("seconds", 0.0)
        if "told" in line:
            told, seconds, since = told + len(line["told"]), seconds + since, 0.0
    return Progress(
        direction=facts["direction"],
        sampler=facts["sampler"],
        num_trials=facts["trials"],
        num_epochs=facts["epochs"],
        rows=[rows[number] for number in sorted(rows)],
        seconds_left=max(0.0, (facts["trials"] - told) * seconds / told - since) if told else None,
    )


def _read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the lines up to one that is being written."""
    for line in path.read_bytes().splitlines(keepends=True):
        if line.endswith(b"\n"):
            yield json.loads(line)


def _read_outputs(facts: dict[str, Any]) -> Progress:
    rows = []
    for line in read_csv(TRIALS):
        number, end, value, epochs, origin = (
            line.pop(name) for name in ("trial", "state", "value", "epochs", "origin")
        )
        found = float(value) if value else None
        rows.append(Row(int(number), origin, dict(line), end, found, int(epochs)))
    return Progress(
        direction=facts["direction"],
        sampler=facts["sampler"],
        num_trials=len(rows),
        num_epochs=None,
        rows=rows,
        reason=facts["reason"],
        picked=facts.get("best", {}).get("trial"),
    )
