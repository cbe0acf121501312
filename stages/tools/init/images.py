"""The images of a source, and what the layout of a folder says: its key and its parts."""

import io
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from stages.features.columns import as_category
from stages.features.pixels import Size, wide
from stages.formats.folders.folder_kind import find_kind
from stages.formats.images.folder import PATH, SPLIT
from stages.formats.images.load import find_sizes, propose_size, source_of
from stages.prepare.columns.parts import PARTS, names_parts
from stages.prepare.images import find_columns, load_images
from stages.prepare.params import PrepareParams
from stages.prepare.table.table import Table
from stages.tools.init.choose import Choice
from stages.tools.init.columns import Column, describe

# Images that are all of one size stay as they are up to it.
MAX_SIDE = 96


@dataclass
class Layout:
    """The table with arrays for image files, and what is known of it before its columns are seen.

    `looked` are some of its rows, or all. `columns` are those with a role already; `choices` those
    of the section `prepare`.
    """

    table: Table
    looked: pl.DataFrame
    columns: dict[str, Column] = field(default_factory=dict)
    choices: list[Choice] = field(default_factory=list)

    @property
    def prepare(self) -> dict[str, Any]:
        """The keys of the section `prepare`."""
        return {choice.key.removeprefix("prepare."): choice.value for choice in self.choices}


def find_layout(
    whole: Table, table: pl.DataFrame, params: PrepareParams, notes: list[str]
) -> Layout:
    """Decode the image files that a table names, at the size that is chosen for them.

    `table` are some rows of `whole`, or all. `params` names source, target and key, and has a split
    of shares. Lines for a person to read are added to `notes`. Raises UserError where too many
    files are no images.
    """
    source, layout = Path(params.source), Layout(whole, table)
    is_folder = source.is_dir() and find_kind(source) == "images"
    if is_folder and params.key is None and params.target != PATH:
        layout.columns[PATH] = describe(table[PATH], "key", "the place in the folder")
        params = params.model_copy(update={"key": PATH})
    others = (params.target, params.key, *params.ties().values())
    if SPLIT in table.columns and SPLIT not in others and names_parts(table[SPLIT]):
        layout.columns[SPLIT] = describe(table[SPLIT], "split", "the parts of the data set")
        split = params.split.model_dump() | {"column": SPLIT}
        layout.choices.append(Choice("prepare.split", split, f"by the column '{SPLIT}'"))
        params = PrepareParams.model_validate(params.model_dump() | {"split": split})
    if names := find_columns(table, params):
        folder = source if source.is_dir() else source.parent
        size, why = choose_size(
            find_sizes([source_of(value, folder) for name in names for value in whole.column(name)])
        )
        image = None if size is None else {"height": size[0], "width": size[1]}
        layout.choices.append(Choice("prepare.image", image, why))
        params = PrepareParams.model_validate(params.model_dump() | {"image": image})
        said = io.StringIO()
        with redirect_stdout(said):
            layout.table = load_images(whole, table, params).table
        layout.looked = layout.table.frame()
        notes += said.getvalue().splitlines()
    return layout


def choose_size(sizes: Sequence[Size]) -> tuple[Size | None, str]:
    """The size to bring images to, and why; None: all are of one that is small enough."""
    if not sizes:
        return None, "no image can be opened"
    sides = [side for size in sizes for side in size]
    if len(set(sizes)) == 1:
        if max(sides) <= MAX_SIDE:
            return None, f"all images are of {wide(sizes[0])} pixels"
        return propose_size(sizes), f"all images are of {wide(sizes[0])} pixels: to fewer"
    smallest, largest = min(sizes, key=_area), max(sizes, key=_area)
    why = f"images from {wide(smallest)} to {wide(largest)}: to the shape of their median"
    return propose_size(sizes), why


def _area(size: Size) -> int:
    return size[0] * size[1]


def are_bytes(column: pl.Series) -> bool:
    """Check whether the numbers of arrays are those of pixels: uint8, or whole and 0 to 255."""
    kind = column.dtype
    while isinstance(kind, pl.List | pl.Array):
        kind = kind.inner  # type: ignore[assignment]
    if kind == pl.UInt8 or not kind.is_integer():
        return kind == pl.UInt8
    while column.dtype.is_nested():
        column = column.explode()
    return bool(column.is_between(0, 255).all())


def count_train(layout: Layout, num_rows: int, params: PrepareParams) -> int:
    """The train rows among `num_rows`, those of the column that divides them where one does."""
    shares = {"validation": params.split.validation, "test": params.split.test}
    if SPLIT not in layout.columns:
        return round(num_rows * (1 - sum(shares.values())))
    words = as_category(layout.table.column(SPLIT)).str.to_lowercase()
    parts = [PARTS[word] for word in words.to_list()]
    left = 1 - sum(share for name, share in shares.items() if name in parts)
    absent = sum(share for name, share in shares.items() if name not in parts)
    return round(parts.count("train") * (1 - absent / left))
