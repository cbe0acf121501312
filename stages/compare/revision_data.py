"""A revision's prepared data, from wherever its files lie, such as DVC's cache."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stages.common.files import read_json
from stages.features.schema import Array, Schema, Statistics

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Side:
    """The prepared data of a revision; `splits` holds the arrays of those that are there."""

    schema: Schema
    statistics: Statistics
    splits: Mapping[str, Mapping[str, Array]]

    @property
    def train(self) -> Mapping[str, Array]:
        """The arrays of the train split."""
        return self.splits["train"]


def load_side(files: Mapping[str, Any]) -> Side:
    """A side from the paths of its files, in DVC's cache say; arrays are memory-mapped."""
    splits = {
        split: {
            name.removesuffix(".npy"): np.load(path, mmap_mode="r", allow_pickle=False)
            for name, path in files[split].items()
            if name.endswith(".npy")
        }
        for split in SPLITS
    }
    schema = Schema.model_validate(read_json(Path(files["schema.json"])))
    return Side(
        schema, Statistics.model_validate(read_json(Path(files["statistics.json"]))), splits
    )
