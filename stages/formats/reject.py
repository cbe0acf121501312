"""The file of rows that were set aside, as prepare, infer and predict write it."""

import csv
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from stages.formats.reading import Damage


@contextmanager
def open_rejected(path: Path | None) -> Iterator[Callable[[Damage], None]]:
    """A CSV file with a row for each that was set aside: its number from 0, key, column, reason."""
    if path is None:
        yield lambda _: None
        return
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("row", "key", "column", "reason"))

        def write(damage: Damage) -> None:
            key = "" if damage.key is None else damage.key
            writer.writerow((damage.row, key, damage.column, damage.reason))

        yield write


def write_rejected(path: Path, rejected: Iterable[Damage]) -> None:
    """Write some rows that were set aside, in their order."""
    with open_rejected(path) as note:
        for damage in rejected:
            note(damage)
