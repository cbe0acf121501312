"""Files with the same bytes for the same content: JSON, CSV, hashes."""

import csv
import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

_NO_FILE = "no file, but a link to nothing, a FIFO, a socket or a device"


def write_json(path: Path, content: object) -> None:
    """Write `content` as indented JSON; floats keep every digit. NaN is a bug."""
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
    path.write_text(text + "\n", encoding="utf-8")


def read_json(path: Path) -> Any:
    """The content of a JSON file that a stage wrote."""
    return json.loads(path.read_text(encoding="utf-8"))


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write rows under a header line; a file without rows keeps its header (DVC shows no plot)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)


def read_csv(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file with a header line."""
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def md5(path: Path) -> str:
    """The MD5 of a file's bytes, as DVC names it in its cache."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()


def find_odd(path: Path) -> str | None:
    """The first file at or in `path` that nobody should open or could name, and why; or None.

    DVC waits for ever at a FIFO that it is to hash, and can write no name that is not UTF-8.
    """
    if not path.is_dir():
        return None if path.is_file() or not path.exists() else f"{path} is {_NO_FILE}"
    folders = [path]
    while folders:
        with os.scandir(folders.pop()) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                try:
                    entry.name.encode("utf-8")
                except UnicodeEncodeError:
                    name = os.fsencode(entry.name)
                    return f"the name {name!r} in {Path(entry.path).parent} is not UTF-8"
                if entry.is_dir():
                    folders += [] if entry.is_symlink() else [Path(entry.path)]
                elif not entry.is_file():
                    return f"{entry.path} is {_NO_FILE}"
    return None


def rounded(value: float) -> float:
    """`value` to seven significant digits: as many as a float32 carries."""
    return float(f"{value:.7g}")
