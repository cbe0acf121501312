"""The range test of learning rates: the losses by hand, the places in a curve, the command."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.nn import functional as F  # noqa: N812

from stages.tools import lr_range
from stages.tools.lr_range import find_curve, measure, smooth
from stages.training.data.batching import epoch_batches
from tests.conftest import Project
from tests.stages.tools.conftest import Call, some_training
from tests.support.samples import (
    Linear,
    classification,
    mixed_table,
    run_stages,
    set_params,
    small_project,
)


def test_the_losses_are_those_of_the_loop_with_a_growing_rate() -> None:
    # An optimizer's rate of 0.1 is not used; four batches an epoch, so ten steps are three epochs.
    curve = measure(some_training(batch_size=16), 1e-3, 1.0, 10)

    data, network = classification(num_rows=50), Linear()
    order = [rows for epoch in (1, 2, 3) for rows in epoch_batches(50, 16, 3, epoch)]
    losses = []
    for number, rows in enumerate(order[:10]):
        scores = network({"numeric": data.train.take(rows)[0]["numeric"]})
        loss = F.cross_entropy(scores, data.train.target[rows])
        network.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        with torch.no_grad():
            for weight in network.parameters():
                assert weight.grad is not None
                weight -= 10 ** (-3 + number / 3) * weight.grad
        losses.append(loss.item())
    assert curve.rates == pytest.approx([10 ** (-3 + n / 3) for n in range(10)], rel=1e-12)
    assert curve.losses == pytest.approx(losses, rel=1e-5)
    assert not curve.diverges


def test_what_else_would_move_the_rate_stands_still() -> None:
    plain = measure(some_training(batch_size=16), 1e-3, 1.0, 10)
    recipe = {"schedule": {"name": "OneCycleLR"}, "swa": {"start": 2, "lr": 0.5}}
    assert measure(some_training(batch_size=16, **recipe), 1e-3, 1.0, 10) == plain


def test_it_ends_where_the_loss_diverges() -> None:
    curve = measure(some_training(), 1e-3, 1e9, 200)
    assert curve.diverges
    assert len(curve.losses) == len(curve.rates) < 150
    assert curve.losses[-1] > 4 * min(curve.losses)
    # And where it is no number at all; with a step an epoch the loop itself stops there.
    for size in (16, 50):
        sudden = measure(some_training(batch_size=size, clip_norm=None), 1e-3, 1e38, 4)
        assert sudden.diverges
        assert len(sudden.losses) == len(sudden.rates)


def test_the_places_are_those_of_a_curve_that_is_known() -> None:
    exponents = np.linspace(-6, 1, 141)
    # It falls as a logistic function around 1e-3, and has risen a little at 1e-1.
    falls = 2.0 / (1 + np.exp(4 * (exponents + 3)))
    rises = 0.5 / (1 + np.exp(-8 * (exponents + 1)))
    rates, losses = list(10**exponents), list(0.3 + falls + rises)
    curve = find_curve(rates, losses, diverges=False)
    assert curve.steepest is not None
    assert rates[curve.steepest] == pytest.approx(1e-3, rel=0.2)
    assert rates[curve.lowest] == pytest.approx(10**-1.7, rel=0.5)
    # In the middle of its fall: without a delay.
    assert curve.smoothed[60] == pytest.approx(losses[60], rel=0.001)
    # What is lost at the end does not reach back.
    lost = find_curve([*rates, 20.0], [*losses, 1e9], diverges=True)
    assert (lost.steepest, lost.lowest) == (curve.steepest, curve.lowest)
    assert lost.smoothed[-1] == 1e9
    # A loss that only grows suggests nothing.
    assert find_curve(rates, list(exponents), diverges=False).steepest is None
    assert smooth([2.0, 2.0, 2.0]) == pytest.approx([2.0, 2.0, 2.0])
    assert find_curve([1e-3], [math.nan], diverges=True).steepest is None


def test_a_group_keeps_its_part_of_the_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def assemble_with_slow_biases(*arguments: Any) -> Any:
        made = assemble(*arguments)
        made.state.optimizer.param_groups[1]["lr"] = 0.01
        take = made.context.optimizer.step

        def step(*given: Any) -> Any:
            seen.append([group["lr"] for group in made.state.optimizer.param_groups])
            return take(*given)

        made.context.optimizer.step = step
        return made

    from stages.training.loop import assemble

    monkeypatch.setattr("stages.training.loop.assemble", assemble_with_slow_biases)
    measure(some_training(), 1e-4, 1e-2, 3)
    assert seen == [pytest.approx(pair) for pair in ([1e-4, 1e-5], [1e-3, 1e-4], [1e-2, 1e-3])]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project of which what follows build has not run; it has a schedule of its own."""
    project = small_project(tmp_path_factory.mktemp("built") / "project", mixed_table(), {})
    set_params(project, {"train.schedule": {"name": "OneCycleLR"}})
    run_stages(project, "prepare", "build")
    return project


def test_the_command_suggests_draws_and_changes_nothing_else(
    built: Project, call: Call, capsys: pytest.CaptureFixture[str]
) -> None:
    before = built.outputs()
    call(lr_range, built, "--from", "1e-6", "--to", "100", "--steps", "60")
    said = capsys.readouterr().out
    assert "there is no data/tune/best.yaml" in said
    assert "falls fastest" in said
    (line,) = [line for line in said.splitlines() if line.startswith("suggested: ")]
    assert 1e-6 < float(line.split()[2]) < 10
    assert "(now 0.003)" in line
    assert len(said.splitlines()) < 30

    assert built.outputs() == before
    written = [path for path in built.path.rglob("*") if path.is_file() and ".reprise" in str(path)]
    assert {path.parent.name for path in written} == {"lr_range"}
    with Image.open(built.path / ".reprise/lr_range/loss.png") as image:
        assert (image.width, image.height) == (800, 500)
    board = EventAccumulator(str(built.path / ".reprise/lr_range"))
    board.Reload()
    assert board.Tags()["images"] == ["lr_range/loss_against_rate"]
    rates = [event.value for event in board.Scalars("lr_range/learning_rate")]
    assert rates[0] == pytest.approx(1e-6)
    assert rates[1] / rates[0] == pytest.approx(10 ** (8 / 59), rel=1e-4)
    assert len(board.Scalars("lr_range/loss")) == len(rates)
    # The next one takes its place.
    call(lr_range, built, "--steps", "3")
    assert len(list(Path(".reprise/lr_range").iterdir())) == 2


@pytest.mark.parametrize(
    ("arguments", "changes", "says"),
    [
        (["--from", "1", "--to", "0.1"], {}, "'--from' to '--to' is from 1 to 0.1"),
        ([], {"train.optimizer.lrr": 1.0}, "did you mean 'lr'?"),
        (
            [],
            {"train.optimizer.name": "LBFGSS", "train.loss.name": "MSELoss"},
            "MSELoss is no loss",
        ),
    ],
)
def test_a_mistake_is_one_screen(
    built: Project,
    refused: Callable[..., str],
    arguments: list[str],
    changes: dict[str, Any],
    says: str,
) -> None:
    params = (built.path / "params.yaml").read_bytes()
    set_params(built, changes)
    try:
        said = refused(lr_range, built, *arguments)
    finally:
        (built.path / "params.yaml").write_bytes(params)
    assert "lr_range stopped" in said
    assert says in said


def test_without_data_it_says_what_to_run(tmp_path: Path, refused: Callable[..., str]) -> None:
    project = small_project(tmp_path / "fresh", mixed_table(), {})
    said = refused(lr_range, project)
    assert "there is no data/prepare/schema.json: run 'dvc repro build' first" in said
