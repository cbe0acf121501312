"""The loop against loops that are written out here."""

import copy
import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from stages.training.state import Epoch
from tests.support.samples import classification, regression, train_params
from tests.support.training.models import (
    assert_same,
    doubled,
    figures,
    model,
    order_of,
    run,
    weights_of,
)


def test_the_loop_is_the_one_of_every_course() -> None:
    data = doubled(classification(num_rows=50))
    params = train_params(
        epochs=4,
        batch_size=16,
        optimizer={"name": "AdamW", "lr": 0.05, "weight_decay": 0.1},
        schedule={"name": "CosineAnnealingLR"},
        clip_norm=0.5,
    )
    ours, theirs = model().double(), model().double()
    result = run(ours, data, params, seed=11)

    matrices = [w for w in theirs.parameters() if w.ndim > 1]
    vectors = [w for w in theirs.parameters() if w.ndim == 1]
    groups = [
        {"params": matrices, "weight_decay": 0.1},
        {"params": vectors, "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=0.05, foreach=False)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=4)
    x, y = data.train.batch["numeric"], data.train.target
    for number, epoch in enumerate(result.history, start=1):
        losses, norms = [], []
        rate = optimizer.param_groups[0]["lr"]
        theirs.train()
        for rows in torch.split(order_of(50, 11, number), 16):
            optimizer.zero_grad()
            loss = F.cross_entropy(theirs({"numeric": x[rows]}), y[rows])
            loss.backward()  # type: ignore[no-untyped-call]
            gradients = [w.grad for w in theirs.parameters() if w.grad is not None]
            norms.append(math.sqrt(sum(g.square().sum().item() for g in gradients)))
            for gradient in gradients:
                gradient *= min(1.0, 0.5 / (norms[-1] + 1e-6))
            optimizer.step()
            losses.append(loss.item() * len(rows))
        schedule.step()
        with torch.no_grad():
            scores = theirs(data.validation.batch)
            expected = Epoch(
                epoch=number,
                learning_rate=rate,
                gradient_norm=sum(norms) / len(norms),
                train_loss=sum(losses) / 50,
                validation_loss=F.cross_entropy(scores, data.validation.target).item(),
                metric=(scores.argmax(1) == data.validation.target).double().mean().item(),
            )
        assert figures(epoch) == pytest.approx(figures(expected), rel=1e-10)
    assert_same(weights_of(ours), weights_of(theirs), tolerance=1e-10)


def test_gradient_descent_by_hand_gives_the_same_line() -> None:
    data = doubled(regression(num_rows=50))
    params = train_params(
        epochs=3,
        batch_size=20,
        loss={"name": "MSELoss"},
        optimizer={"name": "SGD", "lr": 0.05, "momentum": 0.9},
    )
    network = model(1, hidden=False).double()
    w = network.output.weight.detach().numpy()[0].copy()
    b = network.output.bias.item()
    result = run(network, data, params, seed=3)

    x, y = data.train.batch["numeric"].numpy(), data.train.target.numpy()
    speed_w, speed_b = np.zeros(4), 0.0
    for number, epoch in enumerate(result.history, start=1):
        total = 0.0
        for rows in torch.split(order_of(50, 3, number), 20):
            error = x[rows] @ w + b - y[rows]
            total += float((error**2).sum())
            speed_w = 0.9 * speed_w + 2 * error @ x[rows] / len(rows)
            speed_b = 0.9 * speed_b + 2 * float(error.mean())
            w = w - 0.05 * speed_w
            b = b - 0.05 * speed_b
        assert epoch.train_loss == pytest.approx(total / 50, rel=1e-12)
        error = data.validation.batch["numeric"].numpy() @ w + b - data.validation.target.numpy()
        assert epoch.validation_loss == pytest.approx((error**2).mean(), rel=1e-12)
        # The target is standardised; the error is told in its units.
        assert epoch.metric == pytest.approx(2.0 * math.sqrt((error**2).mean()), rel=1e-12)
    np.testing.assert_allclose(network.output.weight.detach().numpy()[0], w, rtol=1e-12)
    assert network.output.bias.item() == pytest.approx(b, rel=1e-12)


def test_steps_are_taken_in_training_mode_and_validation_is_not() -> None:
    network = model()
    modes: list[tuple[int, bool]] = []
    network.register_forward_hook(
        lambda module, inputs, _: modes.append((len(inputs[0]["numeric"]), module.training))
    )
    run(network, classification(num_rows=50), train_params(epochs=2, batch_size=25))
    assert modes == [(25, True), (25, True), (30, False)] * 2


def test_the_same_seed_gives_the_same_bits_and_another_does_not() -> None:
    params = train_params(optimizer={"name": "AdamW", "lr": 0.01})
    network = model()
    network.body.append(nn.Dropout(0.5))  # type: ignore[operator]
    results = []
    for seed in (5, 5, 6):
        torch.manual_seed(seed + 100)
        results.append(run(copy.deepcopy(network), classification(), params, seed=seed))
    assert results[0].history == results[1].history
    assert_same(results[0].weights, results[1].weights, tolerance=0.0)
    assert results[0].history[0].train_loss != results[2].history[0].train_loss
