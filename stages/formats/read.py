"""Tables from files: CSV, TSV, Parquet, JSON lines; or from a folder of images."""

from collections.abc import Callable
from pathlib import Path

import polars as pl
from polars import selectors as cs

from stages.common.errors import Problem, UserError
from stages.formats.csv import open_csv
from stages.formats.image_folder import read_folder
from stages.formats.json_lines import parse_lines, read_lines
from stages.formats.plain_values import plain, typed
from stages.formats.reading import Damage, Noticed, damage_message
from stages.formats.suffixes import SUFFIXES


def read_table(path: Path, key: str, say: Callable[[str], None] = print) -> pl.DataFrame:
    """The table in a file, all rows and columns; `key` is the parameter that names the file.

    A folder is one of images, as `read_folder` has it. Of any other kind of file, blanks around a
    text are no part of it, and empty texts and the usual words for 'no value' are nulls, which
    `say` is told with their number. Raises UserError when the file is missing, empty, of another
    kind, or damaged, be it in one line.
    """
    if path.is_dir():
        return read_folder(path, key)
    check_file(path, key)
    noticed = Noticed()
    try:
        table, damaged = _read(path, path.suffix.lower(), noticed)
    except (pl.exceptions.PolarsError, OSError, ValueError) as error:
        reason = str(error).split("\n")[0][:300]
        raise UserError(_problem(f"cannot read {path}: {reason}", path, key)) from None
    if damaged:
        raise UserError(_problem(damage_message(path, damaged), path, key))
    if table.height == 0:
        raise UserError(_problem(f"{path} has a header but no rows", path, key))
    for column in table.select(cs.float()).iter_columns():
        noticed.add_infinite(column.name, column)
    for line in noticed.lines():
        say(line)
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


def _read(path: Path, suffix: str, noticed: Noticed) -> tuple[pl.DataFrame, list[Damage]]:
    if suffix == ".parquet":
        return plain(pl.read_parquet(path), noticed), []
    if suffix in (".jsonl", ".ndjson"):
        lines = next(read_lines(path, None, noticed), None)
        if lines is None:
            raise ValueError("it has no line with a record")
        records = parse_lines(lines, None)
        return plain(records.table, noticed), records.damaged
    file = open_csv(path, noticed)
    tables, damaged = [], []
    for texts in file.read(file.names):
        tables.append(plain(texts.table, noticed))
        damaged += texts.damaged
    if damaged or not tables:
        return pl.DataFrame(), damaged
    return typed(pl.concat(tables)), []


def _problem(message: str, path: Path, key: str) -> Problem:
    return Problem(message, key=key, value=str(path), allowed=SUFFIXES)
