"""Models of the zoo: what they compute, and how they are made, proved, summed up and saved."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from polars.testing import assert_frame_equal
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from stages.build.summary import check_gradients, probe_batch, summarise
from stages.common.config import ClassSpec
from stages.common.errors import Problem, UserError
from stages.features.schema import Feature, Schema, Target
from stages.model.dropout import Dropout
from stages.model.model import ModelSpec, load_model, make_model, make_spec, save_model
from stages.model.predictor import load_predictor
from tests.conftest import ROOT
from tests.support.samples import mixed_table, run_stages, small_project
from tests.support.zoo import FILES as MODELS_OF_ZOO

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


@pytest.fixture(autouse=True)
def _in_the_project(monkeypatch: pytest.MonkeyPatch) -> None:
    """The zoo is looked up from the project's root, where every stage runs."""
    monkeypatch.chdir(ROOT)


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


def flat(batch: dict[str, Tensor]) -> Tensor:
    """The columns of TABULAR side by side, categories one-hot without their code 0."""
    town, job = batch["categorical"].T
    rows = len(town)
    hot = torch.zeros(rows, 5)
    for row in range(rows):
        if town[row]:
            hot[row, town[row] - 1] = 1
        if job[row]:
            hot[row, 2 + job[row] - 1] = 1
    return torch.cat([batch["numeric"], batch["boolean"], hot], dim=1)


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


@pytest.mark.parametrize(("named", "schema"), MODELS)
def test_a_model_returns_a_score_for_each_row_and_class(
    named: dict[str, Any], schema: Schema
) -> None:
    model = make_model(spec_of(named, schema), seed=0)
    assert model(rows_of(schema)).shape == (5, schema.num_outputs())


@pytest.mark.parametrize("name", ["linear", "mlp", "cnn"])
def test_a_model_of_a_value_returns_one_number_a_row(name: str) -> None:
    schema = IMAGES.model_copy(update={"target": Target(name="y", task="regression")})
    assert make_model(spec_of({"name": name}, schema), seed=0)(rows_of(IMAGES)).shape == (5, 1)


def test_linear_is_a_weighted_sum_of_all_columns() -> None:
    model = some_weights(make_model(spec_of({"name": "linear"}), seed=0))
    weights = model.state_dict()
    batch = rows_of(TABULAR)
    expected = flat(batch) @ weights["output.weight"].T + weights["output.bias"]
    torch.testing.assert_close(model(batch), expected)


def test_linear_starts_at_zero() -> None:
    model = make_model(spec_of({"name": "linear"}), seed=0)
    assert all((weight == 0).all() for weight in model.parameters())


def test_mlp_is_layers_with_relu_between_them() -> None:
    model = some_weights(make_model(spec_of({"name": "mlp", "width": 7, "layers": 2}), seed=0))
    w = model.state_dict()
    batch = rows_of(TABULAR)
    hidden = (flat(batch) @ w["hidden.0.weight"].T + w["hidden.0.bias"]).clamp(min=0)
    hidden = (hidden @ w["hidden.3.weight"].T + w["hidden.3.bias"]).clamp(min=0)
    expected = hidden @ w["output.weight"].T + w["output.bias"]
    torch.testing.assert_close(model(batch), expected)


def test_cnn_is_blocks_of_convolution_norm_relu_and_pooling() -> None:
    named = {"name": "cnn", "channels": [4, 16], "width": 5}
    model = some_weights(make_model(spec_of(named, IMAGES), seed=0))
    w = model.state_dict()
    x = F.conv2d(rows_of(IMAGES)["image"], w["blocks.0.weight"], w["blocks.0.bias"], padding=1)
    x = F.group_norm(x, 4, w["blocks.1.weight"], w["blocks.1.bias"]).relu()
    x = F.conv2d(x, w["blocks.3.weight"], w["blocks.3.bias"], padding=1)
    # As many groups as divide the channels, eight at most.
    x = F.group_norm(x, 8, w["blocks.4.weight"], w["blocks.4.bias"]).relu()
    x = F.max_pool2d(x, 2).flatten(1)
    x = (x @ w["hidden.1.weight"].T + w["hidden.1.bias"]).relu()
    expected = x @ w["output.weight"].T + w["output.bias"]
    torch.testing.assert_close(model(rows_of(IMAGES)), expected)


@pytest.mark.parametrize("name", ["mlp", "cnn"])
def test_dropout_sets_its_share_of_the_hidden_units_to_zero_in_training_alone(name: str) -> None:
    model = make_model(spec_of({"name": name, "width": 4096, "dropout": 0.25}, IMAGES), seed=0)
    seen: list[Tensor] = []
    dropout = next(module for module in model.modules() if isinstance(module, Dropout))
    dropout.register_forward_hook(lambda _, inputs, output: seen.extend([inputs[0], output]))
    torch.manual_seed(0)
    model.train()(rows_of(IMAGES))
    model.eval()(rows_of(IMAGES))
    before, dropped, before_evaluation, kept = seen
    share = 1 - (dropped != 0).sum() / (before != 0).sum()
    assert share.item() == pytest.approx(0.25, abs=0.02)
    assert torch.equal(before_evaluation, kept)


def test_no_model_uses_batch_statistics() -> None:
    # The score of a row must not depend on who else is in the batch, in training either.
    for named, schema in MODELS:
        steady = {key: value for key, value in named.items() if key != "dropout"}
        model = make_model(spec_of(steady, schema), seed=0)
        some_weights(model).train()
        batch = rows_of(schema)
        one = {kind: tensor[:1] for kind, tensor in batch.items()}
        torch.testing.assert_close(model(batch)[:1], model(one), rtol=1e-4, atol=1e-4)


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
    assert found.allowed == ("linear", "mlp")


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


