"""Groups of weights: what moves, by which rate, and what does not."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from stages.common.config import validate
from stages.common.errors import UserError
from stages.tensors.batch import Batch
from stages.train.checkpoints.checkpoint import copied, load_state_dict, rank_state_dict, state_dict
from stages.training.build import assemble
from stages.training.data.batching import epoch_batches
from stages.training.device.distributed import World
from stages.training.loop import train
from stages.training.optim.optimizer import make_optimizer
from stages.training.optim.param_groups import check_groups
from stages.training.optim.preflight import check_names
from stages.training.optim.schedule import make_schedule
from stages.training.params import TrainParams
from stages.training.state import Data, Result, State
from tests.support.samples import (
    classification,
    mixed_table,
    run_stages,
    small_project,
    train_params,
)

NAMES = ("body.weight", "body.bias", "norm.weight", "norm.bias", "head.weight", "head.bias")


class Network(nn.Module):
    """A body, a batch norm and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(4, 6)
        self.norm = nn.BatchNorm1d(6)
        self.head = nn.Linear(6, 3)

    def forward(self, batch: Batch) -> Tensor:
        scores: Tensor = self.head(self.norm(self.body(batch["numeric"])).tanh())
        return scores


def network() -> Network:
    torch.manual_seed(3)
    return Network().double()


def data() -> Data:
    made = classification(num_rows=48)
    for split in (made.train, made.validation):
        split.batch["numeric"] = split.batch["numeric"].double()
    return made


def group(match: str, lr: float | None = None, *, frozen: bool = False) -> dict[str, Any]:
    return {"match": match, "lr": lr, "frozen": frozen}


def run(model: nn.Module, params: TrainParams, **hooks: Any) -> Result:
    return train(model, data(), params, 7, World(), lambda *_: None, **hooks)


def test_each_weight_has_the_rate_of_the_first_group_that_matches() -> None:
    asked = [group("head.w*", 0.5), group("head.*", frozen=True), group("norm.*", None)]
    params = train_params(optimizer={"name": "AdamW", "lr": 0.1, "weight_decay": 0.3}, groups=asked)
    model = network()
    found = {
        id(weight): (made["lr"], made["weight_decay"])
        for made in make_optimizer(model, params).param_groups
        for weight in made["params"]
    }
    assert {n: found.get(id(w)) for n, w in model.named_parameters()} == {
        "body.weight": (0.1, 0.3),
        "body.bias": (0.1, 0.0),
        "norm.weight": (0.1, 0.0),
        "norm.bias": (0.1, 0.0),
        "head.weight": (0.5, 0.3),
        "head.bias": None,
    }


def test_the_loop_is_that_of_torch_with_the_same_groups() -> None:
    params = train_params(
        epochs=4,
        optimizer={"name": "AdamW", "lr": 0.02, "weight_decay": 0.1},
        schedule={"name": "OneCycleLR"},
        groups=[group("head.*", 0.1), group("body.bias", frozen=True)],
        clip_norm=0.5,
    )
    ours, theirs = network(), network()
    result = run(ours, params)

    theirs.body.bias.requires_grad = False
    decay = {"weight_decay": 0.1}
    optimizer = torch.optim.AdamW(
        [
            {"params": [theirs.body.weight], "lr": 0.02, **decay},
            {"params": [theirs.norm.weight, theirs.norm.bias], "lr": 0.02, "weight_decay": 0},
            {"params": [theirs.head.weight], "lr": 0.1, **decay},
            {"params": [theirs.head.bias], "lr": 0.1, "weight_decay": 0},
        ]
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=[0.02, 0.02, 0.1, 0.1], total_steps=12
    )
    split = data().train
    for epoch in result.history:
        assert epoch.learning_rate == optimizer.param_groups[0]["lr"]
        for rows in epoch_batches(48, 16, 7, epoch.epoch):
            optimizer.zero_grad()
            batch, target = split.take(rows)
            F.cross_entropy(theirs(batch), target).backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(theirs.parameters(), 0.5)
            optimizer.step()
            schedule.step()
    for name, weight in theirs.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], weight, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    ("schedule", "highest"),
    [
        ({"name": "OneCycleLR"}, 0.1),
        ({"name": "OneCycleLR", "max_lr": 0.4}, 0.4),
        ({"name": "CyclicLR", "base_lr": 0.02, "step_size_up": 2}, 0.1),
        ({"name": "CosineAnnealingLR"}, 0.1),
        ({"name": "warmup_cosine", "warmup": 0.25}, 0.1),
    ],
)
def test_a_schedule_scales_the_rate_of_each_group(schedule: Any, highest: float) -> None:
    params = train_params(epochs=8, schedule=schedule, groups=[group("head.*", 0.01)])
    optimizer = make_optimizer(network(), params)
    made = make_schedule(optimizer, params, 1, "min")
    seen = []
    for _ in range(8):
        first, *_, last = (made["lr"] for made in optimizer.param_groups)
        assert last == pytest.approx(first / 10)
        seen.append(first)
        optimizer.step()
        made.step()
    assert max(seen) == pytest.approx(highest, rel=0.05)
    assert min(seen) < highest / 2


