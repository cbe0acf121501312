"""Images from a folder, however deep they lie: one row a file, with its path as the image."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import polars as pl

from stages.common.counts import counted, either
from stages.common.errors import Problem, UserError
from stages.features.schema import Schema
from stages.formats.chunk import Chunk, chunk_rows
from stages.formats.images.folder import (
    IMAGE,
    LABEL,
    PARTS,
    PATH,
    SPLIT,
    as_some,
    find_files,
    find_images,
    find_parts,
    in_numbers,
)
from stages.formats.part import Part
from stages.formats.reading import Damage, Noticed
from stages.formats.suffixes import SUFFIXES as TABLES


def read(folder: Path, key: str, noticed: Noticed) -> tuple[pl.DataFrame, list[Damage]]:
    """A folder with a folder for each class, `cat/tom.png`, as a table; `key` names the folder.

    Columns: `path` in the folder, `image` the same, `label`: the name of the class. Where the
    classes lie in folders of parts, `train/cat/tom.png`, `split` names the part. Raises UserError
    where an image has no class, or a class no image.
    """
    images, others = find_images(folder, key)
    if others:
        wrong = either(len(others), "is no image", "are no images")
        noticed.remarks.append(
            f"{counted(len(others), 'file')} in {folder} {wrong}: left aside ({as_some(others)})"
        )
    parts = find_parts(images)
    places = [name.split("/") for name in images]
    depth = 1 if parts else 0
    labels = [place[depth] for place in places]
    columns = {PATH: images, IMAGE: images, LABEL: labels}
    if parts:
        columns[SPLIT] = [PARTS[place[0].lower()] for place in places]
    table = pl.DataFrame(columns)
    counts = dict(table[LABEL].value_counts().rows())
    shown = ", ".join(f"{name} {counts[name]}" for name in sorted(counts, key=in_numbers)[:20])
    rest = f" and {len(counts) - 20} more" if len(counts) > 20 else ""
    noticed.remarks.append(f"{folder} has {len(counts)} classes: {shown}{rest}")
    noticed.remarks += _tell_inner(places, depth)
    return table, []


def _tell_inner(places: Sequence[Sequence[str]], depth: int) -> Iterator[str]:
    """Tell of folders within those of classes, which may be the classes; `depth`: where these are.

    Nothing where all classes have the same ones, such as left and right.
    """
    inner: dict[str, set[str]] = {}
    for place in places:
        found = inner.setdefault(place[depth], set())
        if len(place) > depth + 2:
            found.add(place[depth + 1])
    named = sorted(label for label, names in inner.items() if len(names) > 1)
    if not named or all(names == inner[named[0]] for names in inner.values()):
        return
    names = sorted(set().union(*(inner[label] for label in named)))
    classes = f"{counted(len(named), 'class', 'classes')} ({as_some(named)})"
    yield (
        f"the images of {classes} lie in folders of their own ({as_some(names)}): if these are "
        "the classes, lift them out"
    )


def parts(path: Path, key: str, noticed: Noticed, _as_text: frozenset[str]) -> Iterator[Part]:
    """All rows as one part."""
    yield Part(*read(path, key, noticed))


def chunks(folder: Path, schema: Schema, key: str, _noticed: Noticed) -> Iterator[Chunk]:
    """The files of a folder, each named by its path there, as the schema's one column."""
    if [feature.is_array for feature in schema.features] != [True]:
        message = f"{folder} is a folder, and this model takes more than images: name one file"
        raise UserError(Problem(message, key, str(folder), allowed=TABLES))
    num_rows, names = chunk_rows(schema), find_files(folder, key)
    columns = (schema.key or PATH, schema.features[0].name)
    for start in range(0, len(names), num_rows):
        part = names[start : start + num_rows]
        table = pl.DataFrame(dict.fromkeys(columns, part), schema=dict.fromkeys(columns, pl.String))
        yield Chunk(table, np.arange(start, start + len(part)))
