"""Rows that stand in two splits: what a model has learnt by heart, and is then tested on."""

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import polars as pl

from stages.common.counts import counted
from stages.features.schema import APART, Array
from stages.prepare.arrays import as_bytes, write_at
from stages.prepare.params import PrepareParams

MAX_KEYS_SHOWN = 3


def write_twins(folder: Path, split: str, arrays: Mapping[str, Array], start: int) -> None:
    """Keep the hashes of rows of a split, of which the first is its row `start`.

    They lie in `folder`, 16 bytes a row; rows may come in any order.
    """
    features = _digests(arrays)
    target = pl.Series("target", arrays["target"])
    wholes = pl.DataFrame([features.alias("features"), target]).hash_rows()
    for name, hashes in (("features", features), ("wholes", wholes)):
        found = hashes.to_numpy()
        write_at(_file(folder, split, name), {start * found.itemsize: as_bytes(found)})


def find_twins(folder: Path, arrays: Path, splits: tuple[str, ...]) -> Iterator[str]:
    """A line for each split with rows that an earlier one has too.

    Rows are alike where a model is given the same of them, whatever stands in other columns.
    `folder` has their hashes, `arrays` the splits' arrays.
    """
    for place, split in enumerate(splits[1:], start=1):
        features, before = _read(folder, split, "features"), splits[:place]
        is_twin = features.is_in(_common(folder, before, "features", features).implode())
        if not is_twin.any():
            continue
        wholes = _read(folder, split, "wholes")
        alike = wholes.is_in(_common(folder, before, "wholes", wholes).implode())
        named = np.load(arrays / split / "key.npy", mmap_mode="r")
        groups = counted(features.filter(is_twin).n_unique(), "group")
        keys = ", ".join(map(str, named[is_twin.arg_true()[:MAX_KEYS_SHOWN]]))
        yield (
            f"{is_twin.sum()} of {features.len()} {split} rows "
            f"({groups} of equal rows) stand in "
            f"{' or '.join(before)} too, in every feature, {alike.sum()} of them with the "
            f"same target: the first have the keys {keys}; what is learnt by heart "
            "looks right there"
        )


def say_remedy(params: PrepareParams) -> str:
    """The values of `prepare.duplicates` that help, to follow a line; empty where none does.

    A time or a column that says the splits of rows excludes `together`. Rows that it leaves in two
    splits are equal to a model alone, and `first` finds no copy among them either.
    """
    if params.duplicates == "together":
        return ""
    said = [] if params.duplicates == "first" else ["first keeps one of each"]
    if not params.ordered and params.split.column is None:
        said.insert(0, "together keeps copies in one split")
    return f": prepare.duplicates: {', '.join(said)}" if said else ""


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
