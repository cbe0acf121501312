"""The loop and what it is made of, against loops and formulas written out here."""

import copy
import math
import random
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from safetensors.numpy import load_file, save_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812
from torch.optim import lr_scheduler
from torch.utils._python_dispatch import TorchDispatchMode

from stages.common.errors import UserError
from stages.common.files import read_csv, read_json
from stages.features.batch import Batch, take
from stages.model.dropout import Dropout, share_dropout_rng
from stages.model.model import ModelSpec, make_model
from stages.tools.rebuild_tensorboard import rebuild
from stages.train.logs.tensorboard import histogram
from stages.training.data.batching import epoch_batches, shard
from stages.training.data.source import TensorSource
from stages.training.device.device import choose_device
from stages.training.device.distributed import World
from stages.training.device.environment import choose_threads, num_processes
from stages.training.loop import train, validate
from stages.training.optim.loss import make_loss
from stages.training.optim.optimizer import make_optimizer
from stages.training.optim.preflight import check_names
from stages.training.optim.registry import Kind, allowed, losses_of, refused
from stages.training.params import TrainParams
from stages.training.state import Data, Epoch, EpochTotals, Result, State
from stages.training.step.divergence import DivergedError
from stages.training.step.step import StepContext, apply_on_device
from tests.conftest import ROOT, Project, project_environment
from tests.support.samples import (
    classification,
    mixed_table,
    regression,
    run_stages,
    set_params,
    small_project,
    train_params,
)

# What a schedule has no default for.
REQUIRED: dict[str, dict[str, Any]] = {
    "CyclicLR": {"base_lr": 0.01, "step_size_up": 3},
    "CosineAnnealingWarmRestarts": {"T_0": 2},
    "ExponentialLR": {"gamma": 0.5},
    "MultiStepLR": {"milestones": [1, 3]},
    "StepLR": {"step_size": 2},
}
KINDS: tuple[Kind, ...] = ("loss", "optimizer", "schedule")
LOSSES, OPTIMIZERS, SCHEDULES = (list(allowed(kind)) for kind in KINDS)


class Model(nn.Module):
    """Two layers and a norm, smooth everywhere; or one layer."""

    def __init__(self, num_outputs: int, *, hidden: bool = True) -> None:
        super().__init__()
        self.body = (
            nn.Sequential(nn.Linear(4, 6), nn.LayerNorm(6), nn.Tanh()) if hidden else nn.Identity()
        )
        self.output = nn.Linear(6 if hidden else 4, num_outputs)

    def forward(self, batch: Batch) -> Tensor:
        scores: Tensor = self.output(self.body(batch["numeric"]))
        return scores


def model(num_outputs: int = 3, *, hidden: bool = True) -> Model:
    torch.manual_seed(7)
    return Model(num_outputs, hidden=hidden)


def run(
    network: nn.Module,
    data: Data,
    params: TrainParams,
    seed: int = 0,
    on_epoch_end: Callable[[Epoch, nn.Module], None] = lambda _epoch, _model: None,
) -> Result:
    return train(network, data, params, seed, World(), on_epoch_end)


def doubled(data: Data) -> Data:
    """The data in float64, in which a loop can be compared to the last digits but two."""

    def wide(split: TensorSource) -> TensorSource:
        target = split.target.double() if split.target.is_floating_point() else split.target
        return TensorSource({kind: t.double() for kind, t in split.batch.items()}, target)

    return Data(wide(data.train), wide(data.validation), data.task, data.deviation)


def order_of(num_rows: int, seed: int, epoch: int) -> Tensor:
    """The order that the loop promises, from seed and epoch alone."""
    mixed = int(np.random.SeedSequence([seed, epoch]).generate_state(1)[0])
    return torch.randperm(num_rows, generator=torch.Generator().manual_seed(mixed))


DROPPED: dict[str, Any] = {"epochs": 4, "batch_size": 22, "optimizer": {"name": "SGD", "lr": 0.1}}
AVERAGED: dict[str, Any] = {"swa": {"start": 3, "lr": 0.05}}
SPECS = {
    "linear": ModelSpec(name="linear", arguments={}, inputs={"numeric": [36]}, num_outputs=3),
    "mlp": ModelSpec(
        name="mlp",
        arguments={"width": 16, "layers": 2, "dropout": 0.3},
        inputs={"numeric": [36]},
        num_outputs=3,
    ),
    "cnn": ModelSpec(
        name="cnn",
        arguments={"channels": [4, 8], "width": 16, "dropout": 0.3},
        inputs={"image": [1, 6, 6]},
        num_outputs=3,
    ),
}


def pixels(kind: str, num_rows: int = 45, dtype: torch.dtype = torch.float64) -> Data:
    """Random images of three classes, as a model of `kind` takes them; as many to validate on."""

    def split(seed: int) -> TensorSource:
        random = torch.Generator().manual_seed(seed)
        images = torch.randn(num_rows, 1, 6, 6, generator=random, dtype=dtype)
        batch = {"image": images} if kind == "cnn" else {"numeric": images.flatten(1)}
        return TensorSource(batch, torch.randint(3, (num_rows,), generator=random))

    return Data(split(1), split(2), "classification")


class Smooth(nn.Module):
    """A model of one's own that has no kink."""

    def __init__(self) -> None:
        super().__init__()
        first, second, last = nn.Linear(36, 16), nn.Linear(16, 8), nn.Linear(8, 3)
        self.layers = nn.Sequential(first, nn.GELU(), nn.LayerNorm(16), second, nn.Tanh(), last)

    def forward(self, batch: Batch) -> Tensor:
        scores: Tensor = self.layers(batch["numeric"])
        return scores


class Draws(nn.Module):
    """A model of one's own that draws from all global generators, and keeps what it drew."""

    def __init__(self) -> None:
        super().__init__()
        self.output = nn.Linear(36, 3)
        self.drawn: list[float] = []

    def forward(self, batch: Batch) -> Tensor:
        values = batch["numeric"]
        if self.training:
            noise = [random.gauss(0, 0.1), float(np.random.normal(0, 0.1))]  # noqa: NPY002
            self.drawn += [*noise, torch.rand(()).item()]
            values = F.dropout(values, 0.2) + sum(noise)
        scores: Tensor = self.output(values)
        return scores


OWN: dict[str, type[nn.Module]] = {"smooth": Smooth, "draws": Draws}


def named(kind: str) -> nn.Module:
    """A model of the zoo or of `OWN`, with the same weights each time."""
    if kind in SPECS:
        return make_model(SPECS[kind], seed=4)
    torch.manual_seed(4)
    return OWN[kind]()


def weights_of(network: nn.Module) -> dict[str, Tensor]:
    return {name: weight.detach().clone() for name, weight in network.state_dict().items()}


def assert_same(ours: dict[str, Tensor], theirs: dict[str, Tensor], tolerance: float) -> None:
    assert sorted(ours) == sorted(theirs)
    for name, weight in ours.items():
        torch.testing.assert_close(weight, theirs[name], rtol=tolerance, atol=tolerance)


