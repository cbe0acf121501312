"""A batch norm and a batch of one row: said before the first step, with the key to edit."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from stages.common.errors import UserError
from stages.tensors.batch import Batch
from stages.training.device.distributed import World
from stages.training.loop import train
from stages.training.step.one_row import find_single
from tests.support.samples import classification, train_params

pytestmark = pytest.mark.usefixtures("one_thread")


class Normed(nn.Module):
    """A batch norm over the rows, or over the rows and what lies beside them."""

    def __init__(self, *, wide: bool = False) -> None:
        super().__init__()
        self.wide = wide
        self.first, self.norm = nn.Linear(4, 6), nn.BatchNorm1d(6)
        self.last = nn.Linear(6, 3)
        self.num_calls = 0

    def forward(self, batch: Batch) -> Tensor:
        self.num_calls += 1
        hidden = self.first(batch["numeric"])
        if self.wide:
            hidden = self.norm(torch.stack([hidden, 2 * hidden], dim=2)).mean(2)
        else:
            hidden = self.norm(hidden)
        scores: Tensor = self.last(hidden)
        return scores


def run(model: nn.Module, num_rows: int, **changes: Any) -> None:
    params = train_params(epochs=1, **changes)
    train(model, classification(num_rows), params, 7, World(), lambda *_: None)


@pytest.mark.parametrize(
    ("num_rows", "changes", "says", "key"),
    [
        (33, {"batch_size": 16}, "33 rows in batches of 16 leave a batch", "train.batch_size"),
        (8, {"batch_size": 1}, "each batch has one row", "train.batch_size"),
        (32, {"micro_batch_size": 5}, "16 rows in parts of 5 leave", "train.micro_batch_size"),
    ],
)
def test_one_row_alone_is_said_before_the_first_step(
    num_rows: int, changes: dict[str, Any], says: str, key: str
) -> None:
    model = Normed()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(UserError, match=says) as caught:
        run(model, num_rows, **changes)
    (problem,) = caught.value.problems
    assert problem.key == key
    assert "Expected more than 1 value per channel" in problem.message
    assert model.num_calls == 1
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_what_can_be_trained_is_trained() -> None:
    run(Normed(), 34, batch_size=16)
    # It has two numbers of a row to take the variance of.
    run(Normed(wide=True), 33, batch_size=16)
    groups = [{"match": "norm.*", "lr": None, "frozen": True}]
    run(Normed(), 33, batch_size=16, groups=groups)


def test_a_row_that_a_process_has_alone_counts() -> None:
    def found(num_rows: int, size: int) -> str | None:
        problem = find_single(num_rows, train_params(batch_size=16), World(0, size))
        return None if problem is None else problem.message

    assert found(32, 2) is None
    assert found(19, 2) == "of a batch of 3 rows one of 2 processes has one row"
    # The one without a row of its own takes part with one.
    assert found(18, 4) == "of a batch of 2 rows one of 4 processes has one row"
