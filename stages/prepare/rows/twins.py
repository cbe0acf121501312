"""Rows that stand in two splits: what a model has learnt by heart, and is then tested on."""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from stages.common.counts import counted
from stages.features.schema import APART, Array, Schema
from stages.prepare.arrays import as_bytes, write_at
from stages.prepare.params import PrepareParams
from stages.prepare.rows.duplicates import digest

MAX_KEYS_SHOWN = 3


@dataclass(frozen=True)
class Twins:
    """A line on the rows of a split that an earlier one has too, as a model is given them.

    `are_equal`: of some, the columns are equal as they were read; `are_copies`: of some, the target
    too.
    """

    line: str
    are_equal: bool
    are_copies: bool


def write_twins(
    folder: Path,
    split: str,
    arrays: Mapping[str, Array],
    table: pl.DataFrame,
    schema: Schema,
    start: int,
) -> None:
    """Keep the hashes of rows of a split, of which the first is its row `start`.

    `arrays` are the rows encoded, `table` as they were read. They lie in `folder`, 32 bytes a row;
    rows may come in any order.
    """
    # Of dates with a calendar, two may be at the same place of it, and the rows no copies.
    dates = [feature.name for feature in schema.features if feature.calendar]
    columns = [feature.name for feature in schema.features if not feature.is_array]
    features = _join(_digests(arrays), table, dates)
    hashes = {
        "features": features,
        "wholes": _join(features, pl.DataFrame({"target": arrays["target"]}), ["target"]),
        "equal": _join(features, table, columns),
        "copies": _join(features, table, [*columns, schema.target.name]),
    }
    for name, own in hashes.items():
        found = own.to_numpy()
        write_at(_file(folder, split, name), {start * found.itemsize: as_bytes(found)})


def find_twins(
    folder: Path, arrays: Path, splits: tuple[str, ...], *, has_key: bool
) -> Iterator[Twins]:
    """The twins of each split with rows that an earlier one has too, if there are some.

    Rows are alike where a model is given the same of them, whatever stands in other columns, and
    the dates of a calendar are the same. `folder` has their hashes, `arrays` the splits' arrays;
    `has_key`: rows have names, else they are named by their numbers.
    """
    for place, split in enumerate(splits[1:], start=1):
        features, before = _read(folder, split, "features"), splits[:place]
        is_twin = features.is_in(_common(folder, before, "features", features).implode())
        if not is_twin.any():
            continue
        alike, equal, copies = (
            hashes.is_in(_common(folder, before, name, hashes).implode())
            for name in ("wholes", "equal", "copies")
            for hashes in (_read(folder, split, name),)
        )
        names = np.load(arrays / split / "key.npy", mmap_mode="r")
        groups = counted(features.filter(is_twin).n_unique(), "group")
        keys = ", ".join(map(str, names[is_twin.arg_true()[:MAX_KEYS_SHOWN]]))
        named = "first have the keys" if has_key else "first are the rows"
        extent = "in every feature" if equal.any() else "in all that is learned from"
        right = "what is learnt by heart looks right there"
        if not alike.any():
            right = "nothing that is learned from tells their targets apart"
        line = (
            f"{is_twin.sum()} of {features.len()} {split} rows "
            f"({groups} of equal rows) stand in "
            f"{' or '.join(before)} too, {extent}, {alike.sum()} of them with the "
            f"same target: the {named} {keys}; {right}"
        )
        yield Twins(line, bool(equal.any()), bool(copies.any()))


def say_remedy(params: PrepareParams, twins: Twins) -> str:
    """The values of `prepare.duplicates` that help, to follow a line; empty where none does.

    Rows that are equal to a model alone are no copies to either. A time or a column that says the
    splits of rows excludes `together`.
    """
    said = ["first keeps one of each"] if twins.are_copies and params.duplicates == "warn" else []
    apart = params.ordered or params.split.column is not None
    if twins.are_equal and params.duplicates != "together" and not apart:
        said.insert(0, "together keeps copies in one split")
    return f": prepare.duplicates: {', '.join(said)}" if said else ""


def _join(hashes: pl.Series, table: pl.DataFrame, names: list[str]) -> pl.Series:
    """The hash of each row's hash and of its columns `names`."""
    if not names:
        return hashes
    return pl.DataFrame({"row": hashes, "columns": digest(table, names)[:, 0]}).hash_rows()


def _common(folder: Path, splits: tuple[str, ...], name: str, hashes: pl.Series) -> pl.Series:
    """Those of `hashes` that one of the splits has."""
    others = (_read(folder, split, name) for split in splits)
    return pl.concat([other.filter(other.is_in(hashes.implode())) for other in others]).unique()


def _read(folder: Path, split: str, name: str) -> pl.Series:
    return pl.Series(np.fromfile(_file(folder, split, name), np.uint64))


def _file(folder: Path, split: str, name: str) -> Path:
    return folder / f"{split}-{name}"


def _digests(arrays: Mapping[str, Array]) -> pl.Series:
    """A hash of the features of each row, of 64 bits."""
    hashes = []
    for kind, array in arrays.items():
        if kind in APART:
            continue
        if array.ndim > 2:
            found = (hashlib.blake2b(row.tobytes(), digest_size=8).digest() for row in array)
            hashes.append(pl.Series(kind, map(int.from_bytes, found), pl.UInt64))
        else:
            hashes.append(pl.from_numpy(array).hash_rows().alias(kind))
    return pl.DataFrame(hashes).hash_rows()
