"""The section `prepare` of `params.yaml`."""

from itertools import chain
from typing import Annotated, Literal, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from stages.common.config import Config, Seed
from stages.common.errors import Problem
from stages.features.schema import FeatureKind, TargetTransform
from stages.features.spelling import is_unit
from stages.features.times import pattern
from stages.formats.suffixes import TableFile

Kind = Literal[FeatureKind, "exclude"]
Task = Literal["auto", "regression", "classification"]
Side = Annotated[int, Field(ge=1, le=4096)]
MAX_PLACES = 8192
Share = Annotated[float, Field(gt=0, lt=1)]


class Column(Config):
    """Settings of one column; what is null is as found."""

    kind: Kind | None = None
    """The kind of the column; `exclude`: no part of what is learned from."""
    missing: list[str | int | float] | None = None
    """Texts and numbers that stand for 'no value', such as `['?', -999]`; null: those of
    `prepare.missing`.
    """
    decimal: Literal[".", ","] | None = None
    """The decimal sign of its numbers; null: as found."""
    thousands: Literal[",", ".", " ", "'"] | None = None
    """The sign between the thousands of its numbers, as in `1,234.5`; null: as found."""
    unit: Annotated[str, Field(min_length=1)] | None = None
    """A text before or behind each of its numbers, such as `€` or `km`, with or without a blank
    between them, or on both sides, `$…/mo`; it is taken away. null: there is none.
    """
    format: str | None = None
    """The format of the dates in a datetime column, such as `'%d/%m/%Y'`; null: as found."""
    calendar: bool = False
    """`true`: of dates the places in the year, the week and the day alone are learned from, and not
    how late they are; for the column of `prepare.structure.time`, whose later rows lie beyond all
    that training has.
    """
    places: Annotated[int, Field(ge=1, le=MAX_PLACES)] | None = None
    """The most words or tokens of a text that are kept, such as 128; null: 512. Fewer where 99 % of
    the train rows have fewer.
    """

    @property
    def has_signs(self) -> bool:
        """Check whether it is said how its numbers are written."""
        return any(sign is not None for sign in (self.decimal, self.thousands, self.unit))

    @property
    def named_kind(self) -> Kind | None:
        """The kind that it says; null: as found."""
        return "datetime" if self.calendar else self.kind

    @field_validator("places")
    @classmethod
    def _check_places(cls, places: int | None, before: ValidationInfo) -> int | None:
        """Refuse it beside a key that makes another kind of the column."""
        said = before.data
        kind = said.get("kind")
        if places is not None and kind not in (None, "text"):
            raise ValueError(f"places are for texts, and kind is {kind}")
        others = [key for key in ("decimal", "thousands", "unit") if said.get(key) is not None]
        dates = [key for key in ("format", "calendar") if said.get(key) not in (None, False)]
        if places is not None and (others or dates):
            what = f"{others[0]} is for numbers" if others else f"{dates[0]} is for dates"
            raise ValueError(f"places are for texts, and {what}")
        return places

    @model_validator(mode="after")
    def _check_signs(self) -> Self:
        names = ("decimal", "thousands", "unit")
        signs = [name for name in names if getattr(self, name) is not None]
        if signs and self.kind not in (None, "numeric"):
            raise ValueError(f"{signs[0]} is for numbers, and kind is {self.kind}")
        if self.decimal is not None and self.decimal == self.thousands:
            raise ValueError(f"decimal and thousands are both '{self.decimal}'")
        if signs and self.format is not None:
            raise ValueError(f"{signs[0]} is for numbers, and format is for dates")
        return self

    @model_validator(mode="after")
    def _check_unit(self) -> Self:
        if self.unit is not None and not is_unit(self.unit):
            raise ValueError(
                f"the unit '{self.unit}' must neither begin nor end with a blank, a digit or a "
                "sign of numbers"
            )
        return self

    @model_validator(mode="after")
    def _check_format(self) -> Self:
        if self.format is not None:
            if self.kind not in (None, "datetime"):
                raise ValueError(f"a format is for the kind datetime, and this is {self.kind}")
            pattern(self.format)
        if self.calendar and (self.kind not in (None, "datetime") or self.has_signs):
            raise ValueError("calendar is for dates, and this is " + (self.kind or "numeric"))
        return self


