"""The forward pass in fewer digits, against torch's own loop for it."""

import math

import pytest
import torch
from torch import Tensor, nn

from stages.tensors.batch import take
from stages.training.data.batching import epoch_batches
from stages.training.device.distributed import World
from stages.training.device.precision import DTYPES, choose_precision
from stages.training.loop import train
from stages.training.state import Data, State
from stages.training.step.divergence import DivergedError
from tests.support.samples import classification, train_params

CPU = torch.device("cpu")


class Recorded(nn.Module):
    """Two layers that note in what they compute."""

    def __init__(self, first: float = 1.0) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))
        self.first = first
        self.seen: set[tuple[bool, torch.dtype]] = set()

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        scores: Tensor = self.layers(batch["numeric"]) * self.first
        self.seen.add((self.training, scores.dtype))
        return scores


def network(first: float = 1.0) -> Recorded:
    torch.manual_seed(5)
    return Recorded(first)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_the_steps_are_those_of_torch_and_validation_is_in_float32(precision: str) -> None:
    data, ours, theirs = classification(num_rows=50), network(), network()
    params = train_params(epochs=3, precision=precision, clip_norm=0.5)
    result = train(ours, data, params, 7, World(), lambda *_: None)
    assert ours.seen == {(True, DTYPES[precision]), (False, torch.float32)}

    optimizer = torch.optim.SGD(theirs.parameters(), lr=0.1)
    scaler = torch.amp.GradScaler("cpu", enabled=precision == "fp16")
    for epoch in (1, 2, 3):
        total = 0.0
        for rows in epoch_batches(50, 16, 7, epoch):
            optimizer.zero_grad()
            with torch.autocast("cpu", DTYPES[precision]):
                scores = theirs(take(data.train.batch, rows))
            loss = nn.functional.cross_entropy(scores.float(), data.train.target[rows])
            scaler.scale(loss).backward()
            scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(theirs.parameters(), 0.5)
            scaler.step(optimizer)
            scaler.update()
            total += loss.item() * len(rows)
        assert result.history[epoch - 1].train_loss == pytest.approx(total / 50, rel=1e-6)
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert mine.dtype == torch.float32
        torch.testing.assert_close(mine, other, rtol=1e-6, atol=1e-7)


def run_and_look(first: float, **changes: object) -> tuple[list[float], list[int]]:
    """A training whose scores are `first` times as large; the factors, and the steps skipped."""
    factors: list[float] = []

    def look(state: State) -> None:
        assert state.scaler is not None
        factors.append(state.scaler.get_scale())

    data: Data = classification(num_rows=160)
    params = train_params(epochs=2, precision="fp16", **changes)
    result = train(network(first), data, params, 7, World(), lambda *_: None, on_step_end=look)
    assert all(math.isfinite(epoch.train_loss) for epoch in result.history)
    return factors, [epoch.skipped_steps for epoch in result.history]


def test_steps_that_overflow_halve_the_factor_and_are_not_applied() -> None:
    factors, skipped = run_and_look(60.0)
    # More of them on end than would end a training in float32.
    assert factors[5] == 2.0**10
    assert skipped[0] >= 6
    assert factors[-1] == 2.0 ** (16 - sum(skipped))


def test_what_no_factor_mends_ends_the_training() -> None:
    with pytest.raises(DivergedError, match="21 steps in a row"):
        run_and_look(math.inf, batch_size=4)


def test_auto_is_float32_where_no_gpu_computes_in_less() -> None:
    assert choose_precision("auto", CPU) == "fp32"
    assert choose_precision("bf16", CPU) == "bf16"
