"""One step: clipping, micro-batches, and what is not applied."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from stages.model.dropout import share_dropout_rng
from stages.model.model import make_model
from stages.tensors.batch import take
from stages.training.data.source import TensorSource
from stages.training.device.distributed import World
from stages.training.optim.loss import make_loss
from stages.training.optim.objective import make_objective
from stages.training.optim.optimizer import make_optimizer
from stages.training.state import Data, EpochTotals
from stages.training.step.divergence import DivergedError
from stages.training.step.step import StepContext, apply_on_device
from tests.support.samples import classification, train_params
from tests.support.training.models import (
    DROPPED,
    SPECS,
    assert_same,
    doubled,
    figures,
    model,
    order_of,
    pixels,
    run,
    weights_of,
)


@pytest.mark.parametrize("limit", [None, 1e-3])
def test_clipping_limits_the_step_and_reports_the_norm_before_it(limit: float | None) -> None:
    data = classification(num_rows=50)
    network = model()
    start = weights_of(network)
    result = run(network, data, train_params(epochs=1, batch_size=50, clip_norm=limit))
    moved = math.sqrt(
        sum((w - start[n]).square().sum().item() for n, w in weights_of(network).items())
    )
    norm = result.history[0].gradient_norm
    assert norm > 0.01
    # One step of plain gradient descent: learning rate times gradient.
    assert moved == pytest.approx(0.1 * (norm if limit is None else limit), rel=1e-3)


@pytest.mark.parametrize("norm", [None, 0.3])
def test_clipping_by_value_is_torchs_own_after_that_by_norm(norm: float | None) -> None:
    data, most = doubled(classification(num_rows=50)), 0.02
    changes: dict[str, Any] = {"clip_norm": norm, "clip_value": most}
    ours, theirs = model().double(), model().double()
    result = run(ours, data, train_params(epochs=2, **changes), seed=4)

    optimizer = torch.optim.SGD(theirs.parameters(), lr=0.1)
    x, y, cut = data.train.batch["numeric"], data.train.target, 0
    for number, epoch in enumerate(result.history, start=1):
        norms = []
        for rows in torch.split(order_of(50, 4, number), 16):
            optimizer.zero_grad()
            F.cross_entropy(theirs({"numeric": x[rows]}), y[rows]).backward()  # type: ignore[no-untyped-call]
            limit = math.inf if norm is None else norm
            norms.append(nn.utils.clip_grad_norm_(theirs.parameters(), limit).item())
            cut += sum(int((w.grad.abs() > most).sum()) for w in theirs.parameters())  # type: ignore[union-attr]
            nn.utils.clip_grad_value_(theirs.parameters(), most)
            optimizer.step()
        # What is reported is the length before both.
        assert epoch.gradient_norm == pytest.approx(sum(norms) / len(norms), rel=1e-10)
    assert cut > 20
    assert_same(weights_of(ours), weights_of(theirs), tolerance=1e-10)


def test_a_validation_loss_that_is_no_number_stops_the_training() -> None:
    data = classification()
    data.validation.batch["numeric"][3, 2] = math.nan
    with pytest.raises(DivergedError, match="not finite any more in epoch 1"):
        run(model(), data, train_params())


@pytest.mark.parametrize("optimizer", ["SGD", "Rprop"])
def test_a_step_that_is_no_number_is_not_applied(optimizer: str) -> None:
    # Batches of one epoch that hold no poisoned row are all that it learns from.
    data, clean = classification(num_rows=48), classification(num_rows=48)
    row = order_of(48, 0, 1)[20]
    data.train.batch["numeric"][row, 2] = math.nan
    params = train_params(epochs=1, optimizer={"name": optimizer, "lr": 0.1})
    network, expected = model(), model()
    (epoch,) = run(network, data, params).history

    loss_of = make_loss(params, "classification")
    other = make_optimizer(expected, params)
    losses = []
    for number, rows in enumerate(torch.split(order_of(48, 0, 1), 16)):
        if number == 1:
            continue
        other.zero_grad()
        loss = loss_of(expected(take(clean.train.batch, rows)), clean.train.target[rows])
        loss.backward()
        other.step()
        losses.append(loss.item())
    assert epoch.skipped_steps == 1
    assert epoch.train_loss == pytest.approx(sum(losses) / 2, rel=1e-6)
    assert_same(weights_of(network), weights_of(expected), tolerance=0.0)


def test_a_device_that_nobody_waits_for_leaves_the_weights_as_they_were() -> None:
    # As on a GPU, with tensors of the CPU.
    network = model()
    params = train_params(optimizer={"name": "AdamW", "lr": 0.1})
    optimizer = make_optimizer(network, params)
    dropout_rng = share_dropout_rng(network, torch.device("cpu"))
    weights = list(network.parameters())
    loss_of = nn.CrossEntropyLoss()
    objective = make_objective(params.objective)
    parts = network, loss_of, objective, optimizer, dropout_rng, World(), math.inf, weights
    context = StepContext(*parts, clip_value=0.25)
    sums, before = EpochTotals(), weights_of(network)
    for factor in (math.nan, 1.0):
        for weight in weights:
            weight.grad = torch.full_like(weight, factor)
        loss = torch.tensor(2.0 * factor)
        apply_on_device(context, loss, torch.tensor(3.0), 16.0, sums)
        if math.isnan(factor):
            assert_same(weights_of(network), before, tolerance=0.0)
            assert (int(sums.consecutive_skips), float(sums.steps_applied)) == (1, 0.0)
    assert not torch.equal(weights_of(network)["output.bias"], before["output.bias"])
    assert all(weight.grad is not None and weight.grad.max() == 0.25 for weight in weights)
    found = [
        float(value)
        for value in (sums.loss, sums.norm, sums.rows, sums.steps_applied, sums.consecutive_skips)
    ]
    assert found == [32.0, 3.0, 16.0, 1.0, 0.0]


def test_five_steps_on_end_that_are_no_numbers_stop_the_training() -> None:
    whole = classification(num_rows=64)
    keys = np.array([f"row {number}" for number in range(64)])
    data = Data(
        TensorSource(whole.train.batch, whole.train.target, keys), whole.validation, whole.task
    )
    network = model()
    with torch.no_grad():
        # Finite, but its product with the input is not.
        network.output.weight.fill_(3e38)
    with pytest.raises(DivergedError) as caught:
        run(network, data, train_params(epochs=9, batch_size=12))
    text = str(caught.value)
    assert "in 5 steps in a row" in text
    assert "step 5 of epoch 1" in text
    last = order_of(64, 0, 1)[48:58].tolist()
    assert f"the rows with the keys {', '.join(keys[last])} and 2 more" in text
    assert "first seen in the output of output (Linear)" in text
    assert weights_of(network)["output.weight"].max().item() == pytest.approx(3e38)


@pytest.mark.parametrize("size", [1, 5, 16])
@pytest.mark.parametrize("kind", SPECS)
def test_micro_batches_give_the_gradient_of_the_batch(kind: str, size: int) -> None:
    params = {**DROPPED, "epochs": 2}
    whole, parts = (make_model(SPECS[kind], seed=4).double() for _ in range(2))
    alone = run(whole, pixels(kind), train_params(**params), seed=9)
    divided = run(parts, pixels(kind), train_params(**params, micro_batch_size=size), seed=9)
    for ours, theirs in zip(divided.history, alone.history, strict=True):
        assert figures(ours) == pytest.approx(figures(theirs), rel=1e-10)
    assert_same(weights_of(parts), weights_of(whole), tolerance=1e-10)
