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
from stages.tensors.batch import Batch, take
from stages.training.data.batching import epoch_batches
from stages.training.data.source import TensorSource
from stages.training.device.distributed import World
from stages.training.loop import train
from stages.training.optim.optimizer import needs_closure
from stages.training.optim.preflight import check_names
from stages.training.params import TrainParams
from stages.training.state import Data, Result, State
from stages.training.step.divergence import DivergedError
from tests.support.samples import classification, train_params

SEARCH = {"name": "LBFGS", "lr": 0.5, "max_iter": 4, "line_search_fn": "strong_wolfe"}
PLAIN = {"name": "LBFGS", "lr": 0.2, "max_iter": 3}


class Noted(nn.Module):
    """Two smooth layers with dropout in between; notes what goes in and what dropout lets out."""

    def __init__(self, p: float = 0.0, drop: type[nn.Module] = Dropout) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, 6), nn.Linear(6, 3)
        self.drop = drop(p)
        self.seen: list[tuple[Tensor, Tensor]] = []

    def forward(self, batch: Batch) -> Tensor:
        hidden = self.drop(torch.ones_like(self.first(batch["numeric"])))
        if self.training:
            self.seen.append((batch["numeric"].clone(), hidden.detach()))
        scores: Tensor = self.last(hidden * torch.tanh(self.first(batch["numeric"])))
        return scores


def network(p: float = 0.0, drop: type[nn.Module] = Dropout) -> Noted:
    torch.manual_seed(7)
    return Noted(p, drop)


def run(model: nn.Module, data: Data, params: TrainParams, **hooks: Any) -> Result:
    return train(model, data, params, 5, World(), lambda *_: None, **hooks)


def doubled(data: Data) -> Data:
    def wide(split: TensorSource) -> TensorSource:
        return TensorSource({kind: t.double() for kind, t in split.batch.items()}, split.target)

    return Data(wide(data.train), wide(data.validation), data.task)


def by_hand(
    model: nn.Module, split: TensorSource, optimizer: torch.optim.LBFGS, rows: Tensor
) -> float:
    """A step of torch's own; the loss that it starts from."""

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(take(split.batch, rows)), split.target[rows])
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    return float(optimizer.step(closure))


def made(model: nn.Module, recipe: dict[str, Any]) -> torch.optim.LBFGS:
    arguments = {name: value for name, value in recipe.items() if name != "name"}
    return torch.optim.LBFGS(model.parameters(), **arguments)


def assert_equal(ours: nn.Module, theirs: nn.Module, tolerance: float = 0.0) -> None:
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(mine, other, rtol=tolerance, atol=tolerance)


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


class Trap(Noted):
    """Scores of a batch with a number above 100 are numbers the first time, and never again."""

    times = 0

    def forward(self, batch: Batch) -> Tensor:
        scores = super().forward(batch)
        if not (self.training and batch["numeric"].max() > 100):
            return scores
        self.times += 1
        return scores * (1.0 if self.times == 1 else math.nan)


@pytest.mark.parametrize(
    ("value", "recipe"), [(math.inf, SEARCH), (math.inf, PLAIN), (101.0, PLAIN)]
)
@pytest.mark.parametrize("number", [0, 2])
def test_a_step_that_meets_no_number_leaves_all_as_it_was(
    value: float, recipe: dict[str, Any], number: int
) -> None:
    data, clean, theirs = classification(48), classification(48), network()
    torch.manual_seed(7)
    ours = Trap()
    order = epoch_batches(48, 12, 5, 1)
    data.train.batch["numeric"][order[number][3], 2] = value
    (epoch,) = run(ours, data, train_params(epochs=1, batch_size=12, optimizer=recipe)).history

    optimizer = made(theirs, recipe)
    kept = [rows for step, rows in enumerate(order) if step != number]
    losses = [by_hand(theirs, clean.train, optimizer, rows) for rows in kept]
    assert epoch.skipped_steps == 1
    assert epoch.train_loss == pytest.approx(sum(losses) / 3, rel=1e-6)
    # What the optimizer remembers of the steps before is as it was, too.
    assert_equal(ours, theirs)


class Cliff(nn.Module):
    """No finite scores beyond a weight of 1, where gradient and loss would lead."""

    def __init__(self, beyond: float = math.inf) -> None:
        super().__init__()
        self.beyond = beyond
        self.weight = nn.Parameter(torch.zeros(1))
        self.seen: list[float] = []

    def forward(self, batch: Batch) -> Tensor:
        if self.training:
            self.seen.append(self.weight.item())
        beyond = torch.where(self.weight > 1, self.beyond, 0.0)
        return batch["numeric"][:, :1] * 0 + 3 * self.weight + beyond


def cliff(loss: str, **recipe: Any) -> tuple[Data, TrainParams]:
    """What `Cliff` is to learn, a batch an epoch: 4, for which its weight would be 4/3."""
    rows = TensorSource({"numeric": torch.zeros(8, 1)}, torch.full((8,), 4.0))
    changes = {"epochs": 4, "batch_size": 8, "loss": {"name": loss}}
    params = train_params(**changes, optimizer={"name": "LBFGS", **recipe})
    return Data(rows, rows, "regression"), params


def test_a_step_that_ends_in_no_number_is_put_back() -> None:
    # It starts well, and the optimizer itself never looks at where it ends.
    model = Cliff()
    with pytest.raises(DivergedError, match="in the one step of an epoch") as caught:
        run(model, *cliff("MSELoss", lr=5.0, max_iter=1))
    assert "first seen where the step would have ended" in str(caught.value)
    assert "or line_search_fn: strong_wolfe" in str(caught.value)
    # The last is the look for where it was.
    assert [weight > 1 for weight in model.seen] == [False, True, False]
    assert model.weight.item() == 0


# Beyond the cliff the slope of the one is no number, that of the other is.
@pytest.mark.parametrize(("loss", "beyond"), [("MSELoss", math.nan), ("L1Loss", math.inf)])
def test_a_line_search_goes_back_from_where_the_loss_is_no_number(loss: str, beyond: float) -> None:
    model = Cliff(beyond)
    data, params = cliff(loss, lr=2.5, max_iter=1, max_eval=20, line_search_fn="strong_wolfe")
    history = run(model, data, params).history
    assert max(model.seen) > 1
    assert 0.5 < model.weight.item() <= 1
    assert [epoch.skipped_steps for epoch in history] == [0, 0, 0, 0]


def test_a_learning_rate_that_has_come_down_to_nothing_moves_nothing() -> None:
    weights: list[Tensor] = []
    model = network()
    schedule = {"name": "warmup_cosine", "warmup": 0.0}
    params = train_params(epochs=3, batch_size=50, optimizer=SEARCH, schedule=schedule)
    check_names(params, "classification")

    def note(state: State) -> None:
        if state.totals.num_steps:
            weights.append(model.last.weight.detach().clone())

    history = run(model, classification(), params, on_step_end=note).history
    assert [epoch.learning_rate for epoch in history] == pytest.approx([0.5, 0.25, 0.0])
    assert not torch.equal(weights[0], weights[1])
    assert torch.equal(weights[1], weights[2])
    assert [epoch.skipped_steps for epoch in history] == [0, 0, 0]
    assert math.isfinite(history[2].gradient_norm)


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