def test_the_loop_is_the_one_of_every_course() -> None:
    data = doubled(classification(num_rows=50))
    params = train_params(
        epochs=4,
        batch_size=16,
        optimizer={"name": "AdamW", "lr": 0.05, "weight_decay": 0.1},
        schedule={"name": "CosineAnnealingLR"},
        clip_norm=0.5,
    )
    ours, theirs = model().double(), model().double()
    result = run(ours, data, params, seed=11)

    matrices = [w for w in theirs.parameters() if w.ndim > 1]
    vectors = [w for w in theirs.parameters() if w.ndim == 1]
    groups = [
        {"params": matrices, "weight_decay": 0.1},
        {"params": vectors, "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=0.05, foreach=False)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=4)
    x, y = data.train.batch["numeric"], data.train.target
    for number, epoch in enumerate(result.history, start=1):
        losses, norms = [], []
        rate = optimizer.param_groups[0]["lr"]
        theirs.train()
        for rows in torch.split(order_of(50, 11, number), 16):
            optimizer.zero_grad()
            loss = F.cross_entropy(theirs({"numeric": x[rows]}), y[rows])
            loss.backward()  # type: ignore[no-untyped-call]
            gradients = [w.grad for w in theirs.parameters() if w.grad is not None]
            norms.append(math.sqrt(sum(g.square().sum().item() for g in gradients)))
            for gradient in gradients:
                gradient *= min(1.0, 0.5 / (norms[-1] + 1e-6))
            optimizer.step()
            losses.append(loss.item() * len(rows))
        schedule.step()
        with torch.no_grad():
            scores = theirs(data.validation.batch)
            expected = Epoch(
                epoch=number,
                learning_rate=rate,
                gradient_norm=sum(norms) / len(norms),
                train_loss=sum(losses) / 50,
                validation_loss=F.cross_entropy(scores, data.validation.target).item(),
                metric=(scores.argmax(1) == data.validation.target).double().mean().item(),
            )
        assert vars(epoch) == pytest.approx(vars(expected), rel=1e-10)
    assert_same(weights_of(ours), weights_of(theirs), tolerance=1e-10)


def test_gradient_descent_by_hand_gives_the_same_line() -> None:
    data = doubled(regression(num_rows=50))
    params = train_params(
        epochs=3,
        batch_size=20,
        loss={"name": "MSELoss"},
        optimizer={"name": "SGD", "lr": 0.05, "momentum": 0.9},
    )
    network = model(1, hidden=False).double()
    w = network.output.weight.detach().numpy()[0].copy()
    b = network.output.bias.item()
    result = run(network, data, params, seed=3)

    x, y = data.train.batch["numeric"].numpy(), data.train.target.numpy()
    speed_w, speed_b = np.zeros(4), 0.0
    for number, epoch in enumerate(result.history, start=1):
        total = 0.0
        for rows in torch.split(order_of(50, 3, number), 20):
            error = x[rows] @ w + b - y[rows]
            total += float((error**2).sum())
            speed_w = 0.9 * speed_w + 2 * error @ x[rows] / len(rows)
            speed_b = 0.9 * speed_b + 2 * float(error.mean())
            w = w - 0.05 * speed_w
            b = b - 0.05 * speed_b
        assert epoch.train_loss == pytest.approx(total / 50, rel=1e-12)
        error = data.validation.batch["numeric"].numpy() @ w + b - data.validation.target.numpy()
        assert epoch.validation_loss == pytest.approx((error**2).mean(), rel=1e-12)
        # The target is standardised; the error is told in its units.
        assert epoch.metric == pytest.approx(2.0 * math.sqrt((error**2).mean()), rel=1e-12)
    np.testing.assert_allclose(network.output.weight.detach().numpy()[0], w, rtol=1e-12)
    assert network.output.bias.item() == pytest.approx(b, rel=1e-12)


def test_batches_hold_every_row_once_in_an_order_of_seed_and_epoch() -> None:
    first = [rows.tolist() for rows in epoch_batches(50, 16, seed=2, epoch=1)]
    assert [len(rows) for rows in first] == [16, 16, 16, 2]
    assert [row for rows in first for row in rows] == order_of(50, 2, 1).tolist()
    torch.manual_seed(99)
    assert [rows.tolist() for rows in epoch_batches(50, 16, seed=2, epoch=1)] == first
    for seed, epoch in ((3, 1), (2, 2), (1, 2)):
        assert [rows.tolist() for rows in epoch_batches(50, 16, seed=seed, epoch=epoch)] != first


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("schedule", ["ConstantLR", "OneCycleLR"])
def test_every_optimizer_learns(name: str, schedule: str) -> None:
    # LBFGS without a line search goes astray on batches that differ.
    others = {"line_search_fn": "strong_wolfe", "max_iter": 4} if name == "LBFGS" else {}
    params = train_params(
        epochs=10,
        optimizer={"name": name, "lr": 1.0 if name == "Adadelta" else 0.02, **others},
        schedule={"name": schedule},
    )
    check_names(params, "classification")
    history = run(model(), classification(), params).history
    assert history[-1].train_loss < history[0].train_loss


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_learns(name: str) -> None:
    task = "regression" if name in losses_of("regression") else "classification"
    data = regression() if task == "regression" else classification()
    params = train_params(epochs=10, loss={"name": name})
    check_names(params, task)
    network = model(1 if task == "regression" else 3)
    history = run(network, data, params).history
    assert history[-1].train_loss < history[0].train_loss
    # What is reported is the mean over rows, however they were batched.
    scores = network(data.validation.batch)
    scores = scores.squeeze(1) if task == "regression" else scores
    whole = allowed("loss")[name]()(scores, data.validation.target).item()
    assert history[-1].validation_loss == pytest.approx(whole, rel=1e-5)


@pytest.mark.parametrize("name", [name for name in SCHEDULES if hasattr(lr_scheduler, name)])
def test_every_schedule_moves_the_learning_rate_as_torch_does(name: str) -> None:
    num_epochs, steps = 6, 4
    data = classification(num_rows=50)
    arguments = dict(REQUIRED.get(name, {}))
    if name == "ReduceLROnPlateau":
        arguments["patience"] = 0
    params = train_params(
        epochs=num_epochs,
        optimizer={"name": "SGD", "lr": 0.1},
        schedule={"name": name, **arguments},
        early_stopping={"metric": "accuracy", "patience": None},
    )
    check_names(params, "classification")
    result = run(model(), data, params)

    optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.1)
    filled: dict[str, dict[str, Any]] = {
        "CosineAnnealingLR": {"T_max": num_epochs},
        "OneCycleLR": {"max_lr": 0.1, "total_steps": num_epochs * steps},
        "CyclicLR": {"max_lr": 0.1},
        "ReduceLROnPlateau": {"mode": "max"},
    }
    schedule_class = getattr(torch.optim.lr_scheduler, name)
    schedule = schedule_class(optimizer, **arguments, **filled.get(name, {}))
    expected = []
    for epoch in result.history:
        expected.append(optimizer.param_groups[0]["lr"])
        for _ in range(steps):
            optimizer.step()
            if name in ("OneCycleLR", "CyclicLR"):
                schedule.step()
        if name == "ReduceLROnPlateau":
            schedule.step(epoch.metric)
        elif name not in ("OneCycleLR", "CyclicLR"):
            schedule.step()
    assert [epoch.learning_rate for epoch in result.history] == expected
    assert len(set(expected)) > 1


def test_warmup_cosine_rises_in_a_line_and_falls_along_a_cosine() -> None:
    rates: list[float] = []
    network = model()

    def note(state: State) -> None:
        rates.append(state.optimizer.param_groups[0]["lr"])

    params = train_params(
        epochs=5,
        batch_size=10,
        optimizer={"name": "SGD", "lr": 0.2},
        schedule={"name": "warmup_cosine", "warmup": 0.16, "final": 0.1},
    )
    check_names(params, "classification")
    history = train(
        network, classification(num_rows=50), params, 0, World(), lambda *_: None, on_step_end=note
    ).history
    # Noted after a step is the rate of the next; after the last of an epoch, twice.
    steps = [0.2 / 4] + [rate for number, rate in enumerate(rates) if number % 6 != 5]
    assert steps[:5] == pytest.approx([0.05, 0.1, 0.15, 0.2, 0.2])
    fall = [0.02 + 0.18 * (1 + math.cos(math.pi * step / 20)) / 2 for step in range(21)]
    assert steps[4:25] == pytest.approx(fall)
    assert [epoch.learning_rate for epoch in history] == pytest.approx(steps[0:25:5])


@pytest.mark.parametrize(
    ("kind", "module", "base"),
    [
        ("loss", nn, nn.Module),
        ("optimizer", torch.optim, torch.optim.Optimizer),
        ("schedule", torch.optim.lr_scheduler, torch.optim.lr_scheduler.LRScheduler),
    ],
)
def test_every_class_of_torch_is_allowed_or_refused_with_a_reason(
    kind: Kind, module: ModuleType, base: type
) -> None:
    classes = {
        name
        for name, member in vars(module).items()
        if isinstance(member, type) and issubclass(member, base) and not name.startswith("_")
        if kind != "loss" or name.endswith("Loss")
    } - {base.__name__}
    ours = {"loss": {"focal", "quantile"}, "optimizer": set(), "schedule": {"warmup_cosine"}}
    assert classes | ours[kind] == set(allowed(kind)) | set(refused(kind))
    assert not set(allowed(kind)) & set(refused(kind))


def mistakes(
    changes: dict[str, object], task: str = "classification"
) -> list[tuple[str | None, str]]:
    """The key and the text of each problem that is found before any data is loaded."""
    with pytest.raises(UserError) as caught:
        check_names(train_params(**changes), task)
    text = str(caught.value)
    return [(problem.key, text) for problem in caught.value.problems]


@pytest.mark.parametrize(
    ("kind", "name"), [(kind, name) for kind in KINDS for name in refused(kind)]
)
def test_a_refused_name_says_why_and_what_to_use(kind: Kind, name: str) -> None:
    ((key, text),) = mistakes({kind: {"name": name}})
    assert key == f"train.{kind}.name"
    reason = refused(kind)[name]
    assert reason in text
    # The reason names at least one that is allowed.
    assert {word.strip(";,.") for word in reason.split()} & set(allowed(kind))


@pytest.mark.parametrize(
    ("kind", "name", "meant"),
    [
        ("optimizer", "AdamWW", "AdamW"),
        ("optimizer", "sgd", "SGD"),
        ("loss", "CrossEntropy", "CrossEntropyLoss"),
        ("schedule", "CosineAnealingLR", "CosineAnnealingLR"),
    ],
)
def test_an_unknown_name_is_told_with_the_nearest(kind: str, name: str, meant: str) -> None:
    ((key, text),) = mistakes({kind: {"name": name}})
    assert key == f"train.{kind}.name"
    assert f"did you mean '{meant}'?" in text


def test_all_wrong_names_are_told_at_once() -> None:
    found = mistakes({"loss": {"name": "X"}, "optimizer": {"name": "Y"}, "schedule": {"name": "Z"}})
    assert [key for key, _ in found] == [
        f"train.{k}.name" for k in ("loss", "optimizer", "schedule")
    ]


@pytest.mark.parametrize(
    ("loss", "task"), [("MSELoss", "classification"), ("CrossEntropyLoss", "regression")]
)
def test_a_loss_of_the_other_task_is_refused(loss: str, task: str) -> None:
    ((key, text),) = mistakes({"loss": {"name": loss}}, task)
    assert key == "train.loss.name"
    assert f"no loss for {task}" in text


@pytest.mark.parametrize(
    ("kind", "named", "key", "says"),
    [
        ("optimizer", {"name": "AdamW", "lrr": 1e-3}, "optimizer.lrr", "did you mean 'lr'?"),
        ("optimizer", {"name": "AdamW", "momentum": 0.9}, "optimizer.momentum", "weight_decay"),
        ("optimizer", {"name": "Rprop", "weight_decay": 0.1}, "optimizer.weight_decay", "etas"),
        ("optimizer", {"name": "AdamW", "lr": "fast"}, "optimizer.lr", "number"),
        ("optimizer", {"name": "AdamW", "lr": True}, "optimizer.lr", "number"),
        ("optimizer", {"name": "AdamW", "betas": [0.9]}, "optimizer.betas", "2 items"),
        ("optimizer", {"name": "AdamW", "amsgrad": 1}, "optimizer.amsgrad", "true or false"),
        ("optimizer", {"name": "AdamW", "fused": True}, "optimizer.fused", "unknown key"),
        ("optimizer", {"name": "SGD", "lr": -1.0}, "optimizer.lr", "greater than 0"),
        ("optimizer", {"name": "SGD", "nesterov": True}, "optimizer", "momentum"),
        ("loss", {"name": "CrossEntropyLoss", "reduction": "sum"}, "loss.reduction", "unknown key"),
        (
            "loss",
            {"name": "CrossEntropyLoss", "label_smoothing": 2.0},
            "loss.label_smoothing",
            "than 1",
        ),
        ("loss", {"name": "MultiMarginLoss", "p": 3}, "loss.p", "at most 2"),
        ("schedule", {"name": "StepLR"}, "schedule.step_size", "missing"),
        ("schedule", {"name": "StepLR", "step_size": 2.5}, "schedule.step_size", "whole number"),
        ("schedule", {"name": "StepLR", "step_size": 0}, "schedule.step_size", "at least 1"),
        ("schedule", {"name": "MultiStepLR", "milestones": 3}, "schedule.milestones", "list"),
        ("schedule", {"name": "ConstantLR", "factor": 2.0}, "schedule.factor", "at most 1"),
        (
            "schedule",
            {"name": "OneCycleLR", "total_steps": 2},
            "schedule.total_steps",
            "least 3 steps",
        ),
        ("schedule", {"name": "warmup_cosine", "warmup": 1.0}, "schedule.warmup", "be less than 1"),
        ("schedule", {"name": "warmup_cosine", "rise": 5}, "schedule.rise", "warmup, final"),
        (
            "schedule",
            {"name": "OneCycleLR", "anneal_strategy": "x"},
            "schedule.anneal_strategy",
            "cos",
        ),
    ],
)
def test_arguments_are_checked_before_any_work(
    kind: str, named: dict[str, object], key: str, says: str
) -> None:
    ((found, text),) = mistakes({kind: named})
    assert found == f"train.{key}"
    assert says in text


def test_a_cycle_shorter_than_the_training_is_an_error() -> None:
    params = train_params(schedule={"name": "OneCycleLR", "total_steps": 11})
    with pytest.raises(UserError, match="the training has 12 steps"):
        run(model(), classification(), params)


def test_early_stopping_by_a_metric_of_the_other_task_is_an_error() -> None:
    params = train_params(early_stopping={"metric": "rmse", "patience": 3})
    with pytest.raises(UserError) as caught:
        run(model(), classification(), params)
    (problem,) = caught.value.problems
    assert problem.key == "train.early_stopping.metric"
    assert problem.allowed == ("loss", "accuracy")


def test_weight_decay_spares_biases_and_norms() -> None:
    network = model()
    params = train_params(optimizer={"name": "AdamW", "lr": 0.1, "weight_decay": 0.3})
    decay = {}
    for group in make_optimizer(network, params).param_groups:
        for weight in group["params"]:
            decay[id(weight)] = group["weight_decay"]
    by_name = {name: decay[id(weight)] for name, weight in network.named_parameters()}
    assert by_name == {
        "body.0.weight": 0.3,
        "body.0.bias": 0.0,
        "body.1.weight": 0.0,
        "body.1.bias": 0.0,
        "output.weight": 0.3,
        "output.bias": 0.0,
    }


def test_weight_decay_shrinks_what_has_no_gradient() -> None:
    data = classification(num_rows=48)
    # Of a column of zeros the weights get no gradient, and three steps an epoch shrink them.
    data.train.batch["numeric"][:, 0] = 0
    network = model(hidden=False)
    start = network.output.weight[:, 0].detach().clone()
    run(network, data, train_params(optimizer={"name": "SGD", "lr": 0.1, "weight_decay": 0.5}))
    torch.testing.assert_close(network.output.weight[:, 0].detach(), start * (1 - 0.05) ** 9)


@pytest.mark.parametrize("limit", [None, 1e-3])
def test_clipping_limits_the_step_and_reports_the_norm_before_it(limit: float | None) -> None:
    data = classification(num_rows=50)
    network = model()
    start = weights_of(network)
    result = run(network, data, train_params(epochs=1, batch_size=50, clip_norm=limit))
    moved = math.sqrt(
        sum((w - start[n]).square().sum().item() for n, w in weights_of(network).items())
    )
    norm = result.history[0].gradient_norm
    assert norm > 0.01
    # One step of plain gradient descent: learning rate times gradient.
    assert moved == pytest.approx(0.1 * (norm if limit is None else limit), rel=1e-3)


@pytest.mark.parametrize("norm", [None, 0.3])
def test_clipping_by_value_is_torchs_own_after_that_by_norm(norm: float | None) -> None:
    data, most = doubled(classification(num_rows=50)), 0.02
    changes: dict[str, Any] = {"clip_norm": norm, "clip_value": most}
    ours, theirs = model().double(), model().double()
    result = run(ours, data, train_params(epochs=2, **changes), seed=4)

    optimizer = torch.optim.SGD(theirs.parameters(), lr=0.1)
    x, y, cut = data.train.batch["numeric"], data.train.target, 0
    for number, epoch in enumerate(result.history, start=1):
        norms = []
        for rows in torch.split(order_of(50, 4, number), 16):
            optimizer.zero_grad()
            F.cross_entropy(theirs({"numeric": x[rows]}), y[rows]).backward()  # type: ignore[no-untyped-call]
            limit = math.inf if norm is None else norm
            norms.append(nn.utils.clip_grad_norm_(theirs.parameters(), limit).item())
            cut += sum(int((w.grad.abs() > most).sum()) for w in theirs.parameters())  # type: ignore[union-attr]
            nn.utils.clip_grad_value_(theirs.parameters(), most)
            optimizer.step()
        # What is reported is the length before both.
        assert epoch.gradient_norm == pytest.approx(sum(norms) / len(norms), rel=1e-10)
    assert cut > 20
    assert_same(weights_of(ours), weights_of(theirs), tolerance=1e-10)


def overfitting() -> tuple[Data, TrainParams]:
    """A training that gets worse on validation soon: there is nothing to learn."""
    data = classification(num_rows=30)
    noise = torch.randint(3, (30,), generator=torch.Generator().manual_seed(0))
    params = train_params(epochs=60, optimizer={"name": "Adam", "lr": 0.05})
    return Data(TensorSource(data.train.batch, noise), data.validation, data.task), params


@pytest.mark.parametrize(("metric", "better"), [("loss", min), ("accuracy", max)])
@pytest.mark.parametrize("patience", [1, 4, None])
def test_early_stopping_waits_and_keeps_the_best_weights(
    metric: str, better: Callable[..., float], patience: int | None
) -> None:
    data, params = overfitting()
    stopping = {"metric": metric, "patience": patience}
    params = TrainParams.model_validate({**params.model_dump(), "early_stopping": stopping})
    network = model()
    seen: list[dict[str, Tensor]] = []
    result = run(network, data, params, on_epoch_end=lambda _, m: seen.append(weights_of(m)))
    assert result.best_epoch is not None

    values = [e.validation_loss if metric == "loss" else e.metric for e in result.history]
    best = values.index(better(values))
    assert result.best_epoch == result.history[best]
    assert_same(result.weights, seen[best], tolerance=0.0)
    assert best + 1 < len(values) or patience is None
    if patience is None:
        assert len(values) == 60
    else:
        assert len(values) == best + 1 + patience
    # They are the weights that scored: not those that the model ended with.
    network.load_state_dict(result.weights)
    loss, accuracy = validate(network, data.validation, make_loss(params, data.task), data, World())
    assert (loss, accuracy) == (result.best_epoch.validation_loss, result.best_epoch.metric)


def test_without_early_stopping_the_last_weights_are_kept() -> None:
    data, params = overfitting()
    params = TrainParams.model_validate({**params.model_dump(), "early_stopping": None})
    network = model()
    result = run(network, data, params)
    losses = [epoch.validation_loss for epoch in result.history]
    assert len(losses) == 60
    assert min(losses) < losses[-1], "the last epoch must not be the best, else this shows nothing"
    assert result.best_epoch == result.history[-1]
    assert_same(result.weights, weights_of(network), tolerance=0.0)


def test_a_plateau_is_one_of_the_metric_that_is_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    params = train_params(
        epochs=5,
        schedule={"name": "ReduceLROnPlateau", "patience": 0, "factor": 0.5},
        early_stopping={"metric": "accuracy", "patience": None},
    )
    measured = iter([(1.0, 0.1), (1.0, 0.2), (1.0, 0.3), (1.0, 0.3), (1.0, 0.4)])
    monkeypatch.setattr("stages.training.loop.validate", lambda *_: next(measured))
    history = run(model(), classification(), params).history
    # Accuracy is better when it is more; it was no better once, in the fourth epoch.
    assert [epoch.learning_rate for epoch in history] == [0.1, 0.1, 0.1, 0.1, 0.05]


def test_steps_are_taken_in_training_mode_and_validation_is_not() -> None:
    network = model()
    modes: list[tuple[int, bool]] = []
    network.register_forward_hook(
        lambda module, inputs, _: modes.append((len(inputs[0]["numeric"]), module.training))
    )
    run(network, classification(num_rows=50), train_params(epochs=2, batch_size=25))
    assert modes == [(25, True), (25, True), (30, False)] * 2


def test_a_validation_loss_that_is_no_number_stops_the_training() -> None:
    data = classification()
    data.validation.batch["numeric"][3, 2] = math.nan
    with pytest.raises(DivergedError, match="not finite any more in epoch 1"):
        run(model(), data, train_params())


@pytest.mark.parametrize("optimizer", ["SGD", "Rprop"])
def test_a_step_that_is_no_number_is_not_applied(optimizer: str) -> None:
    # Batches of one epoch that hold no poisoned row are all that it learns from.
    data, clean = classification(num_rows=48), classification(num_rows=48)
    row = order_of(48, 0, 1)[20]
    data.train.batch["numeric"][row, 2] = math.nan
    params = train_params(epochs=1, optimizer={"name": optimizer, "lr": 0.1})
    network, expected = model(), model()
    (epoch,) = run(network, data, params).history

    loss_of = make_loss(params, "classification")
    other = make_optimizer(expected, params)
    losses = []
    for number, rows in enumerate(torch.split(order_of(48, 0, 1), 16)):
        if number == 1:
            continue
        other.zero_grad()
        loss = loss_of(expected(take(clean.train.batch, rows)), clean.train.target[rows])
        loss.backward()
        other.step()
        losses.append(loss.item())
    assert epoch.skipped_steps == 1
    assert epoch.train_loss == pytest.approx(sum(losses) / 2, rel=1e-6)
    assert_same(weights_of(network), weights_of(expected), tolerance=0.0)


def test_a_device_that_nobody_waits_for_leaves_the_weights_as_they_were() -> None:
    # As on a GPU, with tensors of the CPU.
    network = model()
    params = train_params(optimizer={"name": "AdamW", "lr": 0.1})
    optimizer = make_optimizer(network, params)
    dropout_rng = share_dropout_rng(network, torch.device("cpu"))
    weights = list(network.parameters())
    loss_of = nn.CrossEntropyLoss()
    step = StepContext(
        network, loss_of, optimizer, dropout_rng, World(), math.inf, weights, clip_value=0.25
    )
    sums, before = EpochTotals(), weights_of(network)
    for factor in (math.nan, 1.0):
        for weight in weights:
            weight.grad = torch.full_like(weight, factor)
        loss = torch.tensor(2.0 * factor)
        apply_on_device(step, loss, torch.tensor(3.0), 16.0, sums)
        if math.isnan(factor):
            assert_same(weights_of(network), before, tolerance=0.0)
            assert (int(sums.consecutive_skips), float(sums.steps_applied)) == (1, 0.0)
    assert not torch.equal(weights_of(network)["output.bias"], before["output.bias"])
    assert all(weight.grad is not None and weight.grad.max() == 0.25 for weight in weights)
    found = [
        float(value)
        for value in (sums.loss, sums.norm, sums.rows, sums.steps_applied, sums.consecutive_skips)
    ]
    assert found == [32.0, 3.0, 16.0, 1.0, 0.0]


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


def test_five_steps_on_end_that_are_no_numbers_stop_the_training() -> None:
    whole = classification(num_rows=64)
    keys = np.array([f"row {number}" for number in range(64)])
    data = Data(
        TensorSource(whole.train.batch, whole.train.target, keys), whole.validation, whole.task
    )
    network = model()
    with torch.no_grad():
        # Finite, but its product with the input is not.
        network.output.weight.fill_(3e38)
    with pytest.raises(DivergedError) as caught:
        run(network, data, train_params(epochs=9, batch_size=12))
    text = str(caught.value)
    assert "in 5 steps in a row" in text
    assert "step 5 of epoch 1" in text
    last = order_of(64, 0, 1)[48:58].tolist()
    assert f"the rows with the keys {', '.join(keys[last])} and 2 more" in text
    assert "first seen in the output of output (Linear)" in text
    assert weights_of(network)["output.weight"].max().item() == pytest.approx(3e38)


@pytest.mark.parametrize("size", [1, 5, 16])
@pytest.mark.parametrize("kind", SPECS)
def test_micro_batches_give_the_gradient_of_the_batch(kind: str, size: int) -> None:
    params = {**DROPPED, "epochs": 2}
    whole, parts = (make_model(SPECS[kind], seed=4).double() for _ in range(2))
    alone = run(whole, pixels(kind), train_params(**params), seed=9)
    divided = run(parts, pixels(kind), train_params(**params, micro_batch_size=size), seed=9)
    for ours, theirs in zip(divided.history, alone.history, strict=True):
        assert vars(ours) == pytest.approx(vars(theirs), rel=1e-10)
    assert_same(weights_of(parts), weights_of(whole), tolerance=1e-10)


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


def test_the_average_of_the_weights_is_validated_and_kept() -> None:
    data, network = doubled(classification(num_rows=50)), model().double()
    params = train_params(epochs=3, ema=0.8, early_stopping=None)
    average = weights_of(network)
    number = 0

    def follow(module: nn.Module, _inputs: object, _output: object) -> None:
        nonlocal number
        if not module.training:
            return
        # The weights before a step are those after the one before it.
        if number > 0:
            decay = min(0.8, number / (9 + number))
            for name, weight in weights_of(network).items():
                average[name] = decay * average[name] + (1 - decay) * weight
        number += 1

    network.register_forward_hook(follow)
    result = run(network, data, params)
    network.train()
    follow(network, None, None)
    assert_same(result.weights, average, tolerance=1e-12)
    judged = model().double()
    judged.load_state_dict(result.weights)
    scores = judged.eval()(data.validation.batch)
    loss = F.cross_entropy(scores, data.validation.target).item()
    assert result.history[-1].validation_loss == pytest.approx(loss, rel=1e-12)
    last = F.cross_entropy(network.eval()(data.validation.batch), data.validation.target).item()
    assert abs(last - loss) > 1e-6


def test_the_same_seed_gives_the_same_bits_and_another_does_not() -> None:
    params = train_params(optimizer={"name": "AdamW", "lr": 0.01})
    network = model()
    network.body.append(nn.Dropout(0.5))  # type: ignore[operator]
    results = []
    for seed in (5, 5, 6):
        torch.manual_seed(seed + 100)
        results.append(run(copy.deepcopy(network), classification(), params, seed=seed))
    assert results[0].history == results[1].history
    assert_same(results[0].weights, results[1].weights, tolerance=0.0)
    assert results[0].history[0].train_loss != results[2].history[0].train_loss


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
        assert mask.unique().tolist() == pytest.approx([0.0, 1 / 0.7])
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
        assert "nn.Dropout" not in code, f"{file}: stages.model.dropout.Dropout"
        assert "BatchNorm" not in code, f"{file}: layer or group norm"


# What is trained by several processes and by one. A line search carries rounding on faster.
SEARCH = {"name": "LBFGS", "lr": 0.5, "max_iter": 4, "line_search_fn": "strong_wolfe"}
TOGETHER: dict[str, tuple[str, dict[str, Any]]] = {
    **{
        kind: (kind, AVERAGED | {name: DROPPED[name] for name in ("batch_size", "optimizer")})
        for kind in (*SPECS, "smooth")
    },
    "LBFGS": ("mlp", {"batch_size": 22, "optimizer": SEARCH, "epochs": 3}),
}

# Trains as one of several processes; leaves the weights of all models and what epochs measured.
ONE_OF_MANY = """
import sys, torch, torch.distributed as dist
from stages.training.data import source
from stages.train.checkpoints.checkpoint import copied, state_dict, rank_state_dict, load_state_dict
from stages.training.loop import train
from stages.training.device.environment import World
from tests.support.samples import train_params
from tests.stages.training.test_train import DROPPED, TOGETHER, named, pixels
rank, size, epochs, num_rows = map(int, sys.argv[1:5])
dtype, store, out = getattr(torch, sys.argv[5]), *sys.argv[6:]
dist.init_process_group("gloo", f"file://{store}", rank=rank, world_size=size)
# Several rounds of validation: in the last one all have rows, and not all as many.
source.MAX_ROWS = 8
results = {}
for name, (kind, changes) in TOGETHER.items():
    model = named(kind).to(dtype)
    params = train_params(**({'epochs': epochs} | changes), micro_batch_size=5)
    data = pixels(kind, num_rows, dtype)
    done = train(model, data, params, 9, World(rank, size), lambda *_: None)
    results[name] = [vars(epoch) for epoch in done.history], model.state_dict()
world = World(rank, size)
def keep(state):
    kept.append(copied(state_dict(state, world.gather(rank_state_dict(state)))))
for kind in ('cnn', 'draws'):
    kept, ends = [], []
    # Whole, then from the first step on.
    for restore in (lambda _: None, lambda state: load_state_dict(kept[0], world, state)):
        model = named(kind).double()
        params = train_params(**{**DROPPED, 'epochs': 2})
        ends.append(train(model, pixels(kind), params, 9, world, lambda *_: None, restore, keep))
    whole, rest = ends
    assert rest.history == whole.history
    assert all(torch.equal(rest.weights[name], whole.weights[name]) for name in whole.weights)
    # Whatever each has drawn, all have the same model.
    weights = [weight.tolist() for weight in whole.weights.values()]
    assert world.gather(weights) == [weights] * size
# Five steps of three numbers, all others in each process.
drawn = [number for mine in world.gather(model.drawn[-15:]) for number in mine]
assert len(set(drawn)) == 15 * size
if rank == 0:
    torch.save(results, out)
dist.destroy_process_group()
"""


def in_processes(tmp_path: Path, epochs: int, num_rows: int, dtype: str) -> list[Any]:
    """By name of `TOGETHER`: history and weights of a training in two processes, and in three."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", ONE_OF_MANY, *map(str, given), *files],
            cwd=ROOT,
            env={**project_environment(), "OMP_NUM_THREADS": "1"},
        )
        for size in (2, 3)
        for files in [[str(tmp_path / f"store {size}"), str(tmp_path / f"{size}.pt")]]
        for rank in range(size)
        for given in [(rank, size, epochs, num_rows, dtype)]
    ]
    assert [process.wait(timeout=240) for process in processes] == [0] * 5
    return [torch.load(tmp_path / f"{size}.pt") for size in (2, 3)]


# The last batch of an epoch of three has one row; 68 epochs are two hundred steps and four.
@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("epochs", [4, pytest.param(68, marks=pytest.mark.soak)])
def test_the_number_of_processes_changes_rounding_alone(epochs: int, tmp_path: Path) -> None:
    together = in_processes(tmp_path, epochs, 45, "float64")
    assert SPECS.keys() == {file.stem for file in (ROOT / "stages/zoo/models").glob("[!_]*.py")}
    for name, (kind, changes) in TOGETHER.items():
        params = train_params(**({"epochs": epochs} | changes))
        network = named(kind).double()
        alone = run(network, pixels(kind), params, seed=9)
        assert len(alone.history) == params.epochs
        for history, weights in (results[name] for results in together):
            for ours, theirs in zip(history, alone.history, strict=True):
                assert ours == pytest.approx(vars(theirs), rel=1e-10)
            assert_same(weights, weights_of(network), tolerance=1e-10)
        spec = SPECS.get(kind)
        if spec is None or "dropout" not in spec.arguments:
            continue
        # Something must have been dropped, else this shows nothing of it.
        still = spec.model_copy(update={"arguments": {**spec.arguments, "dropout": 0.0}})
        whole = run(make_model(still, seed=4).double(), pixels(kind), params, seed=9)
        assert abs(whole.history[0].train_loss - alone.history[0].train_loss) > 1e-6


# Ten steps an epoch; a kink lets a last bit grow, so models with one agree in their metric alone.
@pytest.mark.usefixtures("one_thread")
@pytest.mark.soak
def test_the_number_of_processes_hardly_shows_in_float32(tmp_path: Path) -> None:
    epochs, num_rows = 20, 200
    together = in_processes(tmp_path, epochs, num_rows, "float32")
    for kind in (*SPECS, "smooth"):
        network = named(kind)
        params = train_params(**(TOGETHER[kind][1] | {"epochs": epochs}))
        alone = run(network, pixels(kind, num_rows, torch.float32), params, seed=9)
        for history, weights in (results[kind] for results in together):
            assert len(history) == epochs
            ours, theirs = history[-1]["metric"], alone.history[-1].metric
            assert ours == pytest.approx(theirs, abs=1.01 / num_rows)
            if kind in ("linear", "smooth"):
                assert_same(weights, weights_of(network), tolerance=1e-4)


TABLE = mixed_table()


def ready(folder: Path, changes: dict[str, Any], table: pl.DataFrame = TABLE) -> Project:
    """A project of which everything before train has run."""
    project = small_project(folder, table, changes)
    run_stages(project, "prepare", "build", "tune")
    return project


# In short, `tests/stages/train/test_elastic.py` says it of two machines.
@pytest.mark.soak
def test_two_processes_train_as_one_does(tmp_path: Path) -> None:
    # A value to predict, without a kink in the model: float32 then differs by rounding alone.
    table = TABLE.with_columns(y=pl.col("size").fill_null(10.0) * 3 + pl.col("id") % 5)
    project = ready(
        tmp_path / "project",
        {
            "build.model": {"name": "linear"},
            "train.loss": {"name": "MSELoss"},
            "train.epochs": 4,
            "train.early_stopping": {"metric": "rmse", "patience": 3},
        },
        table,
    )
    num_rows = len(np.load(project.path / "data/prepare/train/key.npy"))
    # The last batch holds one row, so one of the two processes has none.
    set_params(project, {"train.batch_size": num_rows - 1})
    run_stages(project, "train")
    alone = project.outputs()
    history = read_csv(project.path / "data/train/history.csv")
    weights = load_file(project.path / "data/train/model.safetensors")

    said = project.run("python", "-m", "stages.train", env={"PET_NPROC_PER_NODE": "2"}).stdout
    assert "2 processes" in said
    together = project.outputs()
    assert sorted(together) == sorted(alone)
    assert together["data/train/model.json"] == alone["data/train/model.json"]
    for ours, theirs in zip(
        read_csv(project.path / "data/train/history.csv"), history, strict=True
    ):
        as_numbers = {name: float(value) for name, value in ours.items()}
        expected = {name: float(value) for name, value in theirs.items()}
        assert as_numbers == pytest.approx(expected, rel=1e-5)
    for name, weight in load_file(project.path / "data/train/model.safetensors").items():
        np.testing.assert_allclose(weight, weights[name], rtol=1e-4, atol=1e-6)


def test_a_mistake_that_two_processes_meet_is_told_once(tmp_path: Path) -> None:
    project = ready(
        tmp_path / "project",
        {"train.optimizer": {"name": "SGD", "lr": 1e30}, "train.clip_norm": None},
    )
    done = project.run("python", "-m", "stages.train", ok=False, env={"PET_NPROC_PER_NODE": "2"})
    assert "2 processes" in done.stdout
    assert "Traceback" not in done.stderr
    assert done.stderr.count("the loss is not finite any more") == 1
    assert "train.optimizer.lr: 1e+30" in done.stderr
    assert not list((project.path / "data/.writing").iterdir())


def events(project: Project) -> EventAccumulator:
    (folder,) = (project.path / "data/tensorboard").iterdir()
    board = EventAccumulator(str(folder), size_guidance={"tensors": 0, "histograms": 0})
    board.Reload()
    return board


SCALARS = {
    "loss/train": "train_loss",
    "loss/validation": "validation_loss",
    "accuracy/validation": "validation_accuracy",
    "learning_rate": "learning_rate",
    "gradient_norm": "gradient_norm",
}


def assert_scalars_are_the_history(board: EventAccumulator, project: Project) -> None:
    rows = read_csv(project.path / "data/train/history.csv")
    for tag, column in SCALARS.items():
        points = [(event.step, event.value) for event in board.Scalars(tag)]
        expected = [(int(row["epoch"]), float(np.float32(row[column]))) for row in rows]
        assert points == expected, tag


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Project:
    project = ready(tmp_path_factory.mktemp("trained") / "project", {})
    run_stages(project, "train")
    return project


def test_tensorboard_shows_the_training(trained: Project) -> None:
    board = events(trained)
    tags = board.Tags()
    assert_scalars_are_the_history(board, trained)
    assert set(SCALARS) <= set(tags["scalars"])
    assert sorted(tags["histograms"]) == [
        "weights/hidden.0.bias",
        "weights/hidden.0.weight",
        "weights/output.bias",
        "weights/output.weight",
    ]
    assert len(board.Histograms("weights/output.bias")) == 3
    weights = load_file(trained.path / "data/train/model.safetensors")
    for name, weight in weights.items():
        shown = board.Histograms(f"weights/{name}")[-1].histogram_value
        assert (shown.num, sum(shown.bucket)) == (weight.size, weight.size)
    assert {"y/ill", "y/well", "inputs/text_summary"} <= set(tags["tensors"])
    nodes = {node.name for node in board.Graph().node}
    assert any("hidden" in name for name in nodes)
    assert any("output" in name for name in nodes)


@pytest.mark.parametrize(("spread", "around"), [(1.0, 0.0), (1e-30, 0.0), (1e-16, 1.0), (0, 1e20)])
def test_a_histogram_has_every_number_in_its_bucket(spread: float, around: float) -> None:
    values = around + spread * np.random.default_rng(0).normal(size=(30, 7))
    raw = histogram(values)
    limits, counts = raw["bucket_limits"], raw["bucket_counts"]
    assert len(limits) == len(counts) == 51
    assert counts[0] == 0
    edges = [*limits[:-1], math.inf]
    for low, high, count in zip(edges, edges[1:], counts[1:], strict=False):
        assert ((values >= low) & (values < high)).sum() == count
    assert (raw["num"], sum(counts)) == (210, 210)
    assert (raw["min"], raw["max"]) == (values.min(), values.max())
    assert raw["sum"] == pytest.approx(values.sum(), rel=1e-12)
    assert raw["sum_squares"] == pytest.approx((values**2).sum(), rel=1e-12)


def test_tensorboard_shows_hyper_parameters_with_the_best_epochs_metrics(trained: Project) -> None:
    board = events(trained)
    content = {tag: bytes(content) for tag, content in board.PluginTagToContent("hparams").items()}
    assert set(content) == {
        "_hparams_/experiment",
        "_hparams_/session_start_info",
        "_hparams_/session_end_info",
    }
    for chosen in (b"train.optimizer.lr", b"build.model.width", b"train.batch_size"):
        assert chosen in content["_hparams_/session_start_info"]
    metrics = read_json(trained.path / "data/train/metrics.json")
    for name in ("validation_loss", "validation_accuracy"):
        (event,) = board.Scalars(f"kept/{name}")
        assert event.value == pytest.approx(metrics[name], rel=1e-6)


def test_tensorboard_shows_images_that_go_in(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    images = pl.Series(random.integers(17, size=(60, 4, 4), dtype=np.uint8).tolist())
    table = pl.DataFrame({"id": range(60), "image": images, "y": ["a", "b", "c"] * 20})
    project = ready(tmp_path / "images", {"build.model": {"name": "cnn", "channels": [4]}}, table)
    run_stages(project, "train")
    board = events(project)
    num_rows = len(np.load(project.path / "data/prepare/train/key.npy"))
    assert board.Tags()["images"] == ["inputs/image"]
    (grid,) = board.Images("inputs/image")
    # Rows of eight; each image of 4 by 4 has a frame of one pixel.
    assert (grid.width, grid.height) == (8 * 6, math.ceil(num_rows / 8) * 6)
    assert 32 < num_rows < 64


def test_the_events_of_a_recipe_replace_its_own_and_stand_beside_anothers(
    trained: Project, tmp_path: Path
) -> None:
    project = ready(tmp_path / "project", {"train.epochs": 1})
    run_stages(project, "train")
    (first,) = (project.path / "data/tensorboard").iterdir()
    before = {file.name for file in first.iterdir()}
    run_stages(project, "train")
    after = {file.name for file in first.iterdir()}
    assert len(after) == len(before)
    assert not after & before
    set_params(project, {"train.optimizer.lr": 0.5})
    run_stages(project, "train")
    runs = list((project.path / "data/tensorboard").iterdir())
    assert len(runs) == 2
    assert first in runs


def test_lost_events_are_rebuilt_from_the_history(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    project = ready(tmp_path / "project", {"train.epochs": 3})
    run_stages(project, "train")
    monkeypatch.chdir(project.path)
    (folder,) = Path("data/tensorboard").iterdir()
    for file in folder.iterdir():
        file.unlink()
    folder.rmdir()
    rebuild()
    board = events(project)
    assert_scalars_are_the_history(board, project)
    metrics = read_json(Path("data/train/metrics.json"))
    (event,) = board.Scalars("kept/validation_loss")
    assert event.value == pytest.approx(metrics["validation_loss"], rel=1e-6)
    assert list(Path("data/tensorboard").iterdir()) == [folder]
    written = [file.name for file in folder.iterdir()]
    rebuild()
    assert [file.name for file in folder.iterdir()] == written
    assert "has its events already" in capsys.readouterr().out
    # A folder alone, as a killed start leaves it, shows nothing.
    for name in written:
        (folder / name).unlink()
    rebuild()
    assert_scalars_are_the_history(events(project), project)
    Path("data/train/history.csv").unlink()
    shutil.rmtree(folder)
    rebuild()
    assert "there is no data/train/history.csv" in capsys.readouterr().out


def test_two_trainings_in_two_places_write_the_same_bytes(trained: Project, tmp_path: Path) -> None:
    other = ready(tmp_path / "another" / "place", {})
    run_stages(other, "train")
    assert other.outputs() == trained.outputs()


def test_outputs_hold_nothing_of_the_machine(trained: Project) -> None:
    strangers = [str(trained.path), str(Path.home()), socket.gethostname(), torch.__version__]
    for name, content in trained.outputs().items():
        assert not [word for word in strangers if word.encode() in content], name


def test_what_train_writes_is_one_story(trained: Project) -> None:
    folder = trained.path / "data/train"
    history = read_csv(folder / "history.csv")
    metrics = read_json(folder / "metrics.json")
    best = min(history, key=lambda row: float(row["validation_loss"]))
    assert metrics["kept_epoch"] == int(best["epoch"])
    for name in ("train_loss", "validation_loss", "validation_accuracy"):
        assert metrics[name] == pytest.approx(float(best[name]), rel=1e-6)
    for row, loss, metric in zip(
        history,
        read_csv(folder / "plots/loss.csv"),
        read_csv(folder / "plots/metric.csv"),
        strict=True,
    ):
        assert float(loss["train"]) == pytest.approx(float(row["train_loss"]), rel=1e-6)
        assert float(loss["validation"]) == pytest.approx(float(row["validation_loss"]), rel=1e-6)
        assert float(metric["validation"]) == pytest.approx(
            float(row["validation_accuracy"]), rel=1e-6
        )


def test_a_winner_of_another_architecture_is_rebuilt(tmp_path: Path) -> None:
    winner = ready(tmp_path / "winner", {"build.model": {"name": "mlp", "width": 8}})
    (winner.path / "data/tune/best.yaml").write_text(
        "build.model.width: 5\ntrain.optimizer.lr: 0.02\n", encoding="utf-8"
    )
    run_stages(winner, "train")
    edited = ready(tmp_path / "edited", {"build.model": {"name": "mlp", "width": 5}})
    set_params(edited, {"train.optimizer.lr": 0.02})
    run_stages(edited, "train")
    ours, theirs = winner.outputs(), edited.outputs()
    of_train = [name for name in theirs if name.startswith("data/train/")]
    assert len(of_train) == 10
    # The same as if its values had stood in params.yaml from the start: the weights too.
    for name in of_train:
        assert ours[name] == theirs[name], name
    assert read_json(winner.path / "data/train/model.json")["arguments"]["width"] == 5


def test_a_training_starts_from_the_weights_of_build(tmp_path: Path) -> None:
    still = {"name": "SGD", "lr": 1e-12}
    project = ready(tmp_path / "project", {"train.epochs": 1, "train.optimizer": still})
    built = project.path / "data/build/weights.safetensors"
    # As pretrained ones: no seed gives them.
    weights = {name: weight + 0.25 for name, weight in load_file(built).items()}
    save_file(weights, built)
    run_stages(project, "train")
    for name, weight in load_file(project.path / "data/train/model.safetensors").items():
        np.testing.assert_allclose(weight, weights[name], atol=1e-9)


@pytest.mark.parametrize(("asked", "processes"), [("3", 3), ("1", 1)])
def test_the_environment_says_how_many_processes(
    monkeypatch: pytest.MonkeyPatch, asked: str, processes: int
) -> None:
    monkeypatch.setenv("PET_NPROC_PER_NODE", asked)
    assert num_processes() == processes


@pytest.mark.parametrize("asked", ["0", "-1", "two", ""])
def test_a_wrong_number_of_processes_or_threads_is_an_error(
    monkeypatch: pytest.MonkeyPatch, asked: str
) -> None:
    monkeypatch.setenv("PET_NPROC_PER_NODE", asked)
    monkeypatch.setenv("REPRISE_THREADS", asked)
    with pytest.raises(UserError, match="PET_NPROC_PER_NODE"):
        num_processes()
    with pytest.raises(UserError, match="REPRISE_THREADS"):
        choose_threads(10, 10, World())


@pytest.mark.parametrize("name", ["meta", "nowhere", "cuda:99"])
def test_a_device_that_can_not_compute_is_an_error(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("REPRISE_DEVICE", name)
    with pytest.raises(UserError, match=f"REPRISE_DEVICE is '{name}', which can't be used"):
        choose_device()


def test_threads_follow_from_sizes_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_num_threads()
    try:
        choose_threads(1000, 64, World())
        assert torch.get_num_threads() == 1
        monkeypatch.setattr("os.cpu_count", lambda: 8)
        choose_threads(10_000_000, 64, World(size=2))
        assert torch.get_num_threads() == 4
        monkeypatch.setenv("REPRISE_THREADS", "3")
        choose_threads(1000, 64, World())
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
