"""What a model counts beside its weights is that of the steps that were applied, and of no other.

Every test compares with a training that was never shown the batch that is not applied, to the bit.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from stages.tensors.batch import Batch
from stages.training.build import Assembly, StepFn, assemble
from stages.training.data.batching import epoch_batches, local_batches
from stages.training.device.distributed import World
from stages.training.device.fsdp import local
from stages.training.loop import train
from stages.training.state import Data, State
from stages.training.step.step import train_step_on_device
from tests.support.samples import classification, train_params

pytestmark = pytest.mark.usefixtures("one_thread")

SEED, NUM_ROWS, BATCH, POISONED = 7, 112, 16, 5
LBFGS = {"name": "LBFGS", "lr": 0.3, "max_iter": 3}
SEARCH = {"name": "LBFGS", "lr": 0.5, "max_iter": 3, "line_search_fn": "strong_wolfe"}
ADAMW = {"name": "AdamW", "lr": 0.01}


class Normed(nn.Module):
    """Batch norm, and a mean of its own that each forward pass puts another tensor in place of."""

    mean: Tensor

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.first, self.norm, self.last = nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Linear(6, 3)
        self.register_buffer("mean", torch.zeros(4))

    def forward(self, batch: Batch) -> Tensor:
        values = batch["numeric"]
        if self.training:
            self.mean = 0.9 * self.mean + 0.1 * values.mean(dim=0)
        scores: Tensor = self.last(self.norm(self.first(values - 0.1 * self.mean)).tanh())
        return scores


def poisoned(number: int) -> Data:
    """Rows of which one, of the batch of that number in the first epoch, is no number."""
    data = classification(NUM_ROWS)
    row = epoch_batches(NUM_ROWS, BATCH, SEED, 1)[number][4]
    data.train.batch["numeric"][row, 2] = math.nan
    return data


def usual(made: Assembly) -> StepFn:
    return made.train_step


def on_device(made: Assembly) -> StepFn:
    """As on a device that nobody waits for."""
    return partial(train_step_on_device, made.context)


def learn(
    data: Data,
    without: int | None,
    step_of: Callable[[Assembly], StepFn] = usual,
    world: World | None = None,
    model: nn.Module | None = None,
    **changes: Any,
) -> dict[str, Tensor]:
    """What a model is after the steps of the first epoch, `without` one of them."""
    params = train_params(**{"optimizer": ADAMW, **changes})
    world, model = world or World(), model or Normed()
    made = assemble(model, data, params, SEED, world)
    take_step = step_of(made)
    made.context.wrapped_model.train()
    made.context.dropout_rng.begin_epoch(SEED, 1)
    order = epoch_batches(NUM_ROWS, BATCH, SEED, 1)
    for number, batch in enumerate(local_batches(data.train, order, world, SEED)):
        if number != without:
            take_step(batch, made.state)
    assert int(made.state.totals.steps_applied) == len(order) - 1
    return {name: local(value).clone() for name, value in model.state_dict().items()}


def assert_equal(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        assert torch.equal(value, theirs[name]), name


RECIPES: dict[str, dict[str, Any]] = {
    "plain": {},
    "micro-batches": {"micro_batch_size": 6},
    "closure": {"optimizer": LBFGS},
    "line search": {"optimizer": SEARCH},
}


@pytest.mark.parametrize("name", RECIPES)
def test_a_step_that_is_not_applied_counts_nothing(name: str) -> None:
    ours = learn(poisoned(POISONED), None, **RECIPES[name])
    assert_equal(ours, learn(classification(NUM_ROWS), POISONED, **RECIPES[name]))


@pytest.mark.parametrize("size", [None, 6])
@pytest.mark.parametrize("optimizer", [ADAMW, {"name": "Rprop", "lr": 0.01}])
def test_on_a_device_that_nobody_waits_for_it_counts_nothing(
    size: int | None, optimizer: dict[str, Any]
) -> None:
    changes = {"micro_batch_size": size, "optimizer": optimizer}
    ours = learn(poisoned(POISONED), None, on_device, **changes)
    assert_equal(ours, learn(classification(NUM_ROWS), POISONED, on_device, **changes))


class Growing(Normed):
    """Notes a number more in each forward pass."""

    means: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("means", torch.zeros(0))

    def forward(self, batch: Batch) -> Tensor:
        if self.training:
            self.means = torch.cat([self.means, batch["numeric"].mean().reshape(1)])
        return super().forward(batch)


@pytest.mark.parametrize("step_of", [usual, on_device])
def test_a_buffer_of_another_shape_is_put_back_too(
    step_of: Callable[[Assembly], StepFn],
) -> None:
    ours = learn(poisoned(POISONED), None, step_of, model=Growing())
    assert len(ours["means"]) == 6
    assert_equal(ours, learn(classification(NUM_ROWS), POISONED, step_of, model=Growing()))


class Hungry(Normed):
    """Finds the memory full for more than 5 rows, when its norms have counted them."""

    def forward(self, batch: Batch) -> Tensor:
        scores = super().forward(batch)
        if self.training and len(scores) > 5:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return scores


@pytest.mark.parametrize(
    # A closure is waited for on any device.
    ("step_of", "optimizer"),
    [(usual, ADAMW), (on_device, ADAMW), (usual, LBFGS)],
)
def test_what_the_memory_did_not_hold_is_counted_once(
    step_of: Callable[[Assembly], StepFn], optimizer: dict[str, Any]
) -> None:
    data = poisoned(POISONED)
    ours = learn(data, None, step_of, model=Hungry(), optimizer=optimizer)
    # 16, 8, then 4.
    planned = {"optimizer": optimizer, "micro_batch_size": 4}
    assert_equal(ours, learn(data, None, step_of, **planned))


@pytest.mark.parametrize("changes", [{}, {"ema": 0.9}, {"swa": {"start": 2, "lr": None}}])
def test_no_checkpoint_and_no_validation_meets_what_is_no_number(changes: dict[str, Any]) -> None:
    data, saved = classification(NUM_ROWS), list[bool]()
    data.train.batch["numeric"][11, 2] = math.nan

    def save(state: State) -> None:
        values = state.model.state_dict().values()
        saved.append(all(bool(value.isfinite().all()) for value in values))

    params = train_params(optimizer=ADAMW, batch_size=BATCH, early_stopping=None, **changes)
    result = train(Normed(), data, params, SEED, World(), lambda *_: None, on_step_end=save)
    assert [epoch.skipped_steps for epoch in result.history] == [1, 1, 1]
    assert all(math.isfinite(epoch.validation_loss) for epoch in result.history)
    assert all(value.isfinite().all() for value in result.weights.values())
    assert len(saved) == 24
    assert all(saved)
