"""Networks, and steps of torch's LBFGS on them by hand."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from stages.model.dropout import Dropout
from stages.tensors.batch import Batch, take
from stages.training.data.source import TensorSource
from stages.training.device.distributed import World
from stages.training.loop import train
from stages.training.params import TrainParams
from stages.training.state import Data, Result

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
