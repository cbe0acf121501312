"""Names and arguments of losses, optimizers and schedules."""

from types import ModuleType

import pytest
import torch
from torch import nn

from stages.common.errors import UserError
from stages.training.optim.preflight import check_names
from stages.training.optim.registry import Kind, allowed, refused
from tests.support.samples import train_params

KINDS: tuple[Kind, ...] = ("loss", "optimizer", "schedule")


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
    ours = {
        "loss": {"focal", "quantile"},
        "optimizer": set(),
        "schedule": {"coslog4", "flat_cos", "warmup_cosine"},
    }
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
