"""Losses of our own against references, and what a loss must be for the loop."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import mean_pinball_loss
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

import stages.zoo.losses
from stages.common.errors import UserError
from stages.common.files import read_json
from stages.tools.params_schema import SCHEMA
from stages.training.optim.loss import make_loss
from stages.training.optim.preflight import check_names
from stages.training.optim.registry import allowed, arguments_of, losses_of
from stages.zoo.losses import focal, quantile
from tests.conftest import ROOT
from tests.support.samples import (
    classification,
    regression,
    train_params,
)
from tests.support.training.models import (
    model,
    run,
)

SCORES = torch.randn(40, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
CODES = torch.arange(40) % 3


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0, 5.0])
def test_focal_is_the_formula_of_its_paper(gamma: float) -> None:
    scores = SCORES.numpy()
    p = (np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True))[range(40), CODES.numpy()]
    expected = -((1 - p) ** gamma) * np.log(p)
    assert focal(gamma)(SCORES, CODES).item() == pytest.approx(expected.mean(), rel=1e-12)
    rows = focal(gamma, reduction="none")(SCORES, CODES)
    np.testing.assert_allclose(rows.numpy(), expected, rtol=1e-10)
    if gamma == 0:
        entropy = F.cross_entropy(SCORES, CODES).item()
        assert focal(gamma)(SCORES, CODES).item() == pytest.approx(entropy, rel=1e-12)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0, 5.0])
def test_the_backward_pass_of_focal_is_that_of_autograd(gamma: float) -> None:
    scores = SCORES[:8].clone().requires_grad_()
    # Rows that are nearly right and quite wrong, each with a gradient of its own.
    sharp, by_losses = scores * torch.tensor([1.0, 9.0] * 4)[:, None], torch.linspace(-1, 2, 8)
    assert torch.autograd.gradcheck(lambda s: focal(gamma, reduction="none")(s, CODES[:8]), scores)
    entropies = F.cross_entropy(sharp, CODES[:8], reduction="none")
    plain = (1 - (-entropies).exp()) ** gamma * entropies
    (expected,) = torch.autograd.grad(plain, scores, by_losses.double())
    sharp = scores * torch.tensor([1.0, 9.0] * 4)[:, None]
    losses = focal(gamma, reduction="none")(sharp, CODES[:8])
    (found,) = torch.autograd.grad(losses, scores, by_losses.double())
    torch.testing.assert_close(losses, plain)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("gamma", [0.5, 2.0])
def test_a_row_that_is_wholly_right_has_a_gradient_that_is_a_number(gamma: float) -> None:
    scores = torch.tensor([[200.0, -200.0], [0.0, 1e-3]], requires_grad=True)
    focal(gamma)(scores, torch.tensor([0, 1])).backward()  # type: ignore[no-untyped-call]
    assert scores.grad is not None
    assert scores.grad[0].tolist() == [0, 0]
    assert scores.grad[1].isfinite().all()
    assert scores.grad[1].abs().min() > 0


@pytest.mark.parametrize("q", [0.1, 0.5, 0.9])
def test_quantile_is_the_pinball_loss_of_scikit_learn(q: float) -> None:
    scores, target = SCORES[:, 0], SCORES[:, 1]
    expected = mean_pinball_loss(target.numpy(), scores.numpy(), alpha=q)
    assert quantile(q)(scores, target).item() == pytest.approx(expected, rel=1e-12)
    # Its minimum is what it is named after: as many rows below as it says.
    guesses = torch.linspace(-2, 2, 401, dtype=torch.float64)
    best = min(guesses, key=lambda guess: quantile(q)(guess.expand(40), target).item())
    assert (target < best).double().mean().item() == pytest.approx(q, abs=0.026)


class Own(nn.Module):
    """A loss of one's own, as the zoo has it; what each is differs in its formula alone."""

    formula: Callable[[Tensor, Tensor], Any]
    task = "regression"

    def forward(self, scores: Tensor, target: Tensor) -> Any:
        return type(self).formula(scores, target)


def add(monkeypatch: pytest.MonkeyPatch, name: str, **members: Any) -> None:
    """Put a loss of one's own into the zoo, for this test."""
    own = type(name, (Own,), {**members, "__module__": stages.zoo.losses.__name__})
    monkeypatch.setattr(stages.zoo.losses, name, own, raising=False)


def problems_of(task: str = "regression", **changes: Any) -> list[tuple[str | None, str]]:
    with pytest.raises(UserError) as caught:
        check_names(train_params(**changes), task)
    return [(problem.key, problem.message) for problem in caught.value.problems]


def test_a_loss_of_ones_own_is_named_by_its_class(monkeypatch: pytest.MonkeyPatch) -> None:
    add(monkeypatch, "logcosh", formula=lambda s, t: torch.log(torch.cosh(s - t)).mean())
    assert "logcosh" in allowed("loss")
    assert "logcosh" in losses_of("regression")
    assert "logcosh" not in losses_of("classification")
    params = train_params(loss={"name": "logcosh"})
    check_names(params, "regression")
    loss = make_loss(params, "regression")(torch.zeros(4), torch.ones(4)).item()
    assert loss == pytest.approx(math.log(math.cosh(1)), rel=1e-6)
    ((key, message),) = problems_of("classification", loss={"name": "logcosh"})
    assert key == "train.loss.name"
    assert message.startswith("logcosh is no loss for classification, which the target asks for")


