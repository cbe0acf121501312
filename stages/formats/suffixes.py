"""The formats of tables by suffix, and the type of a parameter that names a table.

A format's file is loaded when it is asked for: `params.yaml` is checked without polars.
"""

from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Annotated

from pydantic import AfterValidator

from stages.common.addresses import find_fault, is_object
from stages.formats.text.compressed import suffix_of

# In the order in which messages name them. `format.py` says what such a file has.
FORMATS: Mapping[str, Callable[[], ModuleType]] = {
    ".parquet": lambda: import_module("stages.formats.parquet"),
    ".csv": lambda: import_module("stages.formats.csv"),
    ".tsv": lambda: import_module("stages.formats.csv"),
    ".jsonl": lambda: import_module("stages.formats.json_lines"),
    ".ndjson": lambda: import_module("stages.formats.json_lines"),
    ".arrow": lambda: import_module("stages.formats.arrow"),
    ".feather": lambda: import_module("stages.formats.arrow"),
    ".ipc": lambda: import_module("stages.formats.arrow"),
    ".xlsx": lambda: import_module("stages.formats.excel"),
    ".npz": lambda: import_module("stages.formats.images.arrays"),
}
SUFFIXES = tuple(FORMATS)
# How files of other kinds become tables.
_OTHERS = {
    ".npy": "numpy.savez('arrays.npz', x=…, y=…)",
    ".json": "polars.read_json(…).write_ndjson('table.jsonl'), if it is a list of records",
    ".xls": "save it as .xlsx",
    **dict.fromkeys((".sqlite", ".sqlite3", ".db"), "see docs/sources.md, 'Databases'"),
    **dict.fromkeys((".txt", ".dat", ".data"), "call it .csv, if it is a table in text"),
    **dict.fromkeys((".zip", ".tar", ".tgz"), "unpack it before"),
}
# Those that have a writer.
WRITTEN = tuple(suffix for suffix in SUFFIXES if suffix not in (".xlsx", ".npz"))


def _check_suffix(name: str) -> str:
    if is_object(name) and (fault := find_fault(name)):
        raise ValueError(fault)
    is_folder = name.endswith("/") or not Path(name).suffix
    if not name or (not is_folder and suffix_of(Path(name)) not in SUFFIXES):
        inner = Path(name.lower().removesuffix(".gz").removesuffix(".zst"))
        way = None if Path(name).is_dir() else _OTHERS.get(inner.suffix)
        known = f"{', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}"
        raise ValueError(
            f"'{name}' is not a kind of table that can be read: one file in {known}, texts also "
            "in .gz or .zst behind that, or a folder of such files or of images (with a "
            "'/' at its end, if there is a '.' in its name)"
            + (f"\n  to make a table of it: {way}" if way else "")
        )
    return name


TableFile = Annotated[str, AfterValidator(_check_suffix)]
