"""What prepare writes and the others read: schema, statistics, and the arrays of each split.

`schema.json` says what build needs (names, kinds, shapes, classes), `statistics.json` what
encoding and decoding need. Both are fitted on the train split alone, but for the list of classes.
"""

from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from stages.common.files import read_json, write_json

Array = npt.NDArray[np.generic]
FeatureKind = Literal["numeric", "boolean", "categorical", "image"]
Class = bool | int | str


class Record(BaseModel):
    """A part of a JSON file that a stage wrote."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Feature(Record):
    """One input column.

    `missing`: the train split has gaps in it, so a column of zeros and ones says where.
    `categories`: of a categorical column, as in train, sorted; code 0 is 'none of these'.
    `shape`: of an image, (channels, height, width); `layout` says how its rows hold it.
    """

    name: str
    kind: FeatureKind
    missing: bool = False
    categories: list[str] | None = None
    shape: list[int] | None = None
    layout: Literal["HW", "CHW", "HWC"] | None = None


class Target(Record):
    """The column to predict; `classes` in code order for classification."""

    name: str
    task: Literal["regression", "classification"]
    classes: list[Class] | None = None


class Schema(Record):
    """All columns that matter. `key` names the column of row keys; None: the row's number."""

    key: str | None
    features: list[Feature]
    target: Target

    def of_kind(self, kind: FeatureKind) -> list[Feature]:
        """The features of one kind, in column order."""
        return [feature for feature in self.features if feature.kind == kind]

    def inputs(self) -> dict[str, list[int]]:
        """What a model is given: for each kind of tensor in a batch, its shape without rows.

        `categorical` is the exception: the number of codes of each column, since its shape is
        their count.
        """
        inputs: dict[str, list[int]] = {}
        if numeric := self.of_kind("numeric"):
            inputs["numeric"] = [len(numeric) + sum(f.missing for f in numeric)]
        if boolean := self.of_kind("boolean"):
            inputs["boolean"] = [len(boolean) + sum(f.missing for f in boolean)]
        if categorical := self.of_kind("categorical"):
            inputs["categorical"] = [len(f.categories or []) + 1 for f in categorical]
        for image in self.of_kind("image"):
            inputs["image"] = list(image.shape or [])
        return inputs

    def num_outputs(self) -> int:
        """A score for each class, or one value."""
        return len(self.target.classes) if self.target.classes is not None else 1


class Moments(Record):
    """Mean and standard deviation over the train split; a constant column has deviation 1."""

    mean: float
    deviation: float
    constant: bool = False


class Statistics(Record):
    """What normalisation needs. `image` has one entry a channel; `target` is for regression."""

    numeric: dict[str, Moments]
    image: list[Moments]
    target: Moments | None


def write_record(path: Path, record: Record) -> None:
    """Write a record as JSON."""
    write_json(path, record.model_dump(exclude_defaults=True))


def read_schema(folder: Path) -> Schema:
    """`schema.json` in `folder`."""
    return Schema.model_validate(read_json(folder / "schema.json"))


def read_statistics(folder: Path) -> Statistics:
    """`statistics.json` in `folder`."""
    return Statistics.model_validate(read_json(folder / "statistics.json"))


def load_arrays(folder: Path) -> dict[str, Array]:
    """The arrays of a split, memory-mapped and read-only."""
    files = sorted(folder.glob("*.npy"))
    return {file.stem: np.load(file, mmap_mode="r", allow_pickle=False) for file in files}
