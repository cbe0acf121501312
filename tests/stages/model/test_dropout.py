"""Dropout whose masks are a function of seed, epoch, step and row."""

import re

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from stages.model.dropout import Dropout, share_dropout_rng
from stages.model.model import make_model
from stages.tensors.batch import take
from stages.training.data.batching import shard
from stages.training.device.distributed import World
from tests.conftest import ROOT
from tests.support.training.models import SPECS, pixels


@pytest.mark.parametrize("size", [2, 3, 5])
@pytest.mark.parametrize("kind", ["mlp", "cnn"])
def test_dropout_does_not_depend_on_the_number_of_processes(kind: str, size: int) -> None:
    split = pixels(kind).train
    network = make_model(SPECS[kind], seed=4).double().train()
    dropout_rng = share_dropout_rng(network, torch.device("cpu"))
    dropout_rng.begin_epoch(seed=9, epoch=2)

    def gradient(rows: Tensor, world: World, step: int) -> Tensor:
        mine, share = shard(len(rows), world)
        dropout_rng.begin_step(step, len(rows), mine)
        scores = network(take(split.batch, rows[mine]))
        loss = F.cross_entropy(scores, split.target[rows[mine]]) * share
        return torch.cat(
            [g.flatten() for g in torch.autograd.grad(loss, list(network.parameters()))]
        )

    # The last batch has fewer rows than there are processes.
    for step, rows in enumerate(torch.split(torch.randperm(45), 22)):
        alone = gradient(rows, World(), step)
        together = [gradient(rows, World(rank, size), step) for rank in range(size)]
        torch.testing.assert_close(torch.stack(together).mean(dim=0), alone, rtol=1e-10, atol=1e-12)


def test_dropout_is_a_function_of_seed_epoch_and_step() -> None:
    ones, layer = torch.ones(8, 100), Dropout(0.3).train()
    dropout_rng = share_dropout_rng(layer, ones.device)

    def drawn(seed: int, epoch: int, step: int) -> list[Tensor]:
        dropout_rng.begin_epoch(seed, epoch)
        dropout_rng.begin_step(step, 8, slice(None))
        torch.manual_seed(len(found))
        return [layer(ones), layer(ones)]

    found: list[Tensor] = []
    for key in ((0, 1, 0), (1, 1, 0), (0, 2, 0), (0, 1, 1)):
        first, again = drawn(*key), drawn(*key)
        assert all(map(torch.equal, first, again))
        found += first
    assert len({mask.numpy().tobytes() for mask in found}) == 8
    for mask in found:
        assert mask.unique().tolist() == pytest.approx([0.0, 1 / 0.7], rel=1e-4)
        assert mask.mean().item() == pytest.approx(1, abs=0.15)
    assert torch.equal(layer.eval()(ones), ones)
    assert Dropout(0.0).train()(ones) is ones
    with pytest.raises(ValueError, match="rows first"):
        layer.train()(ones.T)
    # Outside of a training it is torch's own.
    dropout_rng.end_epoch()
    torch.manual_seed(1)
    ours = layer(ones.T)
    torch.manual_seed(1)
    assert torch.equal(ours, F.dropout(ones.T, 0.3))


def test_no_model_of_the_zoo_has_layers_that_see_how_a_batch_is_divided() -> None:
    for file in (ROOT / "stages/zoo/models").glob("*.py"):
        code = file.read_text(encoding="utf-8")
        made = re.findall(r"\b(?:Dropout|BatchNorm)\w*\(|nn\.Dropout\w*\(", code)
        # The project's own `Dropout(` alone; a model of others may be searched for theirs.
        assert {*made} <= {"Dropout("}, f"{file}: {made}"