class Structure(Config):
    """Ties between the rows, which no division of them may cut."""

    group: str | None = None
    """A column such as `patient`: rows of one value stay in one split."""
    time: str | None = None
    """A column such as `day`: validation rows are later than train rows, test rows the latest."""

    @model_validator(mode="after")
    def _tie_something(self) -> Self:
        if self.group is None and self.time is None:
            raise ValueError("a structure names a group, a time or both; null: there is none")
        return self


class Split(Config):
    """The division of the rows. Which rows is decided by `seed` and each row's key alone."""

    seed: Seed
    """Which rows go where; another seed moves them."""
    validation: Share
    """The share of the rows that choose: the best epoch, the best trial, the calibration."""
    test: Share
    """The share of the rows that evaluate judges by."""
    column: str | None = None
    """A column that says of each row whether it is of `train`, `validation` or `test`, such as
    `split` of a folder of images with `train/` and `test/`; where no row is of `validation` or
    `test`, a share of the train rows is. null: rows are drawn.
    """

    @model_validator(mode="after")
    def _leave_rows_to_train_on(self) -> Self:
        if self.validation + self.test >= 1:
            raise ValueError(
                f"validation ({self.validation}) and test ({self.test}) leave no rows to train on"
            )
        return self


class ImageSize(Config):
    """The size of every image, in pixels."""

    height: Side
    """From top to bottom, such as 64."""
    width: Side
    """From left to right."""


class Normalize(Config):
    """The scale that images are brought to, a number for each channel."""

    mean: Annotated[list[float], Field(min_length=1)]
    """The value that becomes 0, as a share of the largest one: `[0.485, 0.456, 0.406]`."""
    std: Annotated[list[Annotated[float, Field(gt=0)]], Field(min_length=1)]
    """The distance from it that becomes 1: `[0.229, 0.224, 0.225]`."""


