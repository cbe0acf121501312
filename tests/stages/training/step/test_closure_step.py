"""Steps of an optimizer that evaluates the loss itself, against torch's LBFGS by hand."""

import math
import random
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from stages.common.errors import UserError
from stages.model.dropout import Dropout
from stages.tensors.batch import take
from stages.training.data.batching import epoch_batches
from stages.training.data.source import TensorSource
from stages.training.optim.optimizer import needs_closure
from stages.training.optim.preflight import check_names
from stages.training.state import Data, State
from tests.support.samples import classification, train_params
from tests.support.training.closures import PLAIN, SEARCH, assert_equal, by_hand, made, network, run


def doubled(data: Data) -> Data:
    def wide(split: TensorSource) -> TensorSource:
        return TensorSource({kind: t.double() for kind, t in split.batch.items()}, split.target)

    return Data(wide(data.train), wide(data.validation), data.task)


@pytest.mark.parametrize("recipe", [SEARCH, PLAIN], ids=["search", "plain"])
@pytest.mark.parametrize("micro_batch_size", [None, 5])
def test_the_steps_are_those_of_torch(recipe: dict[str, Any], micro_batch_size: int | None) -> None:
    data, ours, theirs = doubled(classification()), network().double(), network().double()
    changes = {"epochs": 2, "batch_size": 20, "ema": 0.6, "early_stopping": None}
    params = train_params(optimizer=recipe, micro_batch_size=micro_batch_size, **changes)
    check_names(params, "classification")
    result = run(ours, data, params)

    optimizer, average = made(theirs, recipe), [w.detach().clone() for w in theirs.parameters()]
    number = 0
    for epoch in result.history:
        losses, norms = [], []
        for rows in epoch_batches(50, 20, 5, epoch.epoch):
            scores = theirs(take(data.train.batch, rows))
            gradient = torch.autograd.grad(
                F.cross_entropy(scores, data.train.target[rows]), list(theirs.parameters())
            )
            norms.append(math.sqrt(sum(g.square().sum().item() for g in gradient)))
            losses.append(by_hand(theirs, data.train, optimizer, rows) * len(rows))
            # Once a step, however many evaluations it took.
            decay = min(0.6, (1 + number) / (10 + number))
            for mean, weight in zip(average, theirs.parameters(), strict=True):
                mean.lerp_(weight.detach(), 1 - decay)
            number += 1
        assert epoch.train_loss == pytest.approx(sum(losses) / 50, rel=1e-9)
        assert epoch.gradient_norm == pytest.approx(sum(norms) / 3, rel=1e-9)
    assert_equal(ours, theirs, tolerance=1e-9)
    for mean, kept in zip(average, result.weights.values(), strict=True):
        torch.testing.assert_close(mean, kept, rtol=1e-9, atol=1e-9)


class Lucky(nn.Module):
    """Dropout by Python's and by NumPy's generator."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, values: Tensor) -> Tensor:
        if not self.training:
            return values
        rows, columns = values.shape
        noise = np.random.rand(rows, columns) > self.p  # noqa: NPY002
        noise[:, random.randrange(columns)] = False
        return values * torch.from_numpy(noise)


@pytest.mark.parametrize("drop", [Dropout, nn.Dropout, Lucky])
def test_every_evaluation_of_a_step_is_of_the_same_rows_and_masks(drop: type[nn.Module]) -> None:
    model = network(0.4, drop)
    steps: list[list[tuple[Tensor, Tensor]]] = []

    def note(state: State) -> None:
        if state.totals.num_steps:
            steps.append(model.seen)
            model.seen = []

    augment = {"flip": 0, "shift": 0, "noise": 0.5}
    params = train_params(epochs=2, batch_size=25, augment=augment, optimizer=SEARCH)
    run(model, classification(), params, on_step_end=note)
    assert len(steps) == 4
    for (values, mask), *others in steps:
        assert len(others) >= 4
        for other_values, other_mask in others:
            assert torch.equal(values, other_values)
            assert torch.equal(mask, other_mask)
    assert len({mask.numpy().tobytes() for ((_, mask), *_) in steps}) == 4
    assert all((mask == 0).any() for ((_, mask), *_) in steps)


def test_what_goes_together_with_no_closure_is_told_at_once() -> None:
    params = train_params(
        optimizer=SEARCH, clip_norm=1.0, clip_value=0.5, precision="fp16", loss={"name": "X"}
    )
    with pytest.raises(UserError) as caught:
        check_names(params, "classification")
    keys = [problem.key for problem in caught.value.problems]
    assert keys == ["train.loss.name", "train.clip_norm", "train.clip_value", "train.precision"]
    assert "a clipped one is of no loss" in str(caught.value)
    assert caught.value.problems[3].allowed == ("auto", "fp32", "bf16")


@pytest.mark.parametrize(
    ("arguments", "key", "says"),
    [
        ({"weight_decay": 0.1}, "optimizer.weight_decay", "line_search_fn"),
        ({"line_search_fn": "armijo"}, "optimizer.line_search_fn", "strong_wolfe"),
        ({"history_size": 0}, "optimizer.history_size", "at least 1"),
        ({"max_iter": 0}, "optimizer.max_iter", "at least 1"),
        ({"lr": -1.0}, "optimizer.lr", "greater than 0"),
    ],
)
def test_arguments_that_can_not_work_are_refused(
    arguments: dict[str, Any], key: str, says: str
) -> None:
    with pytest.raises(UserError) as caught:
        check_names(train_params(optimizer={"name": "LBFGS", **arguments}), "classification")
    (problem,) = caught.value.problems
    assert problem.key == f"train.{key}"
    assert says in str(caught.value)


def test_weights_that_are_frozen_take_no_part() -> None:
    model, before = network(), network()
    frozen = [{"match": "first.*", "lr": None, "frozen": True}]
    params = train_params(epochs=1, optimizer=SEARCH, groups=frozen)
    check_names(params, "classification", model=network)
    run(model, classification(), params)
    assert torch.equal(model.first.weight, before.first.weight)
    assert not torch.equal(model.last.weight, before.last.weight)


def test_only_an_optimizer_that_can_not_do_without_a_closure_gets_one() -> None:
    assert needs_closure(torch.optim.LBFGS)
    assert not needs_closure(torch.optim.AdamW)
