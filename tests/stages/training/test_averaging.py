"""The mean of the last epochs' weights, against torch's own."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812
from torch.optim.swa_utils import AveragedModel, update_bn

from pipeline.params.check import find_problems
from stages.common.errors import UserError
from stages.common.files import read_json
from stages.common.yamlfile import read_yaml
from stages.tensors.batch import Batch
from stages.train.checkpoints.checkpoint import copied, load_state_dict, rank_state_dict, state_dict
from stages.training.averaging import batch_norms, recompute_norms
from stages.training.data.batching import epoch_batches
from stages.training.device.distributed import World
from stages.training.loop import train
from stages.training.optim.preflight import check_names
from stages.training.params import TrainParams
from stages.training.state import Data, Result, State
from tests.conftest import ROOT
from tests.support.samples import (
    classification,
    mixed_table,
    run_stages,
    small_project,
    train_params,
)

pytestmark = pytest.mark.usefixtures("one_thread")

SGD = {"name": "SGD", "lr": 0.2, "momentum": 0.9}


class Network(nn.Module):
    """Two batch norms, of which the second sees what the first makes, and dropout before them."""

    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, 6), nn.Linear(6, 3)
        self.norms = nn.ModuleList([nn.BatchNorm1d(6), nn.BatchNorm1d(6, momentum=0.3)])
        self.dropout = nn.Dropout(dropout)

    def forward(self, batch: Batch) -> Tensor:
        values = self.dropout(self.first(batch["numeric"]))
        for norm in self.norms:
            values = norm(values).tanh()
        scores: Tensor = self.last(values)
        return scores


def network(dropout: float = 0.0) -> Network:
    torch.manual_seed(3)
    return Network(dropout).double()


def data() -> Data:
    made = classification(num_rows=50)
    for split in (made.train, made.validation):
        split.batch["numeric"] = split.batch["numeric"].double()
    return made


def run(model: nn.Module, params: TrainParams, **hooks: Any) -> Result:
    return train(model, data(), params, 7, World(), lambda *_: None, **hooks)


@pytest.mark.parametrize(
    ("schedule", "lr"),
    [("OneCycleLR", 0.05), ("OneCycleLR", None), ("CosineAnnealingLR", 0.05), ("StepLR", None)],
)
def test_it_is_the_average_of_torch(schedule: str, lr: float | None) -> None:
    own = {"step_size": 2} if schedule == "StepLR" else {}
    params = train_params(
        epochs=6,
        optimizer=SGD,
        schedule={"name": schedule, **own},
        swa={"start": 3, "lr": lr},
        early_stopping=None,
    )
    ours, theirs = network(), network()
    result = run(ours, params)

    optimizer = torch.optim.SGD(theirs.parameters(), lr=0.2, momentum=0.9)
    filled: dict[str, Any] = {
        "OneCycleLR": {"max_lr": 0.2, "total_steps": 24},
        "CosineAnnealingLR": {"T_max": 6},
        "StepLR": {"step_size": 2},
    }
    made = getattr(torch.optim.lr_scheduler, schedule)(optimizer, **filled[schedule])
    average = AveragedModel(theirs)
    split, validation = data().train, data().validation
    for epoch in result.history:
        held = lr is not None and epoch.epoch >= 3
        if held:
            optimizer.param_groups[0]["lr"] = lr
        assert epoch.learning_rate == optimizer.param_groups[0]["lr"]
        theirs.train()
        parts = epoch_batches(50, 16, 7, epoch.epoch)
        for rows in parts:
            optimizer.zero_grad()
            batch, target = split.take(rows)
            F.cross_entropy(theirs(batch), target).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            if schedule == "OneCycleLR" and not held:
                made.step()
        if schedule != "OneCycleLR" and not held:
            made.step()
        judged: nn.Module = theirs
        if epoch.epoch >= 3:
            average.update_parameters(theirs)  # type: ignore[no-untyped-call]
            update_bn([split.take(torch.cat(parts))[0]], average)
            judged = average
        scores = judged.eval()(validation.batch)
        expected = F.cross_entropy(scores, validation.target).item()
        assert epoch.validation_loss == pytest.approx(expected, rel=1e-10)
    assert sorted(result.weights) == sorted(average.module.state_dict())
    for name, weight in average.module.state_dict().items():
        torch.testing.assert_close(result.weights[name], weight, rtol=1e-10, atol=1e-12)
    for name, weight in theirs.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], weight, rtol=1e-10, atol=1e-12)
    assert not torch.equal(result.weights["last.weight"], theirs.last.weight)


def test_early_stopping_watches_the_average_and_keeps_the_best() -> None:
    params = train_params(epochs=8, optimizer=SGD, swa={"start": 4, "lr": 0.2})
    judged: list[dict[str, Tensor]] = []
    model = network()
    result = train(
        model, data(), params, 7, World(), lambda _, m: judged.append(copied(m.state_dict()))
    )
    assert result.best_epoch is not None
    best = min(result.history, key=lambda epoch: epoch.validation_loss)
    assert result.best_epoch == best
    assert all(torch.equal(result.weights[n], w) for n, w in judged[best.epoch - 1].items())
    assert not torch.equal(judged[-1]["last.weight"], model.last.weight)


@pytest.mark.parametrize("schedule", ["OneCycleLR", "CosineAnnealingLR"])
def test_a_training_goes_on_with_the_same_bits(schedule: str) -> None:
    params = train_params(
        epochs=5,
        optimizer={"name": "AdamW", "lr": 0.02},
        schedule={"name": schedule},
        swa={"start": 3, "lr": 0.01},
        early_stopping=None,
    )
    kept: list[Any] = []
    model = network(dropout=0.2)
    whole = run(
        model,
        params,
        on_step_end=lambda s: kept.append(copied(state_dict(s, [rank_state_dict(s)]))),
    )
    # In each epoch four steps and its end: before, at and after the first that is averaged.
    for number in (9, 10, 13, 14, 16, 18, 23):
        rest = run(network(0.2), params, load_state=partial(load_state_dict, kept[number], World()))
        assert rest.history == whole.history, number
        assert all(torch.equal(rest.weights[name], w) for name, w in whole.weights.items())


def test_the_processes_share_the_parts_and_come_to_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("stages.training.data.source.MAX_ROWS", 8)
    split, order = data().train, torch.randperm(50)
    summed: list[list[Tensor]] = []

    def note(_: World, values: Tensor) -> Tensor:
        summed[-1].append(values.clone())
        return values

    def statistics(world: World) -> dict[str, Tensor]:
        model = network(dropout=0.5)
        norms = batch_norms(model, model, ())
        summed.append([])
        recompute_norms(model, norms, split, order, world)
        assert [norm.momentum for norm in norms] == [0.1, 0.3]
        return dict(model.named_buffers())

    alone = statistics(World())
    assert summed.pop() == []
    # Nothing random is in them, though the model has dropout.
    again = statistics(World())
    assert all(torch.equal(again[name], value) for name, value in alone.items())
    summed.clear()
    monkeypatch.setattr(World, "all_reduce_sum", note)
    for rank in range(3):
        mine = statistics(World(rank, size=3))
        assert mine["norms.1.num_batches_tracked"] == alone["norms.1.num_batches_tracked"] == 7
    totals = [sum(values) / 7 for values in zip(*summed, strict=True)]
    means = [alone[f"norms.{n}.running_{what}"] for n in (0, 1) for what in ("mean", "var")]
    for total, mean in zip(totals, means, strict=True):
        torch.testing.assert_close(total, mean, rtol=1e-12, atol=1e-12)


def test_rows_that_are_no_numbers_are_not_in_the_norms_of_the_average() -> None:
    split, every = data().train, torch.arange(50)
    split.batch["numeric"][11, 1] = torch.nan

    def statistics(order: Tensor) -> dict[str, Tensor]:
        model = network()
        recompute_norms(model, batch_norms(model, model, ()), split, order, World())
        return dict(model.named_buffers())

    with_it, without = statistics(every), statistics(every[every != 11])
    assert all(torch.equal(with_it[name], value) for name, value in without.items())


def test_groups_keep_their_ratio_and_frozen_norms_their_statistics() -> None:
    frozen = {"match": "norms.0.*", "lr": None, "frozen": True}
    params = train_params(
        epochs=3,
        optimizer=SGD,
        schedule={"name": "OneCycleLR"},
        groups=[frozen, {"match": "last.*", "lr": 0.02, "frozen": False}],
        swa={"start": 2, "lr": 0.1},
        early_stopping=None,
    )
    states: list[State] = []
    result = run(network(), params, on_step_end=states.append)
    rates = [group["lr"] for group in states[-1].optimizer.param_groups]
    assert rates == pytest.approx([0.1, 0.1, 0.01, 0.01])
    assert [epoch.learning_rate for epoch in result.history[1:]] == [0.1, 0.1]
    before = network().state_dict()
    same = {name for name, weight in result.weights.items() if torch.equal(weight, before[name])}
    assert same == {name for name in before if name.startswith("norms.0.")}


def test_two_averages_and_one_that_never_begins_are_told_at_once() -> None:
    params = train_params(epochs=3, ema=0.9, swa={"start": 4, "lr": None})
    with pytest.raises(UserError) as caught:
        check_names(params, "classification")
    assert [problem.key for problem in caught.value.problems] == ["train.swa", "train.swa.start"]
    tree = read_yaml(ROOT / "params.yaml")
    tree["train"]["swa"] = {"start": 31, "lr": None}
    (problem,) = find_problems(tree)
    assert (problem.key, problem.value) == ("train.swa.start", "31")


def test_a_search_does_not_reach_what_trials_are_without() -> None:
    tree = read_yaml(ROOT / "params.yaml")
    tree["train"]["swa"] = {"start": 20, "lr": 0.001}
    # The winner's would stand beside the other average.
    space = {"train.swa.lr": [0.1, 0.2], "train.ema": [0.9, 0.99]}
    tree["tune"] |= {"trials": 1, "space": space}
    lr, ema = find_problems(tree)
    assert (lr.key, ema.key) == ("tune.space.train.swa.lr", "tune.space.train.ema")
    assert "a trial is without it" in lr.message
    assert "one average" in ema.message


def test_the_stages_keep_the_average_and_say_where_it_is_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = {
        "train.swa": {"start": 3, "lr": 1e-3},
        "train.early_stopping": {"metric": "loss", "patience": 1},
        "train.optimizer": {"name": "SGD", "lr": 5.0},
        "train.epochs": 20,
        "tune.trials": 1,
        "tune.epochs": 1,
        "tune.space": {"train.clip_norm": [1.0, 2.0]},
    }
    project = small_project(tmp_path / "project", mixed_table(), settings)
    run_stages(project, "prepare", "build", "tune", "train")
    kept = read_json(project.path / "data/train/metrics.json")["kept_epoch"]
    said = f"the kept weights, of epoch {kept}, are no average"
    assert said in capsys.readouterr().out
    assert read_json(project.path / "data/train/recipe.json")["train"]["swa"]["start"] == 3