NUMBERS = Schema(
    key=None, features=[Feature(name=name, kind="numeric") for name in "abc"], target=TARGET
)
SPEC = ModelSpec(name="mine", arguments={}, inputs=NUMBERS.inputs(), num_outputs=3)


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


def test_more_blocks_than_an_image_can_be_halved_are_an_error() -> None:
    spec = spec_of({"name": "cnn", "channels": [2, 2, 2, 2], "width": 4}, IMAGES)
    check_gradients(make_model(spec, seed=0), spec, seed=0)
    found = problem({"name": "cnn", "channels": [2, 2, 2, 2, 2], "width": 4}, IMAGES)
    assert found.key == "build.model.channels"
    assert "5 blocks leave nothing of 8×8" in found.message


def figures(model: nn.Module, spec: ModelSpec) -> dict[str, tuple[str, int, int]]:
    """Each layer's output, parameters and multiply-adds, as the summary says."""
    lines = summarise(model, spec, seed=0).splitlines()
    table = {}
    for line in lines[4:]:
        if set(line) != {"-"}:
            name, *_, parameters, macs = line.split()
            shape = line.split()[2] if len(line.split()) == 5 else ""
            table[name] = shape, int(parameters.replace(",", "")), int(macs.replace(",", ""))
    return table


def test_the_summary_of_cnn_is_what_one_computes_by_hand() -> None:
    spec = spec_of({"name": "cnn", "channels": [16, 32], "width": 64}, IMAGES)
    table = figures(make_model(spec, seed=0), spec)
    assert table == {
        "blocks.0": ("16×8×8", 16 * 9 + 16, 16 * 9 * 64),
        "blocks.1": ("16×8×8", 32, 0),
        "blocks.2": ("16×8×8", 0, 0),
        "blocks.3": ("32×8×8", 32 * 16 * 9 + 32, 32 * 16 * 9 * 64),
        "blocks.4": ("32×8×8", 64, 0),
        "blocks.5": ("32×8×8", 0, 0),
        "blocks.6": ("32×4×4", 0, 0),
        "hidden.0": ("512", 0, 0),
        "hidden.1": ("64", 512 * 64 + 64, 512 * 64),
        "hidden.2": ("64", 0, 0),
        "hidden.3": ("64", 0, 0),
        "output": ("10", 64 * 10 + 10, 640),
        "total": ("", 160 + 32 + 4640 + 64 + 32832 + 650, 9216 + 294912 + 32768 + 640),
    }


def test_the_summary_of_mlp_counts_every_code_of_a_category() -> None:
    spec = spec_of({"name": "mlp", "width": 7})
    # Two numbers and an indicator, a boolean, and 2 + 3 categories.
    width = 3 + 1 + 2 + 3
    table = figures(make_model(spec, seed=0), spec)
    assert table["hidden.0"] == ("7", width * 7 + 7, width * 7)
    assert table["total"] == ("", width * 7 + 7 + 7 * 3 + 3, width * 7 + 21)


class Recurrent(nn.Module):
    """Weights of its own beside its layers, and a layer that returns a state too."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(3, 3))
        self.cell = nn.GRU(3, 4, batch_first=True)
        self.output = nn.Linear(4, 3)

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        states, _ = self.cell((batch["numeric"] @ self.scale)[:, None])
        scores: Tensor = self.output(states[:, -1])
        return scores


def test_the_summary_leaves_no_parameter_of_a_model_of_ones_own_out() -> None:
    table = figures(Recurrent(), SPEC)
    assert table["mine"] == ("3", 9, 9)
    assert table["output"] == ("3", 15, 12)
    assert table["cell"][0] == "1×4"
    rows = [row for name, row in table.items() if name != "total"]
    assert sum(row[1] for row in rows) == table["total"][1]
    assert sum(row[2] for row in rows) == table["total"][2]


def test_the_probe_has_the_shapes_of_the_data() -> None:
    batch = probe_batch(spec_of({"name": "linear"}), seed=0)
    assert {kind: tuple(tensor.shape) for kind, tensor in batch.items()} == {
        "numeric": (2, 3),
        "boolean": (2, 1),
        "categorical": (2, 2),
    }


def test_a_trained_model_loads_and_predicts_as_the_stage_does(tmp_path: Path) -> None:
    table = mixed_table()
    project = small_project(tmp_path / "project", table, {"prepare.key": "id"})
    run_stages(project, "prepare", "build", "tune", "train", "infer")
    predictor = load_predictor(project.path / "data", coverage=0.9)
    predictions = predictor.predict(table)
    saved = pl.read_parquet(project.path / "data/infer/predictions.parquet")
    assert_frame_equal(predictions, saved, rel_tol=1e-12)
    probabilities, sets = (
        [f"{what}_{name}" for name in ("ill", "well")] for what in ("probability", "in_set")
    )
    assert predictions.columns == ["id", "prediction", *probabilities, *sets]
    assert predictions["id"].to_list() == table["id"].to_list()
    # Rows on their own are what they are among others, up to rounding.
    alone = pl.concat([predictor.predict(table[row : row + 1]) for row in range(20)])
    assert_frame_equal(alone, saved[:20], rel_tol=1e-5)
    chances = predictions.select(pl.selectors.starts_with("probability_")).to_numpy()
    np.testing.assert_allclose(chances.sum(axis=1), 1.0)
