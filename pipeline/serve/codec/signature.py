"""`signature.json` on `model.onnx`: its inputs by column, its outputs, its hashes."""

import math
from functools import cached_property
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from stages.common.errors import UserError
from stages.common.yamlfile import yaml_text
from stages.features.kind import ARRAY, kind_of
from stages.features.schema import WORDS, Decode, FeatureKind


class _Part(BaseModel):
    # With a mean of NaN no value would fit, and every request be refused.
    model_config = ConfigDict(extra="ignore", strict=True, frozen=True, allow_inf_nan=False)


Size = Annotated[int, Field(gt=0)]
# Of a request's images: a small file may hold any number of pixels.
MAX_VALUES = 1 << 26


class Input(_Part):
    """An input of the graph, which is one raw column; `shape` begins with 'rows'.

    `name` is what the graph calls it (`c0`, `c1`, …), `column` what everybody else does.
    `mean` and `deviation` are those of training, of a number or of an image's numbers; `decode`
    and `eight_bit` say what of an image's file training had. `tokenizer` cuts a text into tokens.
    `missing_words` stand for a gap; `decimal` and `thousands` are the signs in texts of numbers,
    `unit` stands before or behind them, or on both sides.
    """

    name: str
    column: str
    kind: FeatureKind
    shape: Annotated[list[Size | str], Field(min_length=1)]
    categories: list[str] = []
    words: list[str] = []
    tokenizer: str | None = None
    num_tokens: int = 0
    format: str | None = None
    zone: str | None = None
    mean: float | None = None
    deviation: Annotated[float, Field(ge=0)] | None = None
    missing_words: list[str] = []
    decimal: Literal[".", ","] | None = None
    thousands: Literal[",", ".", " ", "'"] | None = None
    unit: Annotated[str, Field(min_length=1)] | None = None
    decode: Decode | None = None
    eight_bit: bool = True

    @property
    def row_shape(self) -> tuple[int, ...]:
        """The shape of one row's value; () of a column of single values."""
        return tuple(int(size) for size in self.shape[1:])

    @model_validator(mode="after")
    def _check_shape(self) -> "Input":
        if not all(isinstance(size, int) for size in self.shape[1:]):
            raise ValueError("shape must be 'rows' and then whole numbers")
        shaped = kind_of(self.kind).TYPE == ARRAY or self.kind in WORDS
        if shaped != (len(self.shape) > 1):
            raise ValueError("an image and a text have a shape, and nothing else has one")
        return self


class Output(_Part):
    """An output of the graph; `type` is float64, int64, bool or string."""

    name: str
    type: Literal["float64", "int64", "bool", "string"]
    shape: list[int | str]


class Signature(_Part):
    """The whole file. `model_md5` names the trained weights, `onnx_md5` the file beside this one.

    `key` is the column that names a row, if there is one; `classes` are in the order of the
    probabilities, None for a regression.
    """

    model_md5: str
    onnx_md5: str
    task: Literal["regression", "classification"]
    target: str
    key: str | None
    classes: list[bool | int | str] | None
    inputs: list[Input]
    outputs: list[Output]

    @model_validator(mode="after")
    def _check_names(self) -> "Signature":
        for names in ([each.name for each in self.inputs], [each.column for each in self.inputs]):
            if len(set(names)) < len(names):
                raise ValueError("two inputs have one name")
        known = ("prediction",) if self.classes is None else ("prediction", "probabilities")
        of_sets = ("low", "high") if self.classes is None else ("in_set",)
        if tuple(each.name for each in self.outputs) not in (known, known + of_sets):
            raise ValueError(f"the outputs of a {self.task} have other names")
        return self

    @cached_property
    def image_columns(self) -> tuple[str, ...]:
        """The columns of which a value may be the bytes of an image."""
        return tuple(each.column for each in self.inputs if each.kind == "image")

    @cached_property
    def max_images(self) -> int | None:
        """The rows that a request may have for the numbers of its images; None without images."""
        num_values = sum(math.prod(each.row_shape) for each in self.inputs if each.row_shape)
        return max(1, MAX_VALUES // num_values) if self.image_columns else None

    @property
    def class_names(self) -> list[str]:
        """The classes as texts, as the columns of `predictions.parquet` have them."""
        return [yaml_text(value) for value in self.classes or []]


def parse_signature(content: bytes) -> Signature:
    """The signature in a file's bytes. Raises UserError when they are not one."""
    try:
        return Signature.model_validate_json(content)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        what = f"'{place}': {first['msg']}" if place else str(first["msg"])
        raise UserError(
            f"signature.json is not what this version of the stage writes: {what[:200]}\n"
            "  'dvc repro infer' writes it anew"
        ) from None


def example_row(signature: Signature) -> dict[str, object]:
    """A row that the model takes, by column: means of training, a first category, an even image.

    No row of anybody's data: whoever may see the page need not be one who may see the data.
    """
    return {each.column: kind_of(each.kind).example(each) for each in signature.inputs}
