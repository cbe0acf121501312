"""What a parameter that names a table may be: one file that can be read, or a folder of images."""

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator

SUFFIXES = (".parquet", ".csv", ".tsv", ".jsonl", ".ndjson")


def _check_suffix(name: str) -> str:
    is_folder = name.endswith("/") or not Path(name).suffix
    if not name or (not is_folder and Path(name).suffix.lower() not in SUFFIXES):
        known = f"{', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}"
        raise ValueError(
            f"'{name}' is not a kind of table that can be read: one file in {known}, or a folder "
            "of images (with a '/' at its end, if there is a '.' in its name)"
        )
    return name


TableFile = Annotated[str, AfterValidator(_check_suffix)]
