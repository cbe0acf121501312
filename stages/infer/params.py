"""The section `infer` of `params.yaml`."""

from typing import Literal

from pydantic import field_validator

from stages.common.config import Section
from stages.formats.suffixes import TableFile

Export = Literal["onnx", "program"]


class InferParams(Section):
    """The new rows: one file, as `prepare.source`, without the target; and how the model goes out.

    `input`: null predicts the rows of the test split, as prepare leaves them without their target.
    `export`: 'onnx' for `model.onnx`, 'program' for `model.pt2` of `torch.export`.
    """

    input: TableFile | None
    export: list[Export]

    @field_validator("export")
    @classmethod
    def _each_once(cls, names: list[Export]) -> list[Export]:
        if len(set(names)) < len(names):
            raise ValueError("it names one more than once")
        return names