@pytest.mark.parametrize(
    ("formula", "says"),
    [
        (lambda s, t: (s - t).square().sum(), "it is no mean over rows: of 6 rows together it is"),
        (lambda s, t: (s - t).abs().max(), "it is no mean over rows"),
        (lambda s, t: (s - t).square().mean().sqrt(), "it is no mean over rows"),
        (lambda s, t: (s - t).mean() * math.nan, "it gives nan in place of a finite number"),
        (lambda s, t: (s - t).abs().mean() / 0.0, "it gives inf in place of a finite number"),
        (
            lambda s, t: (s - t).square().sum() / (len(s) - 1),
            "it gives inf in place of a finite number where a batch is one row",
        ),
        (lambda s, t: (s - t).square(), "it gives (6,) in place of one number"),
        (lambda s, t: (s - t).square().mean().item(), "it gives float in place of one number"),
        (lambda s, t: ((s > t) == (t > 0)).float().mean(), "it has no gradient by the scores"),
    ],
)
def test_a_loss_that_the_loop_can_not_add_up_is_refused(
    formula: Callable[[Tensor, Tensor], Any], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(monkeypatch, "mine", formula=formula)
    ((key, message),) = problems_of(loss={"name": "mine"})
    assert key == "train.loss.name"
    assert message.startswith(f"mine can't be used: {says}")


def test_a_loss_with_weights_of_its_own_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(self: Own) -> None:
        super(Own, self).__init__()
        self.scale = nn.Parameter(torch.ones(()))

    add(monkeypatch, "mine", formula=F.mse_loss, __init__=start)
    ((_, message),) = problems_of(loss={"name": "mine"})
    assert "it has weights of its own, which no step moves" in message


def test_a_loss_that_is_called_otherwise_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    add(monkeypatch, "mine", forward=lambda _, scores: scores.mean())
    ((key, message),) = problems_of(loss={"name": "mine"})
    assert key == "train.loss"
    assert "2 positional arguments but 3 were given" in message


def test_a_loss_that_says_no_task_or_has_a_name_of_torch_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as patch:
        add(patch, "mine", formula=F.mse_loss, task=None)
        assert problems_of(loss={"name": "mine"}) == [
            (None, "stages/zoo/losses.py: mine does not say its task: `task = 'regression'` or "
             "'classification'")
        ]  # fmt: skip
    add(monkeypatch, "MSELoss", formula=F.mse_loss)
    ((_, message),) = problems_of(loss={"name": "MSELoss"})
    assert "torch has a loss MSELoss too" in message


def test_class_weights_need_the_loss_of_each_row(monkeypatch: pytest.MonkeyPatch) -> None:
    add(monkeypatch, "mine", formula=F.cross_entropy, task="classification")
    problems = problems_of("classification", loss={"name": "mine"}, class_weights="balanced")
    assert problems == [
        (
            "train.class_weights",
            "class weights need the loss of each row, and mine takes no reduction='none'",
        )
    ]
    check_names(train_params(loss={"name": "focal"}, class_weights="balanced"), "classification")
    with pytest.raises(UserError, match="weights of rows need the loss of each row") as caught:
        check_names(train_params(loss={"name": "mine"}), "classification", by_row=True)
    assert [problem.key for problem in caught.value.problems] == ["prepare.weight"]
    check_names(train_params(loss={"name": "focal"}), "classification", by_row=True)


def test_a_loss_for_each_class_is_tried_with_as_many_as_there_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    weights = torch.tensor([1.0, 2.0, 3.0, 4.0])

    def formula(scores: Tensor, target: Tensor) -> Tensor:
        rows = F.cross_entropy(scores * weights, target, reduction="none")
        return rows.mean()

    add(monkeypatch, "mine", formula=formula, task="classification")
    params = train_params(loss={"name": "mine"})
    check_names(params, "classification", classes=["a", "b", "c", "d"])
    with pytest.raises(UserError, match="must match"):
        check_names(params, "classification", classes=["a", "b", "c"])


@pytest.mark.parametrize(
    ("named", "task", "key", "says"),
    [
        ({"name": "focal", "gamma": -1.0}, "classification", "loss.gamma", "be at least 0"),
        ({"name": "focal", "gama": 1.0}, "classification", "loss.gama", "did you mean 'gamma'?"),
        ({"name": "quantile", "q": 1.0}, "regression", "loss.q", "be less than 1"),
        ({"name": "quantile", "reduction": "sum"}, "regression", "loss.reduction", "unknown key"),
    ],
)
def test_arguments_of_our_own_are_checked(
    named: dict[str, Any], task: str, key: str, says: str
) -> None:
    with pytest.raises(UserError) as caught:
        check_names(train_params(loss=named), task)
    assert [problem.key for problem in caught.value.problems] == [f"train.{key}"]
    assert says in str(caught.value)


def test_editors_know_of_the_losses_of_the_zoo() -> None:
    schema = read_json(ROOT / SCHEMA)
    assert "focal" in schema["x-tasks"]["train.loss.name"]["classification"]
    # A new one makes the schema out of date.
    assert "stages/zoo/losses.py" in schema["x-sources"]
    assert set(arguments_of("loss", "focal").model_fields) == {"gamma"}


@pytest.mark.parametrize("name", allowed("loss"))
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
