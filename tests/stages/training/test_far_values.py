"""A sentinel in a validation row is named: split, row, column and value, not the learning rate."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from stages.common.errors import UserError
from stages.features.schema import Moments
from stages.tensors.batch import Batch
from stages.training.data.source import TensorSource
from stages.training.device.distributed import World
from stages.training.far_values import describe_far, find_far
from stages.training.loop import train
from stages.training.state import Data
from stages.training.step.divergence import DivergedError
from tests.support.samples import regression, train_params

pytestmark = pytest.mark.usefixtures("one_thread")
COLUMNS = {name: Moments(mean=50.0, deviation=10.0) for name in ("age", "size", "dose", "time")}
FLT_MAX = 3.4028234e38


class Linear(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 1)

    def forward(self, batch: Batch) -> torch.Tensor:
        scores: torch.Tensor = self.layer(batch["numeric"])
        return scores


def data_with(value: float, column: int | None = 2) -> Data:
    """The row 'row 7' of validation has `value`, as the file would say it; None: for a target."""
    data = replace(regression(), columns=COLUMNS, mean=100.0, deviation=2.0)
    split = data.validation
    assert isinstance(split, TensorSource)
    if column is None:
        split.target[7] = (value - 100.0) / 2.0
    else:
        split.batch["numeric"][7, column] = (value - 50.0) / 10.0
    keys = np.array([f"row {number}" for number in range(len(split))])
    return replace(data, validation=TensorSource(split.batch, split.target, keys))


def stopped(data: Data, **changes: object) -> UserError:
    params = train_params(loss={"name": "MSELoss"}, **changes)
    with pytest.raises(UserError) as caught:
        train(Linear(), data, params, 7, World(), lambda *_: None)
    return caught.value


@pytest.mark.parametrize(("column", "name"), [(2, "'dose'"), (None, "the target")])
def test_a_sentinel_is_named_and_not_the_learning_rate(column: int | None, name: str) -> None:
    error = stopped(data_with(FLT_MAX, column))
    # For a search it is no trial that diverged: all would.
    assert not isinstance(error, DivergedError)
    (problem,) = error.problems
    assert problem.key == "prepare.source"
    assert f"the row with the key row 7 of validation has 3.40282e+38 in {name}" in problem.message
    assert "learning rate" not in problem.message


def test_a_smaller_one_is_said_before_the_training() -> None:
    data = data_with(9999999.0, 0)
    far = find_far(data.validation, data)
    assert far is not None
    said = describe_far(far, "validation", data.validation)
    assert "the row with the key row 7 of validation has 1e+07 in 'age', 1e+06 deviations" in said


def test_what_is_no_sentinel_is_not_blamed() -> None:
    data = data_with(120.0)
    assert find_far(data.validation, data) is None
    error = stopped(data, optimizer={"name": "SGD", "lr": 1e30}, clip_norm=None)
    assert isinstance(error, DivergedError)
