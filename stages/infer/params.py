"""The section `infer` of `params.yaml`."""

from typing import Literal

from pydantic import field_validator

from stages.common.config import Config
from stages.formats.suffixes import TableFile

Export = Literal["onnx", "program"]


class InferParams(Config):
    """Which rows to predict, and in which forms the model goes out."""

    input: TableFile | None
    """The new rows to predict: a file or a folder, as `prepare.source`, without the target;
    null: the test rows without their target.
    """
    export: list[Export]
    """In which forms the model goes out: `onnx` for `model.onnx`, `program` for `model.pt2` of
    `torch.export`; `[]`: in none. What is left out is written empty.
    """

    @field_validator("export")
    @classmethod
    def _each_once(cls, names: list[Export]) -> list[Export]:
        if len(set(names)) < len(names):
            raise ValueError("it names one more than once")
        return names
