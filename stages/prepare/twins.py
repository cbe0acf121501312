"""Rows that stand in two splits: what a model has learnt by heart, and is then tested on."""

import hashlib
from collections.abc import Iterator, Mapping

import polars as pl

from stages.features.schema import Array

MAX_KEYS_SHOWN = 3
# What is no feature of a row.
_APART = ("target", "key")


class Twins:
    """Takes the splits as they are written, train first, and counts the rows that came before.

    Rows are alike where a model is given the same of them, whatever stands in other columns.
    """

    def __init__(self) -> None:
        self._before: list[str] = []
        self._features = pl.Series(dtype=pl.UInt64)
        # Features and target.
        self._wholes = pl.Series(dtype=pl.UInt64)

    def add(self, split: str, arrays: Mapping[str, Array]) -> Iterator[str]:
        """Take the rows of a split in; a line if there are some that an earlier one has."""
        features = _digests(arrays)
        target = pl.Series("target", arrays["target"])
        wholes = pl.DataFrame([features.alias("features"), target]).hash_rows()
        is_twin = features.is_in(self._features.implode())
        if is_twin.any():
            num_alike = int(wholes.is_in(self._wholes.implode()).sum())
            keys = ", ".join(map(str, arrays["key"][is_twin.arg_true()[:MAX_KEYS_SHOWN]]))
            yield (
                f"{is_twin.sum()} of {features.len()} {split} rows "
                f"({features.filter(is_twin).n_unique()} groups of equal rows) stand in "
                f"{' or '.join(self._before)} too, in every feature, {num_alike} of them with the "
                f"same target: the first have the keys {keys}; what is learnt by heart looks right "
                "there: keep copies in one split, or one of each"
            )
        self._features = pl.concat([self._features, features])
        self._wholes = pl.concat([self._wholes, wholes])
        self._before.append(split)


def _digests(arrays: Mapping[str, Array]) -> pl.Series:
    """A hash of the features of each row, of 64 bits."""
    hashes = []
    for kind, array in arrays.items():
        if kind in _APART:
            continue
        if array.ndim > 2:
            found = (hashlib.blake2b(row.tobytes(), digest_size=8).digest() for row in array)
            hashes.append(pl.Series(kind, map(int.from_bytes, found), pl.UInt64))
        else:
            hashes.append(pl.from_numpy(array).hash_rows().alias(kind))
    return pl.DataFrame(hashes).hash_rows()
