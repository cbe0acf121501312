"""Objectives of the zoo: what a step makes less, and that no division of a batch changes it."""

import math
import re
import sys
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from stages.common.config import ClassSpec
from stages.common.errors import UserError
from stages.common.files import read_csv, read_json
from stages.model.dropout import DropoutRng
from stages.tensors.batch import Batch
from stages.train.checkpoints.checkpoint import copied, load_state_dict, rank_state_dict, state_dict
from stages.training.data.batching import epoch_batches
from stages.training.data.source import TensorSource
from stages.training.device import compile as compiled
from stages.training.device.distributed import World
from stages.training.loop import train
from stages.training.optim.objective import (
    Objective,
    check_logged,
    make_objective,
    objective_names,
    unpack,
)
from stages.training.optim.preflight import check_names
from stages.training.state import Data, State
from stages.training.step.loss_of_scores import compute_loss
from tests.conftest import ROOT
from tests.support.samples import (
    classification,
    ready_to_train,
    regression,
    run_stages,
    train_params,
)
from tests.support.training.models import (
    assert_same,
    doubled,
    figures,
    model,
    named,
    pixels,
    run,
    weights_of,
)

CONSISTENCY = {"name": "consistency", "weight": 3.0, "noise": 0.5}
OBJECTIVES = ({"name": "supervised"}, {"name": "mixup"}, CONSISTENCY)
ADAM = {"name": "Adam", "lr": 0.01}
LBFGS = {"name": "LBFGS", "lr": 0.5, "max_iter": 3, "line_search_fn": "strong_wolfe"}


def one_step(name: str, data: Data, **changes: object) -> tuple[nn.Module, float]:
    """The model after one step of SGD with all rows, and its loss."""
    network = model(3 if data.task == "classification" else 1).double()
    size = len(data.train)
    params = train_params(epochs=1, batch_size=size, objective={"name": name}, **changes)
    return network, run(network, data, params, seed=5).history[0].train_loss


def weighted(data: Data) -> Data:
    """The same, each row with a weight of its own."""
    train = data.train
    assert isinstance(train, TensorSource)
    weight = torch.linspace(0.5, 1.5, len(train)).to(train.batch["numeric"].dtype)
    return Data(
        TensorSource(train.batch, train.target, weight=weight),
        data.validation,
        data.task,
        classes=["a", "b", "c"][: 3 if data.task == "classification" else 0],
    )


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("weighs", [False, True])
@pytest.mark.parametrize("task", ["classification", "regression"])
def test_mixup_is_the_loss_of_mixed_rows_beside_both_targets(task: str, *, weighs: bool) -> None:
    data = doubled(classification() if task == "classification" else regression())
    changes: dict[str, Any] = {"loss": {"name": "MSELoss"}} if task == "regression" else {}
    data = weighted(data) if weighs else data
    _, found = one_step("mixup", data, **changes)

    rng = DropoutRng(torch.device("cpu"))
    rng.begin_epoch(5, 1)
    rng.begin_step(0, len(data.train), slice(None))
    share = math.sin(math.pi / 2 * float(rng.draw_number(data.train.target.double()))) ** 2
    (order,) = epoch_batches(len(data.train), len(data.train), 5, 1)
    batch, target = data.train.take(order)
    weight = torch.ones(len(order)) if data.train.weight is None else data.train.weight[order]
    mixed = (1 - share) * batch["numeric"] + share * batch["numeric"].roll(1, 0)
    scores = model(3 if task == "classification" else 1).double()({"numeric": mixed})

    def losses(target: Tensor) -> Tensor:
        if task == "regression":
            return (scores.squeeze(1) - target).square()
        return F.cross_entropy(scores, target, reduction="none")

    own, other = weight * losses(target), (weight.roll(1)) * losses(target.roll(1))
    assert 0.01 < share < 0.99
    expected = ((1 - share) * own + share * other).mean()
    assert found == pytest.approx(expected.item(), rel=1e-9)


