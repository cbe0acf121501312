"""Class weights, against formulas written out here."""

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from pipeline.params.check import find_problems
from stages.common.config import validate
from stages.common.errors import UserError
from stages.common.files import read_json
from stages.common.yamlfile import read_yaml
from stages.training.data.batching import epoch_batches, shard
from stages.training.data.source import TensorSource
from stages.training.device.distributed import World
from stages.training.loop import train
from stages.training.optim.class_weights import describe_weights, weigh_classes
from stages.training.optim.loss import make_loss
from stages.training.optim.preflight import check_names
from stages.training.optim.registry import losses_of
from stages.training.params import TrainParams
from stages.training.state import Data
from tests.conftest import ROOT
from tests.support.samples import (
    classification,
    mixed_table,
    recipe_params,
    run_stages,
    small_project,
    train_params,
)
from tests.support.training.models import figures

CLASSES = ("rare", "common", "never")
# Two rows of the first class for each nine of the second, none of the third.
TARGET = torch.tensor([0, 1, 1, 1, 1, 0, 1, 1, 1, 1, 1])


class Linear(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.output = nn.Linear(4, 3)

    def forward(self, batch: Mapping[str, Tensor]) -> Tensor:
        scores: Tensor = self.output(batch["numeric"])
        return scores


def network() -> Linear:
    torch.manual_seed(3)
    return Linear().double()


def unbalanced() -> Data:
    """Rows of three classes in float64; of the second one half as many as of the others."""

    def wide(split: TensorSource) -> TensorSource:
        kept = (split.target != 1) | (torch.arange(len(split)) % 2 == 0)
        return TensorSource({"numeric": split.batch["numeric"].double()[kept]}, split.target[kept])

    data = classification(num_rows=60)
    return replace(data, train=wide(data.train), validation=wide(data.validation), classes=CLASSES)


def test_balanced_is_that_of_scikit_learn() -> None:
    weights = weigh_classes("balanced", CLASSES, TARGET)
    theirs = compute_class_weight("balanced", classes=np.array([0, 1]), y=TARGET.numpy())
    assert weights.tolist() == pytest.approx([*theirs, 1.0])
    assert weights[TARGET].mean().item() == pytest.approx(1, rel=1e-12)


def test_weights_by_name_have_a_mean_of_1_over_the_train_rows() -> None:
    weights = weigh_classes({"rare": 3.0, "never": 50.0}, CLASSES, TARGET)
    assert (weights[0] / weights[1]).item() == pytest.approx(3)
    assert weights[TARGET].mean().item() == pytest.approx(1, rel=1e-12)
    # None of its rows is trained on: it neither moves the others nor is moved by them.
    assert weights[2].item() == 1
    range_of_weights, unseen = describe_weights(weights, CLASSES, TARGET)
    assert range_of_weights.startswith("class weights: 0.733 (common) to 2.2 (rare)")
    assert unseen == "no train row is of the class never: its weight is 1"


@pytest.mark.parametrize(
    ("classes", "asked"),
    [((0, 1), {0: 3, 1: 1}), ((False, True), {False: 3, True: 1}), (("no", "yes"), {"no": 3})],
)
def test_a_class_is_named_as_yaml_writes_it(
    classes: tuple[Any, ...], asked: dict[Any, float]
) -> None:
    params = train_params(class_weights=asked)
    check_names(params, "classification", classes)
    assert isinstance(params.class_weights, dict)
    weights = weigh_classes(params.class_weights, classes, torch.tensor([0, 1]))
    assert weights.tolist() == [1.5, 0.5]


@pytest.mark.parametrize("asked", ["balanced", {"common": 4.0}])
@pytest.mark.parametrize("size", [None, 5])
def test_the_loop_weighs_each_row_whatever_the_micro_batches(asked: Any, size: int | None) -> None:
    data, ours, theirs = unbalanced(), network(), network()
    params = train_params(class_weights=asked, micro_batch_size=size)
    result = train(ours, data, params, 7, World(), lambda *_: None)

    x, y, num_rows = data.train.take(slice(None))[0]["numeric"], data.train.target, len(data.train)
    counts = torch.bincount(y).double()
    weights = num_rows / (3 * counts)
    if asked != "balanced":
        weights = torch.tensor([1.0, 4.0, 1.0]).double()
        weights = weights * num_rows / (counts[0] + 4 * counts[1] + counts[2])
    optimizer = torch.optim.SGD(theirs.parameters(), lr=0.1)
    for epoch in result.history:
        total = 0.0
        for rows in epoch_batches(num_rows, 16, 7, epoch.epoch):
            optimizer.zero_grad()
            scores = theirs({"numeric": x[rows]}).log_softmax(dim=1)
            loss = -(weights[y[rows]] * scores[range(len(rows)), y[rows]]).sum() / len(rows)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            total += loss.item() * len(rows)
        assert epoch.train_loss == pytest.approx(total / num_rows, rel=1e-10)
        judged, target = data.validation.take(slice(None))
        losses = F.cross_entropy(theirs(judged), target, reduction="none")
        expected = (weights[target] * losses).mean().item()
        assert epoch.validation_loss == pytest.approx(expected, rel=1e-10)
    torch.testing.assert_close(ours.output.weight, theirs.output.weight, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", losses_of("classification"))
@pytest.mark.parametrize("size", [2, 3])
def test_the_processes_add_up_to_the_gradient_of_the_batch(name: str, size: int) -> None:
    data, model = unbalanced(), network()
    weights = weigh_classes("balanced", CLASSES, data.train.target)
    loss_of = make_loss(train_params(loss={"name": name}), "classification", weights)

    def gradient(rows: Tensor, factor: float) -> Tensor:
        batch, target = data.train.take(rows)
        loss = loss_of(model(batch), target) * factor
        return torch.cat([g.flatten() for g in torch.autograd.grad(loss, [*model.parameters()])])

    rows = torch.randperm(len(data.train))[:22]
    parts = [shard(22, World(rank, size)) for rank in range(size)]
    together = torch.stack([gradient(rows[mine], factor) for mine, factor in parts]).mean(dim=0)
    torch.testing.assert_close(together, gradient(rows, 1.0), rtol=1e-10, atol=1e-12)


def test_equal_weights_are_none_within_rounding() -> None:
    plain, weighed = (
        train(network(), unbalanced(), train_params(class_weights=w), 7, World(), lambda *_: None)
        for w in (None, {"rare": 2.0, "common": 2.0, "never": 2.0})
    )
    for ours, theirs in zip(weighed.history, plain.history, strict=True):
        assert figures(ours) == pytest.approx(figures(theirs), rel=1e-12)


def test_a_wrong_class_is_told_with_the_right_ones_and_with_other_mistakes() -> None:
    params = train_params(class_weights={"comon": 2.0}, optimizer={"name": "SDG"})
    with pytest.raises(UserError) as caught:
        check_names(params, "classification", CLASSES)
    optimizer, weights = caught.value.problems
    assert optimizer.key == "train.optimizer.name"
    assert (weights.key, weights.value) == ("train.class_weights.comon", "2")
    assert (weights.allowed, weights.suggestion) == (CLASSES, "common")


def test_regression_has_no_classes_to_weigh() -> None:
    params = train_params(class_weights="balanced", loss={"name": "MSELoss"})
    with pytest.raises(UserError, match="which regression has not"):
        check_names(params, "regression", None)
    tree = recipe_params("linear_regression")
    tree["train"]["class_weights"] = "balanced"
    # The table says that it is regression, and so may the file.
    assert "train.class_weights" in [problem.key for problem in find_problems(tree)]
    tree["prepare"]["task"] = "regression"
    assert "train.class_weights" in [problem.key for problem in find_problems(tree)]


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ("balance", "did you mean 'balanced'?"),
        ({"a": 0.0}, "a must be at least 1e-06"),
        ({"a": "much"}, "a must be a number"),
        ({}, "at least 1 item"),
    ],
)
def test_a_wrong_weight_is_told_once(asked: object, says: str) -> None:
    tree = {**train_params().model_dump(), "class_weights": asked}
    with pytest.raises(UserError, match=re.escape(says)) as caught:
        validate(TrainParams, tree, at="train")
    assert len(caught.value.problems) == 1


