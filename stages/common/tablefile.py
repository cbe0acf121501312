"""What a parameter that names a table may be: one file of a kind that can be read."""

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator

SUFFIXES = (".parquet", ".csv", ".tsv", ".jsonl", ".ndjson")


def _check_suffix(name: str) -> str:
    if Path(name).suffix.lower() not in SUFFIXES:
        known = f"{', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}"
        raise ValueError(f"'{name}' is not a kind of table that can be read: one file in {known}")
    return name


TableFile = Annotated[str, AfterValidator(_check_suffix)]
