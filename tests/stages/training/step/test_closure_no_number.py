"""Steps of such an optimizer where the loss is no number, or the rate nothing."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from stages.tensors.batch import Batch
from stages.training.data.batching import epoch_batches
from stages.training.data.source import TensorSource
from stages.training.optim.preflight import check_names
from stages.training.params import TrainParams
from stages.training.state import Data, State
from stages.training.step.divergence import DivergedError
from tests.support.samples import classification, train_params
from tests.support.training.closures import (
    PLAIN,
    SEARCH,
    Noted,
    assert_equal,
    by_hand,
    made,
    network,
    run,
)


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
