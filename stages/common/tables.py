"""Tables from files: CSV, TSV, Parquet, JSON lines; or from a folder of images."""

import csv
from pathlib import Path

import polars as pl

from stages.common.errors import Problem, UserError
from stages.common.images import read_folder
from stages.common.tablefile import SUFFIXES

# What makes a number a text: a key, a zip code.
LEADING_ZERO = r"^\s*[+-]?0\d"
# Texts that public tables use for 'no value'.
NULLS = ["", "NA", "N/A", "NaN", "nan", "null", "NULL", "?"]


def read_table(path: Path, key: str) -> pl.DataFrame:
    """The table in a file, all rows and columns; `key` is the parameter that names the file.

    A folder is one of images, as `read_folder` has it. In CSV and TSV, blanks around a field are
    no part of it, and empty fields and the usual words for 'no value' are nulls. Raises UserError
    when the file is missing, empty, damaged or of another kind.
    """
    if path.is_dir():
        return read_folder(path, key)
    check_file(path, key)
    try:
        table = _read(path, path.suffix.lower())
    except (pl.exceptions.PolarsError, csv.Error, OSError, ValueError) as error:
        reason = str(error).split("\n")[0][:200]
        raise UserError(_problem(f"cannot read {path}: {reason}", path, key)) from None
    if table.height == 0:
        raise UserError(_problem(f"{path} has a header but no rows", path, key))
    return table


def check_file(path: Path, key: str) -> None:
    """Raise UserError unless `path` is a file with something in it, of a kind that can be read."""
    if path.is_dir():
        raise UserError(_problem(f"{path} is a folder; a table is one file", path, key))
    if not path.exists():
        what = "file" if path.suffix else "folder"
        raise UserError(_problem(f"the {what} {path} does not exist", path, key))
    if not path.is_file():
        # To read a FIFO would wait for somebody who writes into it.
        raise UserError(_problem(f"{path} is no file, but a FIFO, a socket or a device", path, key))
    if path.suffix.lower() not in SUFFIXES:
        raise UserError(_problem(f"{path}: not a kind of table that can be read", path, key))
    if path.stat().st_size == 0:
        raise UserError(_problem(f"{path} is empty", path, key))


def check_twins(path: Path, separator: str) -> list[str]:
    """The names in the header of a CSV file, as they stand there.

    Raises ValueError at columns of one name, which polars would rename without a word.
    """
    with path.open(encoding="utf-8-sig", newline="") as file:
        header = next(csv.reader(file, delimiter=separator), [])
    names = [name.strip() for name in header]
    twins = [repr(name) for name in dict.fromkeys(names) if names.count(name) > 1]
    if twins:
        shown = ", ".join(twins[:5]).replace("''", "'' (no name)")
        raise ValueError(f"it has more than one column named {shown}")
    return header


def _read(path: Path, suffix: str) -> pl.DataFrame:
    if suffix == ".parquet":
        return pl.read_parquet(path)
    if suffix in (".jsonl", ".ndjson"):
        return pl.read_ndjson(path, infer_schema_length=None)
    separator = "\t" if suffix == ".tsv" else ","
    check_twins(path, separator)
    table = pl.read_csv(path, separator=separator, null_values=NULLS, infer_schema_length=None)
    table = _keep_zeros(table, path, separator)
    table = table.rename(lambda name: name.strip())
    return table.with_columns(_strip(column) for column in table.iter_columns())


def _keep_zeros(table: pl.DataFrame, path: Path, separator: str) -> pl.DataFrame:
    """Columns in which a number is written as `007` as the texts that they are: 7 is another."""
    numbers = [column.name for column in table.iter_columns() if column.dtype.is_numeric()]
    if not numbers:
        return table
    texts = pl.read_csv(
        path, separator=separator, null_values=NULLS, infer_schema=False, columns=numbers
    )
    kept = [c for c in texts.iter_columns() if c.str.contains(LEADING_ZERO).any()]
    return table.with_columns(kept)


def _strip(column: pl.Series) -> pl.Series:
    """Texts without the blanks around them; where these, or a `+`, hid numbers, they are some."""
    if column.dtype != pl.String:
        return column
    texts = column.str.strip_chars()
    texts = texts.set(texts.is_in(NULLS), None)
    if texts.str.contains(LEADING_ZERO).any():
        return texts
    for kind in (pl.Int64, pl.Float64):
        values = texts.cast(kind, strict=False)
        if values.null_count() == texts.null_count() < texts.len():
            return values
    return texts


def _problem(message: str, path: Path, key: str) -> Problem:
    return Problem(message, key=key, value=str(path), allowed=SUFFIXES)
