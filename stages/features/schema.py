"""Files that prepare writes and the others read: schema, statistics, and the arrays of each split.

`schema.json` says what build needs (names, kinds, shapes, classes), `statistics.json` what
encoding and decoding need. Both are fitted on the train split alone, except the list of classes.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from stages.common.files import read_json, write_json

Array = npt.NDArray[np.generic]
# In the order of a batch's tensors. Each is a file of `stages/features/kinds`.
FeatureKind = Literal["numeric", "boolean", "categorical", "datetime", "image", "text"]
KINDS: tuple[FeatureKind, ...] = get_args(FeatureKind)
# Kinds whose tensor holds a code for each column (int64, 0 for 'none of these'), not numbers.
CODES: tuple[str, ...] = ("categorical",)
# Kinds whose tensor holds a code for each word of a column, one after the other (int64, 0 behind
# the last one).
WORDS: tuple[str, ...] = ("text",)
# The arrays of a split that no model is given: what it is compared with, what names the rows, how
# much each counts, where the source says so, and of rows that belong together the group (int64).
APART = ("target", "key", "weight", "group")
Class = bool | int | str
Cycle = Literal["year", "week", "day"]


class Record(BaseModel):
    """A part of a JSON file that a stage wrote."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Decode(Record):
    """The way from files of images to a column.

    `resize`: each is brought to the column's shape; else one of another size is refused. `depth`:
    the bits that images of 16 bits use, over the whole data set.
    """

    resize: bool = False
    depth: int = 16


class Scale(Record):
    """The mean and deviation that images are brought to, of each channel.

    Both are shares of the largest value; of images of floats, they are in these. `said`: they stand
    in `prepare.normalize`.
    """

    mean: list[float]
    std: list[float]
    said: bool = False


class Feature(Record):
    """One input column.

    `missing`: the train split has gaps in it, so a column of zeros and ones says where, or of a
    categorical column a code of their own, behind that of the last category.
    `categories`: of a categorical column, as in train, sorted; code 0 is 'none of these'.
    `shape`: of an image, (channels, height, width); `layout` says how its rows hold it.
    `words`: of a text column, those that stand in two train rows or more, the most frequent first;
    code 1 is 'none of these', 2 the first of them.
    `tokenizer`: of a text column that a pretrained model's tokenizer cuts, its `tokenizer.json`
    with the number of places; a code is the id of one of `num_tokens` tokens plus 1. `places`: the
    most that a text may have, where it is said.
    `format`: of a datetime column whose texts are not those of ISO 8601; `zone`: its values have
    one, or offsets from UTC; `cycles`: those of which it has the place; `calendar`: the places are
    all that it has, and the time is left out.
    `scale`: of an image that is not standardised by the train rows.
    `decode`: of an image that prepare read from files; None: from arrays. `eight_bit`: its values
    are whole numbers from 0 to 255, as those of a file are.
    `width`: the numbers that a value becomes in the array of its kind.
    `missing_words`: texts and numbers that stand for a gap.
    `decimal`, `thousands`: the signs in texts of its numbers; null: as in 1234.5. `unit`: the text
    before or behind each.
    """

    name: str
    kind: FeatureKind
    missing: bool = False
    categories: list[str] | None = None
    words: list[str] | None = None
    tokenizer: str | None = None
    num_tokens: int = 0
    places: int | None = None
    format: str | None = None
    zone: str | None = None
    cycles: list[Cycle] | None = None
    calendar: bool = False
    shape: list[int] | None = None
    layout: Literal["HW", "CHW", "HWC"] | None = None
    scale: Scale | None = None
    decode: Decode | None = None
    eight_bit: bool = True
    width: int = 1
    missing_words: list[str] | None = None
    decimal: str | None = None
    thousands: str | None = None
    unit: str | None = None

    @property
    def is_array(self) -> bool:
        """Check whether a row of it is an array, and it has the tensor of its kind for itself."""
        return self.shape is not None

    @property
    def num_codes(self) -> int:
        """The number of codes of a text column, with that of none."""
        return len(self.words or []) + 2 if self.tokenizer is None else self.num_tokens + 1

    @property
    def gap_code(self) -> int:
        """The code of a gap in a categorical column: 0 where train has none."""
        return len(self.categories or []) + 1 if self.missing else 0


