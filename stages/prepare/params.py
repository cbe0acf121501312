"""The section `prepare` of `params.yaml`."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from stages.common.config import Section, Seed
from stages.features.schema import FeatureKind
from stages.formats.suffixes import TableFile

Kind = Literal[FeatureKind, "exclude"]
Task = Literal["auto", "regression", "classification"]
Share = Annotated[float, Field(gt=0, lt=1)]


class Column(Section):
    """Settings of one column; what is null is as found."""

    kind: Kind | None = None
    """The kind of the column; `exclude`: no part of what is learned from."""


class Split(Section):
    """The division of the rows. Which rows is decided by `seed` and each row's key alone."""

    seed: Seed
    """Which rows go where; another seed moves them."""
    validation: Share
    """The share of the rows that choose: the best epoch, the best trial, the calibration."""
    test: Share
    """The share of the rows that evaluate judges by."""

    @model_validator(mode="after")
    def _leave_rows_to_train_on(self) -> Self:
        if self.validation + self.test >= 1:
            raise ValueError(
                f"validation ({self.validation}) and test ({self.test}) leave no rows to train on"
            )
        return self


class PrepareParams(Section):
    """The source, the target and the split."""

    source: TableFile
    """The file with the rows, such as `data/raw/houses.csv`, or a folder of images with a folder
    for each class.
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
    columns: dict[str, Kind | Column]
    """The kind of a column where what is found is wrong, such as `{zip: categorical, name:
    exclude}`; `{}`: as found.
    """
    split: Split
    """The division of the rows into train, validation and test."""
    expectations: Annotated[str, Field(min_length=1)] | None
    """A file of what the table must be like, such as `data/raw/digits.expectations.yaml`; null:
    nothing is expected.
    """

    def column(self, name: str) -> Column:
        """Return what is said of a column, be it in one word or not at all."""
        said = self.columns.get(name, Column())
        return said if isinstance(said, Column) else Column(kind=said)
