"""Models as they are made, proved, saved and refused."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from stages.build.summary import check_gradients
from stages.common.errors import UserError
from stages.features.schema import Schema
from stages.model.model import load_model, make_model, save_model
from tests.support.stages.models import (
    IMAGES,
    MODELS,
    SPEC,
    problem,
    rows_of,
    some_weights,
    spec_of,
)
from tests.support.zoo import FILES as MODELS_OF_ZOO


@pytest.mark.parametrize(
    ("named", "key", "suggestion"),
    [
        ({"name": "mpl"}, "build.model.name", "mlp"),
        ({"name": "mlp", "widht": 3}, "build.model.widht", "width"),
        ({"name": "linear", "width": 3}, "build.model.width", None),
        ({"name": "mlp", "width": 0}, "build.model.width", None),
        ({"name": "mlp", "width": 3.5}, "build.model.width", None),
        ({"name": "mlp", "width": "3"}, "build.model.width", None),
        ({"name": "mlp", "dropout": 1.0}, "build.model.dropout", None),
        ({"name": "mlp", "dropout": -0.1}, "build.model.dropout", None),
        ({"name": "cnn", "channels": []}, "build.model.channels", None),
        ({"name": "cnn", "channels": [4, 0]}, "build.model.channels.1", None),
    ],
)
def test_arguments_are_checked(named: dict[str, Any], key: str, suggestion: str | None) -> None:
    found = problem(named, IMAGES)
    assert (found.key, found.suggestion) == (key, suggestion)


def test_an_unknown_model_is_told_with_those_of_the_zoo() -> None:
    assert problem({"name": "densenet"}).allowed == tuple(MODELS_OF_ZOO)


def test_cnn_takes_images_alone() -> None:
    found = problem({"name": "cnn"})
    assert "numeric, boolean, categorical" in found.message
    assert found.allowed == ("tabm", "realmlp", "linear", "mlp")


def test_a_spec_spells_all_arguments_out() -> None:
    assert spec_of({"name": "mlp", "width": 7}).arguments == {
        "width": 7,
        "layers": 1,
        "dropout": 0.0,
    }


@pytest.mark.parametrize("name", ["mlp", "cnn"])
def test_the_seed_alone_decides_the_weights(name: str) -> None:
    spec = spec_of({"name": name}, IMAGES)
    torch.manual_seed(5)
    first = make_model(spec, seed=3).state_dict()
    torch.manual_seed(6)
    again, other = make_model(spec, seed=3).state_dict(), make_model(spec, seed=4).state_dict()
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first["output.weight"], other["output.weight"])


def test_making_a_model_leaves_other_randomness_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    model = make_model(spec_of({"name": "mlp"}), seed=3)
    check_gradients(model, spec_of({"name": "mlp"}), seed=3)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize(("named", "schema"), MODELS)
def test_a_saved_model_comes_back_and_is_saved_with_the_same_bytes(
    named: dict[str, Any], schema: Schema, tmp_path: Path
) -> None:
    spec = spec_of(named, schema)
    model = some_weights(make_model(spec, seed=0))
    for name in ("first", "reversed", "again"):
        (tmp_path / name).mkdir()
    weights = model.state_dict()
    save_model(tmp_path / "first", spec, weights, "model.safetensors")
    save_model(tmp_path / "reversed", spec, dict(reversed(weights.items())), "model.safetensors")
    loaded = load_model(tmp_path / "first")
    save_model(tmp_path / "again", spec, loaded.state_dict(), "model.safetensors")
    assert torch.equal(loaded(rows_of(schema)), model(rows_of(schema)))
    assert not loaded.training
    for file in ("model.json", "model.safetensors"):
        content = (tmp_path / "first" / file).read_bytes()
        assert (tmp_path / "again" / file).read_bytes() == content
        assert (tmp_path / "reversed" / file).read_bytes() == content


@pytest.mark.parametrize(("named", "schema"), MODELS)
def test_every_parameter_gets_a_gradient_and_keeps_its_value(
    named: dict[str, Any], schema: Schema
) -> None:
    spec = spec_of(named, schema)
    model = make_model(spec, seed=0)
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    check_gradients(model, spec, seed=0)
    assert all(torch.equal(before[name], weight) for name, weight in model.state_dict().items())
    assert all(weight.grad is None for weight in model.parameters())


class Sample(nn.Module):
    """A model of one's own: two layers, and what a test does to them."""

    def __init__(self, before: int = 3, after: int = 5, num_outputs: int = 3) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(before, 5), nn.ReLU())
        self.output = nn.Linear(after, num_outputs)

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        scores: Tensor = self.output(self.body(batch["numeric"]))
        return scores


class Unused(Sample):
    def __init__(self) -> None:
        super().__init__()
        self.spare = nn.Linear(2, 2)


class Constant(Sample):
    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        return torch.zeros(len(batch["numeric"]), 3)


class Writing(Sample):
    """It writes into its batch, which is no mixing of rows."""

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        return super().forward({"numeric": batch["numeric"].mul_(2)})


class Mixing(Sample):
    """It takes the softmax over the rows, a slip of one digit."""

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        return super().forward(batch).softmax(0)


class Broken(Sample):
    """What fails stands in the model's own code, after a layer that worked."""

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        hidden = self.body(batch["numeric"])
        scores: Tensor = self.output(hidden + torch.zeros(7))
        return scores


@pytest.mark.parametrize(
    ("model", "says"),
    [
        (Sample(before=4), "layer 'body.0' (Linear), which was given (2, 3)"),
        (Sample(after=6), "layer 'output' (Linear), which was given (2, 5)"),
        (Broken(), "layer 'mine' (Broken), which was given the batch"),
        (Sample(num_outputs=2), "the model returns (2, 2) for 2 rows; a tensor (2, 3) is needed"),
        (Mixing(), "a row alone has other scores (1, 1, 1) than beside another one"),
        (Unused(), "never get a gradient: spare.weight, spare.bias"),
        (Constant(), "never get a gradient: body.0.weight, body.0.bias, output.weight"),
    ],
)
def test_a_model_that_does_not_fit_is_told_with_its_layer(model: nn.Module, says: str) -> None:
    with pytest.raises(UserError) as caught:
        check_gradients(model, SPEC, seed=0)
    assert says in str(caught.value)
    assert str(caught.value.problems[0].key).startswith("build.model")
    # Nothing is left hanging on the model.
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_a_model_that_writes_into_its_batch_mixes_no_rows() -> None:
    check_gradients(Writing(), SPEC, seed=0)


def test_more_blocks_than_an_image_can_be_halved_are_an_error() -> None:
    spec = spec_of({"name": "cnn", "channels": [2, 2, 2, 2], "width": 4}, IMAGES)
    check_gradients(make_model(spec, seed=0), spec, seed=0)
    found = problem({"name": "cnn", "channels": [2, 2, 2, 2, 2], "width": 4}, IMAGES)
    assert found.key == "build.model.channels"
    assert "5 blocks leave nothing of 8×8" in found.message
