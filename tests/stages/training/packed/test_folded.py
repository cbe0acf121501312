"""A model of fully connected layers without `vmap`: the same scores, and only where it may be."""

import copy

import pytest
import torch
from torch import Tensor, nn

from stages.training.packed.masks import make_ones
from stages.training.packed.pack import Member, make_pack
from stages.training.packed.packable import why_no_step
from tests.support.samples import classification, train_params
from tests.support.training.models import SPECS, named, pixels


class Centred(nn.Module):
    """Looks at all rows of a batch, as a fold may not; in evaluation alone, if it is told so."""

    def __init__(self, *, always: bool) -> None:
        super().__init__()
        self.layer, self.always = nn.Linear(4, 3), always

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        scores: Tensor = self.layer(batch["numeric"])
        return scores - scores.mean(dim=0) if self.always or not self.training else scores


class Tied(nn.Module):
    """Reads a weight past its layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, 4), nn.Linear(4, 3)

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        hidden = torch.relu(self.first(batch["numeric"]))
        scores: Tensor = self.last(nn.functional.linear(hidden, self.first.weight.T))
        return scores


class CentredBehindZeros(nn.Module):
    """Looks at all rows of a batch, which its last layer hides until it has learnt."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, 4), nn.Linear(4, 3)
        nn.init.zeros_(self.last.weight)

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        hidden = torch.relu(self.first(batch["numeric"]))
        scores: Tensor = self.last(hidden - hidden.mean(0))
        return scores


class FeaturesFirst(nn.Module):
    """Its layers have the rows behind the features."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(1, 3), nn.Linear(3, 3)

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        scores: Tensor = self.last(torch.relu(self.first(batch["numeric"].T[..., None])).mean(0))
        return scores


@pytest.mark.parametrize("make", [Tied, CentredBehindZeros, FeaturesFirst])
def test_members_that_begin_with_the_same_weights_hide_nothing(make: type[nn.Module]) -> None:
    model = make()
    models = [copy.deepcopy(model) for _ in range(2)]
    pack = make_pack([Member(each, classification(), train_params(), 0) for each in models])
    assert pack.folded is None
    assert why_no_step(pack) is None
    # To look has changed no weight.
    assert all(map(torch.equal, pack.weights, pack.layout.stack(models)))


@pytest.mark.parametrize("kind", ["linear", "mlp"])
def test_scores_and_gradients_are_those_of_vmap(kind: str) -> None:
    members = [
        Member(named(kind).double(), pixels(kind), train_params(), seed) for seed in range(3)
    ]
    pack = make_pack(members)
    assert pack.folded is not None
    batch, _ = pixels(kind).train.take(torch.arange(12))
    batch = {name: values.unflatten(0, (3, 4)) for name, values in batch.items()}
    found = []
    for folded in (pack.folded, None):
        pack.folded = folded
        weights = [matrix.detach().requires_grad_() for matrix in pack.weights]
        masks = make_ones(pack.calls, 3, 4)
        scores = pack.score(pack.layout.name(weights), pack.constants, batch, masks)
        found.append([scores, *torch.autograd.grad(scores.square().sum(), weights)])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


def test_other_weights_and_a_look_at_other_rows_are_left_to_vmap() -> None:
    for kind in SPECS:
        rows = pixels(kind, dtype=torch.float32)
        pack = make_pack([Member(named(kind), rows, train_params(), n) for n in range(2)])
        assert (pack.folded is not None) == (kind in ("linear", "mlp")), kind
    for always in (True, False):
        models = [Centred(always=always) for _ in range(2)]
        members = [Member(m, classification(), train_params(), n) for n, m in enumerate(models)]
        pack = make_pack(members)
        assert pack.folded is None
        assert why_no_step(pack) is None
