"""Facts of files of images and of texts as columns: those that the rules of a suite name.

Of images: `image.decodes`, `.width`, `.height`, `.mode` (Pillow's, such as RGB), and `.hash`, equal
of equal files. Of texts: `body.num_words`, the words that a column of text is cut into, and
`body.num_letters`, all characters. They are those of all rows of the source, be they used or not.
"""

import hashlib
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl

from stages.common.errors import Problem, UserError
from stages.features.pixels import ImageError, opened
from stages.features.words.split import num_words
from stages.formats.images.load import FILES, Source, map_sources, source_of
from stages.prepare.expectations.fact_names import OF_IMAGES, split_fact
from stages.prepare.expectations.suite import Rule
from stages.prepare.table.table import Change, Table, in_memory

_TYPES: Mapping[str, pl.DataType] = {
    "decodes": pl.Boolean(),
    "width": pl.Int64(),
    "height": pl.Int64(),
    "mode": pl.String(),
    "hash": pl.String(),
    "num_words": pl.Int64(),
    "num_letters": pl.Int64(),
}


def named_facts(
    rules: Sequence[Rule | None], columns: Collection[str]
) -> dict[str, tuple[str, str]]:
    """The facts that rules name: `image.width` to its column and its fact."""
    names = {name for rule in rules if rule is not None for name in rule.columns.values()}
    found = {name: split_fact(name, columns) for name in sorted(names)}
    return {name: fact for name, fact in found.items() if fact is not None}


def with_facts(table: Table, named: Mapping[str, tuple[str, str]], folder: Path) -> Table:
    """The table with a column for each fact; `folder` is that of the images.

    Raises UserError for facts of what is neither a file nor a text.
    """
    problems = []
    of_images: dict[str, set[str]] = {}
    of_texts: dict[str, tuple[str, Change]] = {}
    for name, (column, fact) in named.items():
        dtype = table.schema[column]
        if fact in OF_IMAGES and dtype in FILES:
            of_images.setdefault(column, set()).add(fact)
        elif fact not in OF_IMAGES and dtype == pl.String:
            of_texts[name] = column, partial(_of_text, fact=fact)
        else:
            what = "files of images" if fact in OF_IMAGES else "texts"
            problems.append(Problem(f"'{name}': '{column}' holds {dtype}, and no {what}"))
    if problems:
        raise UserError(*problems)
    types = {name: _TYPES[fact] for name, (_, fact) in named.items()}
    if of_images:
        # Pixels are held in memory as a whole, too; the facts are a few bytes a row.
        frame = table.frame()
        for column, facts in of_images.items():
            frame = frame.with_columns(_of_images(frame[column], facts, folder))
        table = in_memory(frame)
    return table.derived(of_texts, {name: types[name] for name in of_texts})


def _of_text(column: pl.Series, fact: str) -> pl.Series:
    if fact == "num_words":
        counts = pl.Series(column.name, num_words(column.fill_null("")))
        return counts.set(column.is_null(), None)
    return column.str.len_chars().cast(pl.Int64)


def _of_images(column: pl.Series, facts: Collection[str], folder: Path) -> list[pl.Series]:
    """The facts of the files of a column, each opened once."""
    sources = [source_of(value, folder) for value in column]
    found = list(map_sources(partial(_look, facts=facts), sources))
    return [
        pl.Series(f"{column.name}.{fact}", [each.get(fact) for each in found], _TYPES[fact])
        for fact in sorted(facts)
    ]


def _look(_row: int, source: Source, *, facts: Collection[str]) -> dict[str, Any]:
    """The facts of one file; what can't be opened has none but that, and its hash."""
    found: dict[str, Any] = {"decodes": False}
    if isinstance(source, ImageError):
        return found
    if "hash" in facts and (isinstance(source, bytes) or source.is_file()):
        content = source if isinstance(source, bytes) else source.read_bytes()
        found["hash"] = hashlib.blake2b(content, digest_size=16).hexdigest()
    try:
        with opened(source) as image:
            found |= {"width": image.width, "height": image.height, "mode": image.mode}
            if "decodes" in facts:
                image.load()
            found["decodes"] = True
    except ImageError:
        pass
    return found