def test_weights_that_differ_from_trial_to_trial_are_no_search() -> None:
    tree = read_yaml(ROOT / "params.yaml")
    tree["tune"] |= {"trials": 1, "space": {"train.class_weights": ["balanced", None]}}
    (problem,) = find_problems(tree)
    assert problem.key == "tune.space.train.class_weights"
    assert "can't be compared" in problem.message


def test_the_stages_take_weights_by_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = {"train.class_weights": {"ill": 3, "well": 1}, "train.epochs": 1}
    project = small_project(tmp_path / "project", mixed_table(), settings)
    run_stages(project, "prepare", "build", "tune", "train")
    assert "(well) to " in capsys.readouterr().out
    recipe = read_json(project.path / "data/train/recipe.json")
    assert recipe["train"]["class_weights"] == {"ill": 3.0, "well": 1.0}


@pytest.mark.parametrize("weights", [{"a": 1e308}, {"a": 1e308, "b": 1e308}, {"b": 1e-9}])
def test_weights_that_leave_nothing_of_the_others_are_refused(weights: dict[str, float]) -> None:
    target = torch.tensor([0, 1, 1, 1])
    with pytest.raises(UserError, match="float32 can't add the losses up") as caught:
        weigh_classes(weights, ["a", "b"], target)
    (problem,) = caught.value.problems
    assert problem.key in {f"train.class_weights.{name}" for name in weights}
    # Far apart, but each counts; and so does a class without a row to weigh.
    assert weigh_classes({"a": 1e5}, ["a", "b"], target).isfinite().all()
    weigh_classes({"c": 1e30}, ["a", "b", "c"], target)
