"""Models of the zoo: what they compute."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from polars.testing import assert_frame_equal
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from stages.features.schema import Schema, Target
from stages.model.dropout import Dropout
from stages.model.model import make_model
from stages.model.predictor import load_predictor
from tests.support.samples import mixed_table, run_stages, small_project
from tests.support.stages.models import IMAGES, MODELS, TABULAR, rows_of, some_weights, spec_of


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