@pytest.mark.usefixtures("one_thread")
def test_parts_of_a_batch_add_up_and_are_logged_as_the_whole() -> None:
    whole, parts = (named("mlp").double() for _ in range(2))
    changes: dict[str, Any] = {"epochs": 3, "batch_size": 22, "objective": CONSISTENCY}
    alone = run(whole, pixels("mlp"), train_params(**changes), seed=9)
    divided = run(parts, pixels("mlp"), train_params(**changes, micro_batch_size=5), seed=9)
    for ours, theirs in zip(divided.history, alone.history, strict=True):
        assert figures(ours) == pytest.approx(figures(theirs), rel=1e-10)
        assert ours.logged["moved"] > 1e-3
    assert_same(weights_of(parts), weights_of(whole), tolerance=1e-10)
    plain = run(named("mlp").double(), pixels("mlp"), train_params(epochs=3, batch_size=22), seed=9)
    assert plain.history[0].logged == {}
    assert plain.history[0].train_loss != alone.history[0].train_loss


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("optimizer", [LBFGS, ADAM], ids=lambda o: o["name"])
@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda o: o["name"])
def test_each_works_with_weights_precision_and_every_optimizer(
    objective: dict[str, object], optimizer: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiled, "BACKEND", "eager")
    data = weighted(classification(40))
    for more in ({"class_weights": "balanced"}, {"precision": "bf16"}, {"compile": True}):
        params = train_params(
            epochs=6, batch_size=40, objective=objective, optimizer=optimizer, **more
        )
        network = model()
        history = run(network, data, params).history
        assert all(math.isfinite(epoch.train_loss) for epoch in history), more
        assert [epoch.skipped_steps for epoch in history] == [0] * 6
        assert not torch.equal(network.output.weight, model().output.weight)
        assert set(history[0].logged) == ({"moved"} if objective is CONSISTENCY else set())


def test_what_is_logged_is_in_a_checkpoint() -> None:
    params = train_params(epochs=2, batch_size=11, objective=CONSISTENCY)
    kept: list[dict[str, Any]] = []

    def keep(state: State) -> None:
        kept.append(copied(state_dict(state, [rank_state_dict(state)])))

    def fit(load: Any = lambda _: None, on_step_end: Any = lambda _: None) -> Any:
        hooks = {"load_state": load, "on_step_end": on_step_end}
        return train(model(), classification(), params, 3, World(), lambda *_: None, **hooks)

    whole = fit(on_step_end=keep)
    # After two of the steps of an epoch.
    rest = fit(partial(load_state_dict, kept[1], World()))
    assert rest.history == whole.history
    assert set(whole.history[1].logged) == {"moved"}


def test_the_stage_writes_what_is_logged(tmp_path: Path) -> None:
    changes = {"train.objective": CONSISTENCY, "train.epochs": 2, "prepare.key": "id"}
    project = ready_to_train(tmp_path / "project", changes)
    run_stages(project, "train")
    rows = read_csv(project.path / "data/train/history.csv")
    assert [name for name in rows[0] if name.startswith("objective")] == ["objective_moved"]
    assert all(float(row["objective_moved"]) > 0 for row in rows)
    recipe = read_json(project.path / "data/train/recipe.json")["train"]
    assert recipe["objective"] == CONSISTENCY


def test_what_gives_no_loss_is_told_with_its_line() -> None:
    objective = make_objective(ClassSpec(name="supervised"))
    for found, said in (
        (torch.ones(3), "gives a tensor (3,)"),
        (None, "gives NoneType"),
        ((torch.ones(()), torch.ones(())), "gives"),
    ):
        with pytest.raises(UserError, match="the mean over rows is needed") as caught:
            unpack(found, objective)
        (problem,) = caught.value.problems
        assert said in problem.message
        assert (problem.file, problem.value) == (
            "stages/zoo/objectives/supervised.py",
            "def objective(",
        )


