"""Weights of rows in the loop, against formulas written out here."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from stages.features.schema import Statistics, load_arrays
from stages.tensors.batch import to_weight
from stages.training.data.batching import epoch_batches, local_batches
from stages.training.data.memmap import open_split, read_split
from stages.training.data.source import TensorSource
from stages.training.device.distributed import World
from stages.training.loop import train
from stages.training.optim.class_weights import weigh_classes
from stages.training.optim.loss import make_loss
from stages.training.optim.registry import losses_of
from stages.training.state import Data
from stages.training.step.loss_of_scores import compute_loss
from tests.support.samples import Linear, classification, line, train_params
from tests.support.training.models import figures

CLASSES = ("a", "b", "c")


def weights_of(num_rows: int, seed: int) -> Tensor:
    """Weights of mean 1 in float64, some of them 0."""
    drawn = torch.rand(num_rows, generator=torch.Generator().manual_seed(seed)).double() ** 3
    drawn[::7] = 0.0
    return drawn / drawn.mean()


def weighted(split: TensorSource, seed: int) -> TensorSource:
    batch = {kind: values.double() for kind, values in split.batch.items()}
    target = split.target.double() if split.target.is_floating_point() else split.target
    return TensorSource(batch, target, weight=weights_of(len(split), seed))


def of_classes() -> Data:
    data = classification(num_rows=60)
    sides = weighted(data.train, 1), weighted(data.validation, 2)
    return replace(data, train=sides[0], validation=sides[1], classes=CLASSES)


@pytest.mark.parametrize("asked", [None, "balanced"])
@pytest.mark.parametrize("size", [None, 5])
def test_the_loop_weighs_each_row_whatever_the_micro_batches(asked: Any, size: int | None) -> None:
    data, ours, theirs = of_classes(), Linear().double(), Linear().double()
    params = train_params(class_weights=asked, micro_batch_size=size)
    result = train(ours, data, params, 7, World(), lambda *_: None)

    x, y, num_rows = data.train.take(slice(None))[0]["numeric"], data.train.target, len(data.train)
    weights, judging = weights_of(60, 1), weights_of(30, 2)
    of_class = np.ones(3)
    if asked is not None:
        sums = [weights[y == code].sum().item() for code in range(3)]
        of_class = np.array([num_rows / (3 * total) for total in sums])
    by_class = torch.from_numpy(of_class)
    optimizer = torch.optim.SGD(theirs.parameters(), lr=0.1)
    for epoch in result.history:
        total = 0.0
        for rows in epoch_batches(num_rows, 16, 7, epoch.epoch):
            optimizer.zero_grad()
            scores = theirs({"numeric": x[rows]}).log_softmax(dim=1)
            of_rows = weights[rows] * by_class[y[rows]]
            loss = -(of_rows * scores[range(len(rows)), y[rows]]).sum() / len(rows)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            total += loss.item() * len(rows)
        assert epoch.train_loss == pytest.approx(total / num_rows, rel=1e-10)
        judged, target = data.validation.take(slice(None))
        scores = theirs(judged)
        losses = F.cross_entropy(scores, target, reduction="none")
        expected = (judging * by_class[target] * losses).sum() / judging.sum()
        assert epoch.validation_loss == pytest.approx(expected.item(), rel=1e-10)
        right = (judging * (scores.argmax(1) == target)).sum() / judging.sum()
        assert epoch.metric == pytest.approx(right.item(), rel=1e-10)
    torch.testing.assert_close(ours.output.weight, theirs.output.weight, rtol=1e-10, atol=1e-12)


def test_a_value_is_judged_by_the_weights() -> None:
    class Sum(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.factor = torch.nn.Parameter(torch.tensor(0.5).double())

        def forward(self, batch: dict[str, Tensor]) -> Tensor:
            return self.factor * batch["numeric"].sum(dim=1, keepdim=True)

    data = Data(weighted(line(50, 1), 3), weighted(line(30, 2), 4), "regression", deviation=2.0)
    params = train_params(loss={"name": "L1Loss"}, optimizer={"name": "LBFGS"}, epochs=1)
    model = Sum()
    (epoch,) = train(model, data, params, 0, World(), lambda *_: None).history
    batch, target = data.validation.take(slice(None))
    error, weight = model(batch).squeeze(1) - target, weights_of(30, 4)
    assert epoch.metric == pytest.approx(2 * (weight * error**2).mean().sqrt().item(), rel=1e-6)
    assert epoch.validation_loss == pytest.approx((weight * error.abs()).mean().item(), rel=1e-6)


@pytest.mark.parametrize("name", losses_of("classification"))
@pytest.mark.parametrize("size", [2, 3])
def test_the_processes_add_up_to_the_gradient_of_the_batch(name: str, size: int) -> None:
    data, model = of_classes(), Linear().double()
    loss_fn = make_loss(train_params(loss={"name": name}), "classification", by_row=True)
    rows = torch.randperm(60, generator=torch.Generator().manual_seed(0))[:23]

    def gradient(world: World) -> Tensor:
        (batch,) = local_batches(data.train, [rows], world, 0)
        loss = compute_loss(loss_fn, model(batch.batch), batch.target, batch.row_weights)
        found = torch.autograd.grad(loss * batch.loss_scale, [*model.parameters()])
        return torch.cat([g.flatten() for g in found])

    together = torch.stack([gradient(World(rank, size)) for rank in range(size)]).mean(dim=0)
    torch.testing.assert_close(together, gradient(World()), rtol=1e-10, atol=1e-12)


def test_equal_weights_are_none_within_rounding() -> None:
    data = of_classes()
    ones = torch.ones(60).double(), torch.ones(30).double()
    for params in (train_params(), train_params(class_weights="balanced")):
        plain, weighed = (
            train(
                Linear().double(),
                replace(
                    data,
                    train=replace(data.train, weight=sides[0]),
                    validation=replace(data.validation, weight=sides[1]),
                ),
                params,
                7,
                World(),
                lambda *_: None,
            )
            for sides in ((None, None), ones)
        )
        for ours, theirs in zip(weighed.history, plain.history, strict=True):
            assert figures(ours) == pytest.approx(figures(theirs), rel=1e-12)


def test_balanced_counts_rows_by_their_weights_as_scikit_learn_counts_copies() -> None:
    target, copies = torch.tensor([0, 0, 1, 1, 2, 2]), torch.tensor([1, 2, 3, 4, 0, 0])
    of_rows = to_weight(copies.numpy())
    weights = weigh_classes("balanced", CLASSES, target, of_rows)
    y = target.repeat_interleave(copies).numpy()
    theirs = compute_class_weight("balanced", classes=np.array([0, 1]), y=y)
    assert weights.tolist() == pytest.approx([*theirs, 1.0])
    assert (weights[target] * of_rows).mean().item() == pytest.approx(1, rel=1e-6)


def test_rows_bring_their_weights_from_wherever_they_lie(tmp_path: Path) -> None:
    numbers, weight = np.random.default_rng(0).normal(size=(40, 2)), np.arange(40.0)
    arrays = {
        "numeric": numbers.astype(np.float32),
        "target": np.arange(40) % 2,
        "key": np.arange(40),
        "weight": weight,
    }
    for name, array in arrays.items():
        np.save(tmp_path / f"{name}.npy", array)
    mapped = open_split(
        load_arrays(tmp_path), Statistics(numeric={}, image=[], target=None), torch.device("cpu")
    )
    assert set(mapped.take(slice(2))[0]) == {"numeric"}
    order = epoch_batches(40, 7, 0, 1)
    for source in (mapped, read_split(mapped)):
        assert source.weight is not None
        assert source.weight.mean().item() == pytest.approx(1, rel=1e-6)
        for batch in local_batches(source, order, World(1, 2), 0):
            assert batch.row_weights is not None
            mine = batch.rows[batch.local_rows].numpy()
            np.testing.assert_allclose(batch.row_weights, weight[mine] / weight.mean(), rtol=1e-6)
    assert all(
        b.row_weights is None for b in local_batches(classification().train, order, World(), 0)
    )
