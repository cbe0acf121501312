"""How many rows go through a model at once where no step learns from them."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from stages.common.errors import UserError
from stages.tensors.batch import Batch
from stages.train.calibrate import score
from stages.training.averaging import batch_norms, recompute_norms
from stages.training.data import source as sources
from stages.training.data.source import TensorSource, rows_at_once
from stages.training.device.distributed import World
from stages.training.device.out_of_memory import (
    ProcessOutOfMemoryError,
    halve_micro_batch,
    read_oom_hints,
    write_oom_hint,
)
from stages.training.loop import validate
from tests.support.samples import (
    classification,
    train_params,
)
from tests.support.training.models import (
    DROPPED,
    assert_same,
    model,
    run,
    weights_of,
)

pytestmark = pytest.mark.usefixtures("one_thread")


def rows_of(*shape: int, num_rows: int = 5000) -> TensorSource:
    """As many rows as are wanted, in the memory of one number."""
    values = torch.zeros(()).expand(num_rows, *shape)
    return TensorSource({"image": values}, torch.zeros(num_rows, dtype=torch.int64))


def test_large_rows_are_fewer_at_once_and_small_ones_as_many_as_ever() -> None:
    assert rows_at_once(rows_of(1)) == 4096
    assert rows_at_once(rows_of(8192)) == 4096
    assert rows_at_once(rows_of(8193)) == 4095
    assert rows_at_once(rows_of(3, 224, 224)) == 222
    assert rows_at_once(rows_of(2**20, 64)) == 1
    # All kinds count, and how many rows there are does not.
    both = {"numeric": torch.zeros(3, 6000), "categorical": torch.zeros(3, 6000, dtype=torch.int64)}
    assert rows_at_once(TensorSource(both, torch.zeros(3))) == 2796


class Noting(nn.Module):
    """A batch norm and a layer; notes how many rows come at once."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.norm, self.last = nn.BatchNorm1d(4), nn.Linear(4, 3)
        self.seen: list[int] = []

    def forward(self, batch: Batch) -> Tensor:
        self.seen.append(len(batch["numeric"]))
        scores: Tensor = self.last(self.norm(batch["numeric"]))
        return scores


def test_validation_norms_and_calibration_take_as_many_as_the_rule_has(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data, model = classification(50), Noting()
    loss_of = nn.CrossEntropyLoss()
    whole = validate(model, data.validation, loss_of, data, World())
    scores, _ = score(model, data.validation)
    assert model.seen == [30, 30]
    # Rows of four numbers.
    monkeypatch.setattr(sources, "MAX_NUMBERS", 4 * 12 + 3)
    model.seen.clear()
    assert validate(model, data.validation, loss_of, data, World()) == pytest.approx(whole)
    assert model.seen == [12, 12, 6]
    model.seen.clear()
    assert score(model, data.validation)[0] == pytest.approx(scores, rel=1e-5)
    assert model.seen == [12, 12, 6]
    model.seen.clear()
    recompute_norms(model, batch_norms(model, model, ()), data.train, torch.arange(50), World())
    assert model.seen == [10, 10, 10, 10, 10]


def test_the_fewest_rows_that_any_process_noted_are_those_of_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert read_oom_hints(None, 5, World()) == 5
    assert read_oom_hints(tmp_path, None, World()) is None
    write_oom_hint(tmp_path, ProcessOutOfMemoryError(0, 32, 16, None))
    write_oom_hint(tmp_path, ProcessOutOfMemoryError(1, 31, 16, None))
    # Of another machine.
    monkeypatch.setattr(World, "gather", lambda _, notes: [notes, [[16, 8]]])
    assert read_oom_hints(tmp_path, None, World()) == 8
    assert "out of memory with 16 rows at once: 8 from here on" in capsys.readouterr().out
    # A checkpoint that was made since then has it already, and it is not said again.
    assert read_oom_hints(tmp_path, 8, World()) == 8
    assert read_oom_hints(tmp_path, 4, World()) == 4
    assert capsys.readouterr().out == ""


def test_one_of_several_processes_does_not_halve_by_itself() -> None:
    with pytest.raises(
        ProcessOutOfMemoryError, match="process 1 is out of memory with 9 rows at once; try 5"
    ):
        halve_micro_batch(None, 9, World(1, 2))
    with pytest.raises(UserError, match="not hold a single row"):
        halve_micro_batch(1, 9, World(1, 2))


def hungry(network: nn.Module, most: int, error: BaseException) -> None:
    """Let a training forward pass of more than `most` rows fail as if the memory were full."""

    def refuse(module: nn.Module, inputs: tuple[dict[str, torch.Tensor]]) -> None:
        if module.training and len(inputs[0]["numeric"]) > most:
            raise error

    network.register_forward_pre_hook(refuse)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 4 bytes"),
        MemoryError(),
    ],
)
def test_where_the_memory_is_full_fewer_rows_at_once_make_the_same_batch(
    error: BaseException, capsys: pytest.CaptureFixture[str]
) -> None:
    data, asked = classification(num_rows=50), train_params(**DROPPED)
    full, planned = model(), model()
    hungry(full, 5, error)
    result = run(full, data, asked)
    # 22, 11, 6, then 3: the same training as with so many from the start, to the bit.
    told = run(planned, data, train_params(**DROPPED, micro_batch_size=3))
    assert_same(weights_of(full), weights_of(planned), tolerance=0.0)
    assert result.history == told.history
    assert (result.micro_batch_size, told.micro_batch_size) == (3, 3)
    assert "out of memory with 22 rows at once: 11" in (said := capsys.readouterr().out)
    assert said.count("out of memory") == 3


def test_a_model_too_large_for_one_row_and_any_other_error_end_the_training() -> None:
    network = model()
    hungry(network, 0, torch.OutOfMemoryError("full"))
    with pytest.raises(UserError, match="does not hold a single row"):
        run(network, classification(), train_params())
    network = model()
    hungry(network, 0, RuntimeError("of another kind"))
    with pytest.raises(RuntimeError, match="of another kind"):
        run(network, classification(), train_params())