class PrepareParams(Config):
    """The source, the target and the split."""

    source: TableFile
    """The file with the rows, such as `data/raw/houses.csv`, or a folder: of such files, or of
    images with a folder for each class, with a table of their paths called `manifest.csv`, or as
    IDX files. Or the address of one in object storage, such as `s3://bucket/houses.csv`.
    """
    key: str | None
    """The column that names each row, such as `id`; of a folder of images `path`; null: the
    row's number.
    """
    target: str
    """The column to predict, such as `price`; of a folder of images `label`."""
    task: Task
    """The kind of prediction: a number or a class. `auto` goes by the target's type and values, and
    says what it took.
    """
    target_transform: TargetTransform | None
    """The number that is learned of a target of values: `log1p`, the logarithm of 1 plus the value,
    of one whose large values lie far from the others, such as a price; all must be above -1.
    Predictions, metrics and intervals are in the target's own units. null: the value itself.
    """
    columns: dict[str, Kind | Column]
    """The kind of a column where what is found is wrong, such as `{zip: categorical, name:
    exclude}`; `{}`: as found.
    """
    missing: list[str | int | float]
    """Texts and numbers that stand for 'no value' in every column, such as `['?', NA]`, beside the
    empty field.
    """
    drop_missing_target: bool
    """`true`: rows without a target are left out, and counted; `false`: they are an error."""
    weight: str | None
    """A column of numbers that say how much a row counts, in the loss and in the metrics, such as
    `people`: 2 is the row twice, 0 is none of it. It is not learned from. null: all the same.
    """
    duplicates: Literal["warn", "together", "first"]
    """Rows that are equal in every feature. `warn`: those in two splits are counted and told.
    `together`: they are in one split. `first`: of those with an equal target too the first stays,
    and `rejected.csv` has the others.
    """
    image: ImageSize | None
    """The size that image files are brought to, such as `{height: 64, width: 64}`: cut to its shape
    around the middle, and scaled; null: all are of one size.
    """
    normalize: Normalize | None
    """The scale of images that pretrained weights were trained with, such as `{mean: [0.485, 0.456,
    0.406], std: [0.229, 0.224, 0.225]}`, as torchvision's Normalize takes it; null: that of
    `prepare.pretrained`, or of the train rows.
    """
    pretrained: Annotated[str, Field(min_length=1)] | None
    """A folder of a model from Hugging Face that the rows are prepared for, such as
    `data/raw/bert`: its `tokenizer.json` cuts texts, and images have the scale that its
    `preprocessor_config.json` says; null: words and scale are those of the train rows.
    """
    structure: Structure | None
    """Ties between the rows, such as `{group: patient}` or `{time: day}`; null: rows are
    independent of each other.
    """
    split: Split
    """The division of the rows into train, validation and test."""
    expectations: Annotated[str, Field(min_length=1)] | None
    """A file of what the table must be like, such as `data/raw/digits.expectations.yaml`; null:
    nothing is expected.
    """

    @property
    def ordered(self) -> bool:
        """Check whether the rows follow one another in time."""
        return self.structure is not None and self.structure.time is not None

    def ties(self) -> dict[str, str]:
        """Return the columns that divide the rows, by the key that names each."""
        tie = self.structure or Structure.model_construct()
        named = {
            "prepare.structure.group": tie.group,
            "prepare.structure.time": tie.time,
            "prepare.split.column": self.split.column,
        }
        return {key: name for key, name in named.items() if name is not None}

    def names_by_key(self) -> dict[str, str]:
        """Return the columns that it names, by the key that names each."""
        named = {"prepare.target": self.target}
        named |= {} if self.key is None else {"prepare.key": self.key}
        named |= {f"prepare.columns.{name}": name for name in self.columns}
        named |= self.ties()
        return named | ({} if self.weight is None else {"prepare.weight": self.weight})

    @property
    def named(self) -> list[str]:
        """The columns that it names: the target, the key, and those with settings."""
        return list(self.names_by_key().values())

    def find_conflicts(self) -> list[Problem]:
        """Mistakes in keys that exclude each other, by their values alone."""
        problems = self._check_weight()
        if self.duplicates == "together" and self.structure is not None and self.structure.time:
            message = (
                "the time says which split a row is of, so equal rows of two times can't be kept "
                "together"
            )
            at = "prepare.duplicates"
            problems.append(Problem(message, at, "together", ("warn", "first")))
        return problems

    def _check_weight(self) -> list[Problem]:
        name, at = self.weight, "prepare.weight"
        if name is None:
            return []
        for key, other in (("target", self.target), ("key", self.key)):
            if name == other:
                return [Problem(f"the {key} can't be the weight", at, name)]
        said = self.column(name)
        if said.named_kind is None:
            return []
        what, end = ("calendar", ".calendar") if said.kind is None else ("kind", "")
        message = f"'{name}' is the weight, which is not learned from: leave its {what} out"
        return [Problem(message, f"prepare.columns.{name}{end}", said.kind or "true")]

    @property
    def calendars(self) -> list[str]:
        """The columns of dates whose time is left out."""
        return [name for name in self.columns if self.column(name).calendar]

    @property
    def words(self) -> list[str]:
        """The words that stand for gaps in some column."""
        said = (self.column(name).missing or [] for name in self.columns)
        return [str(word) for word in (*self.missing, *chain.from_iterable(said))]

    def column(self, name: str) -> Column:
        """The settings of a column, be they one word or none."""
        said = self.columns.get(name, Column())
        return said if isinstance(said, Column) else Column(kind=said)
