"""Files with the same bytes for the same content: JSON, CSV, hashes."""

import csv
import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any


def write_json(path: Path, content: object) -> None:
    """Write `content` as indented JSON; floats keep every digit. NaN is an error of ours."""
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


def rounded(value: float) -> float:
    """`value` to seven significant digits: as many as a float32 carries."""
    return float(f"{value:.7g}")