def test_what_an_objective_logs_is_a_name_with_a_number() -> None:
    objective = make_objective(ClassSpec(name="supervised"))
    loss = torch.ones((), requires_grad=True)
    _, logged = unpack((loss, {"a": 0.5, "b": torch.ones(()), "c": 3}), objective)
    assert {name: float(value) for name, value in logged.items()} == {"a": 0.5, "b": 1.0, "c": 3.0}
    check_logged([], logged, objective)
    check_logged(["c", "a", "b"], logged, objective)
    for wrong, said in (
        ({"size": torch.ones(2, 3)}, "logs 'size': a tensor (2, 3)"),
        ({3: loss}, "logs 3: a tensor ()"),
        ({"size": "large"}, "logs 'size': str"),
    ):
        with pytest.raises(UserError, match=re.escape(said)):
            unpack((loss, wrong), objective)
    with pytest.raises(UserError, match="logs a, b, c, and earlier steps logged a, d"):
        check_logged(["a", "d"], logged, objective)
    with pytest.raises(UserError, match="a loss that no weight has a part in"):
        unpack(loss.detach(), objective)


def test_rows_that_cannot_be_mixed_or_moved_are_refused() -> None:
    codes = TensorSource({"categorical": torch.ones(8, 1).long()}, torch.zeros(8).long())
    data = Data(codes, codes, "classification")

    class OneHot(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.output = nn.Linear(1, 3)

        def forward(self, batch: Batch) -> Tensor:
            scores: Tensor = self.output(batch["categorical"].float())
            return scores

    for name, said in (("mixup", "codes (categorical)"), ("consistency", "no numeric columns")):
        with pytest.raises(UserError) as caught:
            run(OneHot(), data, train_params(objective={"name": name}))
        (problem,) = caught.value.problems
        assert said in problem.message
        assert (problem.key, problem.value) == ("train.objective.name", name)


def test_the_objective_in_the_docs_works(monkeypatch: pytest.MonkeyPatch) -> None:
    page = (ROOT / "docs/training.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```py\n(from torch import Tensor.*?)```", page, re.DOTALL)
    name = "stages.zoo.objectives.mine"
    module = ModuleType(name)
    module.__file__ = str(ROOT / "stages/zoo/objectives/mine.py")
    exec(code, vars(module))
    monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr("stages.training.optim.objective.objective_names", lambda: ["mine"])
    params = train_params(epochs=1, objective={"name": "mine", "weight": 0.5})
    (epoch,) = run(model(), classification(), params).history
    assert epoch.logged["size"] > 0
    assert epoch.train_loss > epoch.logged["size"] / 2


def test_names_and_arguments_are_told_before_anything_is_loaded() -> None:
    for objective, key in (
        ({"name": "mixpu"}, "train.objective.name"),
        ({"name": "consistency", "weight": 0.0}, "train.objective.weight"),
        ({"name": "mixup", "alpha": 1.0}, "train.objective.alpha"),
    ):
        with pytest.raises(UserError) as caught:
            check_names(train_params(objective=objective), "classification")
        assert [problem.key for problem in caught.value.problems] == [key]
    assert objective_names() == ["consistency", "mixup", "supervised"]


def test_an_objective_is_handed_what_the_docs_say() -> None:
    """Every objective, called without a training around it."""
    torch.manual_seed(0)
    batch, target = {"numeric": torch.randn(6, 4)}, torch.tensor([0, 1, 2, 0, 1, 2])
    rng = DropoutRng(torch.device("cpu"))
    rng.begin_epoch(0, 1)

    def loss_fn(scores: Tensor, target: Tensor, rows: Tensor | None = None) -> Tensor:
        return compute_loss(nn.CrossEntropyLoss(), scores, target, None)

    for name in objective_names():
        objective: Objective = make_objective(ClassSpec(name=name))
        rng.begin_step(0, 6, slice(None))
        loss, logged = unpack(objective(model(), batch, target, loss_fn, rng), objective)
        assert loss.isfinite()
        assert all(value.shape == () for value in logged.values())
        assert Path(f"stages/zoo/objectives/{name}.py").is_file()
