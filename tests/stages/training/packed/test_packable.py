"""What trains in a pack and what does not, with the reason."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from stages.model.dropout import Dropout
from stages.model.layers import register_constant
from stages.training.packed.pack import Member, make_pack
from stages.training.packed.packable import why_no_step, why_not_members, why_not_recipe
from tests.support.samples import classification, train_params
from tests.support.training.models import SPECS, named, pixels

# Of torch's attention there is no batched form.
NOT_PACKED = {"transformer": "attention", "huggingface": "data-dependent control flow"}


class Normed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(36, 3), nn.BatchNorm1d(3))

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        scores: Tensor = self.layers(batch["numeric"])
        return scores


class Fitted(nn.Module):
    """Keeps what it finds in rows where the pack does not see it; has a weight that it ignores."""

    def __init__(self) -> None:
        super().__init__()
        self.output, self.spare, self.factor = nn.Linear(36, 3), nn.Linear(2, 2), 1.0

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        scores: Tensor = self.output(batch["numeric"]) * self.factor
        return scores


class Own(nn.Module):
    """A model of one's own, with what members of a pack may have each for itself."""

    def __init__(
        self,
        layer: nn.Module | None = None,
        *,
        frozen: bool = False,
        fails: bool = False,
        **kept: Any,
    ) -> None:
        super().__init__()
        self.first, self.layer = nn.Linear(36, 3), layer or nn.ReLU()
        self.second, self.fails = nn.Linear(3, 3), fails
        self.first.requires_grad_(not frozen)
        for name, value in kept.items():
            setattr(self, name, value)

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        scores: Tensor = self.second(self.layer(self.first(batch["numeric"])))
        if self.fails and not self.training:
            scores = scores * scores.mean().item()
        return scores


def reason(models: list[nn.Module], kind: str = "mlp") -> str | None:
    params = train_params()
    members = [
        Member(m, pixels(kind, dtype=torch.float32), params, n) for n, m in enumerate(models)
    ]
    return why_not_members(members) or why_no_step(make_pack(members))


def test_models_of_the_zoo_train_in_packs_but_for_those_that_vmap_has_no_rule_for() -> None:
    for kind in SPECS:
        why = reason([named(kind), named(kind)], kind)
        if kind in NOT_PACKED:
            assert why is not None
            assert NOT_PACKED[kind] in why
        else:
            assert why is None, f"{kind}: {why}"


def test_models_of_ones_own_that_a_pack_would_change_are_left_alone() -> None:
    assert "random" in str(reason([named("draws"), named("draws")]))
    assert "batch norm" in str(reason([Normed(), Normed()]))
    told = Own()
    told.register_buffer("bins", torch.ones(3))
    assert "a step may move, as a batch norm's are: bins; one" in str(reason([told, told]))
    assert "register_constant of stages/model/layers.py" in str(reason([told, told]))
    constant = Own()
    register_constant(constant, "bins", torch.ones(3))
    assert reason([constant, constant]) is None
    one, other = Fitted(), Fitted()
    assert "no part" in str(reason([one, other]))
    other.factor = 2.0
    assert "beside weights" in str(reason([one, other]))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"objective": {"name": "mixup"}}, "mixup"),
        ({"swa": {"start": 2, "lr": None}}, "train.swa"),
        ({"optimizer": {"name": "LBFGS"}}, "LBFGS"),
        ({"optimizer": {"name": "RMSprop"}}, "RMSprop"),
        ({"optimizer": {"name": "AdamW", "amsgrad": True}}, "amsgrad"),
        ({"micro_batch_size": 4}, "micro_batch_size"),
        ({"precision": "bf16"}, "bf16"),
    ],
)
def test_keys_that_a_pack_does_not_know_are_named(changes: dict[str, Any], said: str) -> None:
    assert said in str(why_not_recipe(train_params(**changes), "cpu", 1))


def test_a_usual_recipe_is_taken_on_one_process_of_a_cpu() -> None:
    params = train_params(optimizer={"name": "AdamW"}, ema=0.9, clip_norm=1.0)
    assert why_not_recipe(params, "cpu", 1) is None
    assert "cuda" in str(why_not_recipe(params, "cuda", 1))
    assert "processes" in str(why_not_recipe(params, "cpu", 2))


def test_members_of_other_shapes_are_no_pack() -> None:
    data = classification()
    ours = [Member(nn.Linear(4, 3), data, train_params(), 0)]
    others = (
        Member(nn.Linear(4, 3), data, train_params(batch_size=8), 0),
        Member(nn.Linear(4, 3), data, train_params(optimizer={"name": "AdamW"}), 0),
        Member(nn.Linear(4, 3, bias=False), data, train_params(), 0),
    )
    for other in others:
        assert "differ" in str(why_not_members([*ours, other]))

    def grouped(*rates: float | None) -> Member:
        names = zip(("weight", "bias"), rates, strict=True)
        groups = [{"match": name, "lr": rate, "frozen": False} for name, rate in names]
        return Member(nn.Linear(4, 3), data, train_params(groups=groups), 0)

    assert why_not_members([grouped(0.1, None), grouped(0.2, None)]) is None
    assert "differ" in str(why_not_members([grouped(0.1, 0.2), grouped(0.1, 0.1)]))


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (Own(nn.ReLU()), Own(nn.SiLU())),
        (Own(nn.Identity()), Own(Dropout(0.5))),
        (Own(_scale=1.0), Own(_scale=5.0)),
        (Own(p=2), Own(p=3)),
        (Own(scale=np.ones(3)), Own(scale=np.zeros(3))),
        (Own(scales=[torch.ones(2)]), Own(scales=[torch.zeros(2)])),
        (Own(frozen=True), Own()),
        (Own(fails=True), Own(fails=True)),
    ],
)
def test_models_that_compute_other_things_are_no_pack(first: Own, second: Own) -> None:
    assert reason([first, second]) is not None
    assert reason([second, first]) is not None


def test_models_that_keep_the_same_are_one() -> None:
    kept: dict[str, Any] = {"scale": np.ones(3), "scales": [torch.ones(2)], "_names": {"a": (1, 2)}}
    assert reason([Own(**kept), Own(**copy.deepcopy(kept))]) is None
    assert reason([Own(Dropout(0.0)), Own(Dropout(0.5))]) is None