@dataclass(frozen=True)
class Place:
    """The places of a column in the array (rows, values) of its kind.

    `gap` is that of the zeros and ones which say where it is empty; they stand behind the values
    of all columns. None: train has no gaps in it.
    """

    values: slice
    gap: int | None

    @property
    def all(self) -> list[int]:
        """Each of them."""
        values = list(range(self.values.start, self.values.stop))
        return values if self.gap is None else [*values, self.gap]


class Target(Record):
    """The column to predict; `classes` in code order for classification."""

    name: str
    task: Literal["regression", "classification"]
    classes: list[Class] | None = None


class Schema(Record):
    """All columns that matter. `key` names the column of row keys; None: the row's number.

    `headerless`: of a table whose columns are column_1, column_2, …, how many there are.
    `weight` names the column of row weights; None: all count the same. `ordered`: rows follow one
    another in time, and the later splits have the later ones.
    """

    key: str | None
    features: list[Feature]
    target: Target
    headerless: int | None = None
    weight: str | None = None
    ordered: bool = False

    def of_kind(self, kind: FeatureKind) -> list[Feature]:
        """The features of one kind, in column order."""
        return [feature for feature in self.features if feature.kind == kind]

    def inputs(self) -> dict[str, list[int]]:
        """The shape of each kind of tensor in a batch, without rows.

        Kinds in CODES are the exception: the number of codes of each column, since the shape is
        their count. Of kinds in WORDS it is, for each column, its places and its number of codes.
        """
        inputs: dict[str, list[int]] = {}
        for kind in KINDS:
            features = self.of_kind(kind)
            if not features:
                continue
            if kind in CODES:
                inputs[kind] = [len(f.categories or []) + 1 + f.missing for f in features]
            elif kind in WORDS:
                inputs[kind] = [n for f in features for n in (f.width, f.num_codes)]
            elif features[0].is_array:
                inputs[kind] = list(features[0].shape or [])
            else:
                inputs[kind] = [sum(f.width + f.missing for f in features)]
        return inputs

    def places(self) -> dict[str, "Place"]:
        """The place of each column that is no array in the array of its kind, by its name."""
        places = {}
        for kind in KINDS:
            features = [feature for feature in self.of_kind(kind) if not feature.is_array]
            start, gap = 0, sum(feature.width for feature in features)
            for feature in features:
                end = start + feature.width
                has_flag = feature.missing and kind not in CODES
                places[feature.name] = Place(slice(start, end), gap if has_flag else None)
                start, gap = end, gap + has_flag
        return places

    def num_outputs(self) -> int:
        """A score for each class, or one value."""
        return len(self.target.classes) if self.target.classes is not None else 1


TargetTransform = Literal["log1p"]


class Moments(Record):
    """Mean and standard deviation over the train split; a constant column has deviation 1.

    Of a target with a `transform` they are those of the transformed values.
    """

    mean: float
    deviation: float
    constant: bool = False
    transform: TargetTransform | None = None


class Statistics(Record):
    """Means and deviations for normalisation. `image` has one entry a channel; `target` is for
    regression.

    `numeric` has one entry for each other column of which a kind keeps moments, `wide` several for
    a column that becomes several numbers, and for images that are brought to another scale than
    that of the train rows.
    """

    numeric: dict[str, Moments]
    image: list[Moments]
    target: Moments | None
    wide: dict[str, list[Moments]] = {}

    def of(self, feature: Feature) -> list[Moments]:
        """Those of a feature: one, one a channel or a number, or none."""
        if feature.name in self.wide:
            return self.wide[feature.name]
        if feature.is_array:
            return self.image
        return [self.numeric[feature.name]] if feature.name in self.numeric else []


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
