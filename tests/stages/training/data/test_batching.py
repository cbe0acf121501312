"""Which rows make a batch, and which of them a process has."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812
from torch.utils._python_dispatch import TorchDispatchMode

from stages.training.data.batching import epoch_batches, shard
from stages.training.data.source import TensorSource
from stages.training.device.distributed import World
from tests.support.samples import classification
from tests.support.training.models import doubled, model, order_of


def test_batches_hold_every_row_once_in_an_order_of_seed_and_epoch() -> None:
    first = [rows.tolist() for rows in epoch_batches(50, 16, seed=2, epoch=1)]
    assert [len(rows) for rows in first] == [16, 16, 16, 2]
    assert [row for rows in first for row in rows] == order_of(50, 2, 1).tolist()
    torch.manual_seed(99)
    assert [rows.tolist() for rows in epoch_batches(50, 16, seed=2, epoch=1)] == first
    for seed, epoch in ((3, 1), (2, 2), (1, 2)):
        assert [rows.tolist() for rows in epoch_batches(50, 16, seed=seed, epoch=epoch)] != first


def test_the_order_of_an_epoch_goes_to_a_device_at_once() -> None:
    copied: list[torch.Size] = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(
            self, call: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> object:
            if call is torch.ops.aten._to_copy.default:
                copied.append(args[0].shape)
            return call(*args, **(kwargs or {}))

    # A device that is not the host, and holds no numbers.
    target = torch.empty(70, dtype=torch.int64, device="meta")
    split = TensorSource({"numeric": torch.empty(70, 4, device="meta")}, target)
    with Watch():
        fed = list(split.feed(epoch_batches(70, 16, 0, 1), 0))
    assert [len(rows) for _, rows in fed] == [16, 16, 16, 16, 6]
    assert copied == [(70,)]


@pytest.mark.parametrize("size", [1, 2, 3, 5])
@pytest.mark.parametrize("num_rows", [1, 2, 7, 16])
def test_shards_of_a_batch_average_to_its_gradient(size: int, num_rows: int) -> None:
    data = doubled(classification())
    network = model().double()
    rows = torch.randperm(50)[:num_rows]

    def gradient(rows: Tensor, share: float) -> Tensor:
        scores = network({"numeric": data.train.batch["numeric"][rows]})
        loss = F.cross_entropy(scores, data.train.target[rows]) * share
        return torch.cat(
            [g.flatten() for g in torch.autograd.grad(loss, list(network.parameters()))]
        )

    shards = [shard(len(rows), World(rank, size)) for rank in range(size)]
    mean = torch.stack([gradient(rows[mine], share) for mine, share in shards]).mean(dim=0)
    torch.testing.assert_close(mean, gradient(rows, 1.0), rtol=1e-10, atol=1e-12)
    weighed = torch.cat([rows[mine] for mine, share in shards if share])
    assert sorted(weighed.tolist()) == sorted(rows.tolist())
