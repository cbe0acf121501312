"""Columns of image files become arrays; a file that is no image is a row by name left out."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import polars as pl

from stages.common.counts import either
from stages.common.errors import Problem, UserError
from stages.features.numbers import Rows
from stages.features.schema import Decode, Schema
from stages.features.spelling import as_line
from stages.formats.folders.folder_kind import find_kind
from stages.formats.images.folder import IMAGE, SPLIT, SUFFIXES
from stages.formats.images.load import FILES, Loaded, load_column
from stages.formats.images.new_rows import check_seen
from stages.formats.reading import Damage
from stages.prepare.params import PrepareParams
from stages.prepare.table.table import Table, in_memory

SOURCE = "prepare.source"
# Of the rows: more are no stray broken files.
MAX_REJECTED = 0.01
MAX_SHOWN = 5


@dataclass
class Images:
    """The table with arrays, the way to each from its files, and the rows left out of it.

    `rows` (rows,) are the numbers that those of the table have in the source; None: all are there.
    """

    table: Table
    rows: Rows | None = None
    decode: dict[str, Decode] = field(default_factory=dict)
    rejected: list[Damage] = field(default_factory=list)

    def in_source(self, numbers: Rows) -> Rows:
        """The numbers that rows of the table have in the source."""
        return numbers if self.rows is None else self.rows[numbers]

    def describe(self, schema: Schema) -> Schema:
        """`schema` with the way from files to each column of images."""
        features = [
            feature.model_copy(update={"decode": self.decode[feature.name]})
            if feature.name in self.decode
            else feature
            for feature in schema.features
        ]
        return schema.model_copy(update={"features": features})


def load_images(table: Table, sample: pl.DataFrame, params: PrepareParams) -> Images:
    """Decode the columns of `table` that hold image files; `sample` are rows by which to tell.

    Prints what was changed of how many. Raises UserError where more than MAX_REJECTED of the rows
    are no images, and for `prepare.image` where there are no files to resize.
    """
    names = find_columns(sample, params)
    _check_parts(sample, params)
    size = None if params.image is None else (params.image.height, params.image.width)
    if size is not None and not names:
        message = f"no column of {params.source} holds image files that could be resized"
        raise UserError(Problem(message, "prepare.image", str(dict(params.image or ())), ("null",)))
    if not names:
        return Images(table)
    source, decodes, rejected = Path(params.source), {}, []
    folder = source if source.is_dir() else source.parent
    # All in memory: pixels are a column of the table.
    frame, rows = table.frame(), np.arange(table.height)
    for name in names:
        column = frame[name]
        if column.dtype == pl.String:
            check_seen(source, name, SOURCE)
        loaded = load_column(column, folder, size, SOURCE)
        decodes[name] = loaded.decode
        _tell(loaded, column, params)
        rejected += _named(loaded, frame, rows, params)
        kept = np.delete(np.arange(column.len()), [damage.row for damage in loaded.rejected])
        frame, rows = frame[kept].with_columns(pl.Series(name, loaded.pixels)), rows[kept]
    return Images(in_memory(frame), rows, decodes, rejected)


def _check_parts(table: pl.DataFrame, params: PrepareParams) -> None:
    """Stop where a source has parts of a data set, and the split is not to be by them."""
    source = Path(params.source)
    has_parts = (
        find_kind(source) in ("idx", "images")
        if source.is_dir()
        else source.suffix.lower() == ".npz"
    )
    if not has_parts or SPLIT not in table.columns or params.split.column is not None:
        return
    if params.column(SPLIT).kind != "exclude":
        message = (
            f"{params.source} has the parts {', '.join(table[SPLIT].unique().sort())}: keep them, "
            f"with split: {{…, column: {SPLIT}}}, or draw the rows from all, with "
            f"{as_line(SPLIT, 'exclude')}"
        )
        raise UserError(Problem(message, "prepare.split.column", "null", (SPLIT,)))


def find_columns(table: pl.DataFrame, params: PrepareParams) -> list[str]:
    """The columns of image files: those that are called so, and of a folder those that look so."""
    source = Path(params.source)
    is_folder = source.is_dir()
    found = [IMAGE] if is_folder and find_kind(source) == "images" else []
    for column in table.iter_columns():
        kind = params.column(column.name).kind
        if column.dtype not in FILES or column.name in (params.key, params.target, *found):
            continue
        if kind == "image" or (kind is None and is_folder and _names_images(column)):
            found.append(column.name)
    return [name for name in found if params.column(name).kind in (None, "image")]


def _names_images(column: pl.Series) -> bool:
    """Check whether every text of a column ends as the name of an image does."""
    if column.dtype != pl.String or column.null_count() == column.len():
        return False
    ends = "|".join(suffix.removeprefix(".") for suffix in SUFFIXES)
    return bool(column.drop_nulls().str.contains(rf"(?i)\.({ends})$").all())


def _named(loaded: Loaded, table: pl.DataFrame, rows: Rows, params: PrepareParams) -> list[Damage]:
    """The rows with their numbers in the source, and their keys."""
    keys = table[params.key] if params.key in table.columns else None
    return [
        Damage(int(rows[d.row]), d.reason, d.column, None if keys is None else keys[d.row])
        for d in loaded.rejected
    ]


def _tell(loaded: Loaded, column: pl.Series, params: PrepareParams) -> None:
    """Print what was changed, and which rows are left out; stop where those are many."""
    num_rows, rejected = column.len(), loaded.rejected
    for what, count in sorted(loaded.changes.items()):
        depth = loaded.decode.depth
        used = f", of the {depth} that are used" if "16 bits" in what and depth < 16 else ""
        print(f"note: {count} of {num_rows} images in '{column.name}' {what}{used}")
    shown = [f"row {d.row} ({_short(column[d.row])}): {d.reason}" for d in rejected[:MAX_SHOWN]]
    if len(rejected) > MAX_REJECTED * num_rows:
        message = (
            f"{len(rejected)} of {num_rows} images in '{column.name}' can't be used, more than "
            f"{MAX_REJECTED:.0%}: {'; '.join(shown)}; remove or replace them"
        )
        raise UserError(Problem(message, SOURCE, params.source))
    for line in shown:
        print(f"warning  left out, {line}")
    if rejected:
        left_out = f"{either(len(rejected), 'is', 'are')} left out: data/prepare/rejected.csv"
        print(f"warning  {len(rejected)} of {num_rows} rows {left_out}")


def _short(value: object) -> str:
    return value if isinstance(value, str) else "bytes" if value is not None else "empty"
