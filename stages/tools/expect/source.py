"""A table as prepare reads it: the source of `params.yaml`, or other rows of its kind."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import polars as pl

from stages.common.addresses import is_object, local_path
from stages.common.config import validate
from stages.common.params import PARAMS
from stages.common.yamlfile import read_yaml
from stages.features.schema import Schema
from stages.prepare.columns.infer_schema import SOURCE, find_schema
from stages.prepare.columns.target import find_target
from stages.prepare.columns.written import Written, with_written
from stages.prepare.images import Images, load_images
from stages.prepare.params import PrepareParams
from stages.prepare.table.dots import signed_columns
from stages.prepare.table.long_table import apply_writing
from stages.prepare.table.open_table import open_table
from stages.prepare.table.sample import take_sample
from stages.prepare.table.table import Table
from stages.runtime.object_storage import fetched, list_objects, name_reader

# Of a table that memory does not hold, the parts lie here meanwhile.
FOLDER = Path(".reprise")
PATH = "PATH"


@dataclass(frozen=True)
class Source:
    """A table as it is read, its images still files; `sample` are rows to tell its columns by."""

    section: PrepareParams
    raw: Table
    sample: pl.DataFrame
    written: dict[str, Written]

    def load(self) -> Images:
        """The table with its images decoded."""
        with redirect_stdout(sys.stderr):
            return load_images(self.raw, self.sample, self.section)

    def describe(self) -> tuple[Table, Schema]:
        """The table, and what prepare finds its columns to be."""
        images = self.load()
        section = self.section
        with redirect_stdout(sys.stderr):
            labelled = _with_target(images.table, section.target)
            target = find_target(labelled.column_parts(section.target), section.task)
            own = take_sample(labelled, section.words)
            found = find_schema(own.table, section, target, own.rows)
        return images.table, images.describe(with_written(found, self.written))


def read_section() -> PrepareParams:
    """The section `prepare` of `params.yaml`. Raises UserError for what is wrong in it."""
    tree = read_yaml(PARAMS)
    return validate(PrepareParams, (tree or {}).get("prepare"), at="prepare")


@contextmanager
def open_source(section: PrepareParams, path: Path | None) -> Iterator[Source]:
    """The rows of `path`, or of the section's source.

    What prepare would say of them goes to standard error. Raises UserError for what can't be read.
    """
    key = SOURCE if path is None else PATH
    name = section.source if path is None else str(path)
    listings = [list_objects(name, key)] if is_object(name) else []
    reader = name_reader("expect")
    section = section.model_copy(update={"source": str(local_path(reader, name))})
    FOLDER.mkdir(exist_ok=True)
    with (
        fetched(reader, listings),
        TemporaryDirectory(dir=FOLDER, prefix="expect-") as folder,
    ):
        with redirect_stdout(sys.stderr):
            signed = signed_columns(section.columns)
            where = Path(section.source), key, Path(folder)
            raw = open_table(*where, expected=section.named, as_text=signed)
            raw, sample, written, lines = apply_writing(
                raw, take_sample(raw, section.words), section
            )
            for line in lines:
                print(line)
        yield Source(section, raw, sample.table, written)


def _with_target(table: Table, target: str) -> Table:
    """The rows that have a target, where it is a column at all."""
    if target not in table.columns:
        return table
    there = np.concatenate([part.is_not_null().to_numpy() for part in table.column_parts(target)])
    return table if there.all() else table.where(there)
