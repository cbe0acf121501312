"""Schemas, the models of them, and rows that the models are given."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from stages.common.config import ClassSpec
from stages.common.errors import Problem, UserError
from stages.features.schema import Feature, Schema, Target
from stages.model.model import ModelSpec, make_model, make_spec

TARGET = Target(name="y", task="classification", classes=["a", "b", "c"])
TABULAR = Schema(
    key=None,
    features=[
        Feature(name="size", kind="numeric", missing=True),
        Feature(name="age", kind="numeric"),
        Feature(name="smoker", kind="boolean"),
        Feature(name="town", kind="categorical", categories=["Bergen", "Oslo"]),
        Feature(name="job", kind="categorical", categories=["cook", "judge", "smith"]),
    ],
    target=TARGET,
)
IMAGES = Schema(
    key=None,
    features=[Feature(name="image", kind="image", shape=[1, 8, 8], layout="HW")],
    target=Target(name="y", task="classification", classes=list(range(10))),
)
# `width` is the places of a text's words.
TEXTS = Schema(
    key=None,
    features=[
        Feature(name="title", kind="text", words=["the", "oslo"], width=3),
        Feature(name="body", kind="text", words=["a", "b", "c"], width=5),
    ],
    target=TARGET,
)
MIXED = Schema(key=None, features=[*TEXTS.features, *TABULAR.features], target=TARGET)
MODELS: list[tuple[dict[str, Any], Schema]] = [
    ({"name": "linear"}, TABULAR),
    ({"name": "linear"}, IMAGES),
    ({"name": "mlp", "width": 16, "layers": 2, "dropout": 0.5}, TABULAR),
    ({"name": "mlp", "width": 16}, IMAGES),
    ({"name": "linear"}, TEXTS),
    ({"name": "linear"}, MIXED),
    ({"name": "mlp", "width": 16}, TEXTS),
    ({"name": "mlp", "width": 16}, MIXED),
    ({"name": "cnn", "channels": [4, 6], "width": 8}, IMAGES),
    ({"name": "cnn", "channels": [16], "width": 8, "dropout": 0.5}, IMAGES),
]


def spec_of(named: dict[str, Any], schema: Schema = TABULAR) -> ModelSpec:
    return make_spec(ClassSpec.model_validate(named), schema)


def problem(named: dict[str, Any], schema: Schema = TABULAR) -> Problem:
    with pytest.raises(UserError) as caught:
        make_model(spec_of(named, schema), seed=0)
    (only,) = caught.value.problems
    return only


def some_weights(model: nn.Module) -> nn.Module:
    """The model at weights that leave nothing zero: linear starts there."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(generator=generator)
    return model.eval()


def rows_of(schema: Schema, num_rows: int = 5) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    if schema is IMAGES:
        return {"image": torch.randn(num_rows, 1, 8, 8, generator=generator)}
    words = [torch.randint(k, (num_rows, n), generator=generator) for n, k in ((3, 4), (5, 5))]
    texts = {"text": torch.cat(words, dim=1)}
    if schema is TEXTS:
        return texts
    return (texts if schema is MIXED else {}) | {
        "numeric": torch.randn(num_rows, 3, generator=generator),
        "boolean": torch.randint(2, (num_rows, 1), generator=generator).float(),
        "categorical": torch.stack([torch.arange(num_rows) % 3, torch.arange(num_rows) % 4], 1),
    }


NUMBERS = Schema(
    key=None, features=[Feature(name=name, kind="numeric") for name in "abc"], target=TARGET
)
SPEC = ModelSpec(name="mine", arguments={}, inputs=NUMBERS.inputs(), num_outputs=3)