def test_what_is_frozen_stays_as_it_is_and_a_norm_with_it() -> None:
    model, params = (
        network(),
        train_params(
            optimizer={"name": "AdamW", "lr": 0.1, "weight_decay": 0.5},
            groups=[group("body.*", frozen=True), group("norm.*", frozen=True)],
            ema=0.9,
        ),
    )
    model.norm.running_mean += 0.5
    modes: list[bool] = []
    model.norm.register_forward_hook(lambda module, *_: modes.append(module.training))
    before = copied(model.state_dict())
    states: list[State] = []
    result = run(model, params, on_step_end=states.append)
    moved = {n for n, w in model.state_dict().items() if not torch.equal(w, before[n])}
    assert moved == {"head.weight", "head.bias"}
    assert not any(modes)
    assert {n for n, w in result.weights.items() if not torch.equal(w, before[n])} == moved
    assert len(states[-1].optimizer.state) == 2
    assert [w.grad is None for w in model.parameters()] == [True] * 4 + [False] * 2


def test_a_norm_of_which_one_weight_moves_is_not_frozen() -> None:
    model = network()
    run(model, train_params(groups=[group("norm.bias", frozen=True)]))
    assert model.norm.num_batches_tracked == 9


def test_weights_are_frozen_before_the_processes_share_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shared: list[list[str]] = []

    def wrap(model: nn.Module, **_: Any) -> nn.Module:
        shared.append([name for name, weight in model.named_parameters() if weight.requires_grad])
        return model

    monkeypatch.setattr("stages.training.build.DistributedDataParallel", wrap)
    params = train_params(groups=[group("body.*", frozen=True)])
    made = assemble(network(), data(), params, 7, World(rank=1, size=2))
    assert shared == [list(NAMES[2:])]
    assert len(made.context.trainable_params) == 4


def test_a_training_with_groups_goes_on_with_the_same_bits(tmp_path: Path) -> None:
    params = train_params(
        epochs=3,
        optimizer={"name": "AdamW", "lr": 0.02},
        schedule={"name": "OneCycleLR"},
        groups=[group("norm.*", frozen=True), group("head.*", 0.1)],
    )
    kept: list[Any] = []
    whole = run(
        network(),
        params,
        on_step_end=lambda s: kept.append(copied(state_dict(s, [rank_state_dict(s)]))),
    )
    for number in (1, 3, 6):
        rest = run(network(), params, load_state=partial(load_state_dict, kept[number], World()))
        assert rest.history == whole.history
        assert all(torch.equal(rest.weights[name], w) for name, w in whole.weights.items())


@pytest.mark.parametrize(
    ("groups", "key", "says"),
    [
        ([group("haed.*", 0.1)], "0.match", "no weight of the model is named like 'haed.*'"),
        ([group("*", 0.1), group("head.*", 0.2)], "1.match", "the groups before it have all"),
        ([group("Head.*", 0.1)], "0.match", "no weight"),
    ],
)
def test_a_group_without_weights_is_told_with_those_there_are(
    groups: list[Any], key: str, says: str
) -> None:
    params = train_params(groups=groups, early_stopping={"metric": "rmse", "patience": None})
    with pytest.raises(UserError, match=says) as caught:
        check_names(params, "classification", None, network)
    watched, found = caught.value.problems
    assert watched.key == "train.early_stopping.metric"
    assert (found.key, found.allowed) == (f"train.groups.{key}", NAMES)


def test_a_training_of_nothing_is_refused() -> None:
    params = train_params(groups=[group("*", frozen=True)])
    with pytest.raises(UserError, match="nothing to train") as caught:
        check_groups(params, network())
    assert caught.value.problems[0].allowed == NAMES


def test_an_optimizer_of_one_rate_takes_frozen_groups_alone() -> None:
    asked = [group("body.*", frozen=True), group("norm.*", None), group("head.*", 0.1)]
    params = train_params(optimizer={"name": "LBFGS", "lr": 0.1}, groups=asked)
    with pytest.raises(UserError, match="LBFGS moves all weights by one rate") as caught:
        check_groups(params, network())
    assert [problem.key for problem in caught.value.problems] == ["train.groups.2.lr"]


@pytest.mark.parametrize(
    ("groups", "key", "says"),
    [
        ([], "train.groups", "at least 1 item"),
        ([group("a", 0.1, frozen=True)], "train.groups.0", "frozen weights have no learning rate"),
        ([group("a", -1.0)], "train.groups.0.lr", "greater than 0"),
        ([group("")], "train.groups.0.match", "not be empty"),
        ([{"match": "a", "lr": None}], "train.groups.0.frozen", "is missing"),
    ],
)
def test_a_wrong_group_is_told(groups: list[Any], key: str, says: str) -> None:
    tree = {**train_params().model_dump(), "groups": groups}
    with pytest.raises(UserError, match=says) as caught:
        validate(TrainParams, tree, at="train")
    assert [problem.key for problem in caught.value.problems] == [key]


def test_the_stages_know_the_names_of_the_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    groups = [group("hidden.*", frozen=True), group("output.*", 0.02)]
    settings = {"train.groups": groups, "train.epochs": 1}
    project = small_project(tmp_path / "project", mixed_table(), settings)
    run_stages(project, "prepare", "build", "tune", "train")
    said = capsys.readouterr().out
    assert "weights in 2 tensors, frozen" in said
    assert "output.*: 18 weights in 2 tensors, learning rate 0.02" in said
    project.edit("params.yaml", "hidden.*", "hiden.*")
    for stage in ("tune", "train"):
        with pytest.raises(UserError, match="no weight of the model is named like 'hiden"):
            run_stages(project, stage)
