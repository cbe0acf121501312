"""The section `prepare` of `params.yaml`."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from stages.common.config import Section, Seed
from stages.formats.suffixes import TableFile

Kind = Literal["numeric", "boolean", "categorical", "image", "exclude"]
Task = Literal["auto", "regression", "classification"]
Share = Annotated[float, Field(gt=0, lt=1)]


class Split(Section):
    """How rows are divided. Which rows is decided by `seed` and each row's key alone."""

    seed: Seed
    validation: Share
    test: Share

    @model_validator(mode="after")
    def _leave_rows_to_train_on(self) -> Self:
        if self.validation + self.test >= 1:
            raise ValueError(
                f"validation ({self.validation}) and test ({self.test}) leave no rows to train on"
            )
        return self


class PrepareParams(Section):
    """What to read, what to predict, how to split.

    `expectations`: a file of what the table must be like; null: nothing is expected of it.
    """

    source: TableFile
    key: str | None
    target: str
    task: Task
    columns: dict[str, Kind]
    split: Split
    expectations: Annotated[str, Field(min_length=1)] | None
