"""Which learning rate? `python -m stages.tools.lr_range` tries them all in one short training.

The range test of Smith (2017, Cyclical Learning Rates for Training Neural Networks): the rate
grows with every step, from far too small to far too large, and the loss of each step is noted.
It falls where rates are right and shoots up where they are too large. Everything but the rate is
the recipe of `params.yaml`: model, optimizer, rows, their order. Written to `.reprise/lr_range`:
`loss.png`, and the same as events of TensorBoard. It changes nothing else.
"""

import argparse
import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from rich.console import Console
from rich.table import Table
from torch import Tensor

from stages.common.config import ClassSpec
from stages.common.errors import UserError
from stages.common.params import Params
from stages.tools.training_tool import EnoughError, Training, at_least, prepare, run_tool
from stages.training.params import TrainParams
from stages.training.state import State
from stages.training.step.divergence import DivergedError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FOLDER = Path(".reprise/lr_range")
LOWEST, HIGHEST, NUM_STEPS = 1e-7, 10.0, 100
# How much less a loss weighs in the smoothed one with every step that it is away.
MEMORY = 0.7
NUM_AROUND = 20
# The loss diverges where the mean of the last ones is this often its lowest, and above the first.
TIMES = 4.0
NUM_ROWS = 12


@dataclass(frozen=True)
class Curve:
    """The loss of each step, and its rate; `smoothed` is what is judged.

    `steepest` and `lowest` are places in it: where the loss falls fastest by the logarithm of the
    rate (None: it does not fall), and where it is lowest. Where it `diverges` it is the last.
    """

    rates: list[float]
    losses: list[float]
    smoothed: list[float]
    steepest: int | None
    lowest: int
    diverges: bool


def measure(training: Training, lowest: float, highest: float, num_steps: int) -> Curve:
    """Train with a rate that grows from `lowest` to `highest`; each step's rate and loss.

    It ends before when the loss is not finite, or far above its lowest.
    """
    # The tool sets the rate: no schedule, and no average of weights that has a rate of its own.
    constant = {"schedule": ClassSpec(name="ConstantLR", factor=1.0), "swa": None}
    training = replace(training, params=training.params.model_copy(update=constant))
    rates = [float(rate) for rate in np.geomspace(lowest, highest, num_steps)]
    losses: list[float] = []
    shares: list[float] = []
    # What the epoch had come to before the step: sums of losses over rows, and rows.
    before = (0.0, 0.0)
    diverged = _watch()
    diverges = False

    def set_rate(state: State, rate: float) -> None:
        for group, share in zip(state.optimizer.param_groups, shares, strict=True):
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(rate * share)
            else:
                group["lr"] = rate * share

    def begin(state: State) -> None:
        # A group may have a rate of its own: it keeps its part of the optimizer's.
        base = float(state.optimizer.defaults["lr"])
        for group in state.optimizer.param_groups:
            shares.append(float(group["lr"]) / base if base else 1.0)
        set_rate(state, rates[0])

    def after_step(state: State) -> None:
        nonlocal before, diverges
        if state.totals.num_steps == 1:
            before = (0.0, 0.0)
        now = (float(state.totals.loss), float(state.totals.rows))
        num_rows = now[1] - before[1]
        # A step that was not applied has added no rows.
        losses.append((now[0] - before[0]) / num_rows if num_rows else math.nan)
        before = now
        if diverges := diverged(losses[-1]):
            raise EnoughError
        if len(losses) < num_steps:
            set_rate(state, rates[len(losses)])

    try:
        training.take_steps(num_steps, begin, after_step)
    except DivergedError:
        # The loop has seen it first: in an epoch of one step, or on validation.
        losses.append(math.nan)
        diverges = True
    return find_curve(rates[: len(losses)], losses, diverges=diverges)


def _watch() -> Callable[[float], bool]:
    """A function of one loss after the other that says whether the last ones have diverged."""
    mean, number, lowest, first = 0.0, 0, math.inf, math.inf

    def diverged(loss: float) -> bool:
        nonlocal mean, number, lowest, first
        number += 1
        mean = MEMORY * mean + (1 - MEMORY) * loss
        # Without its pull towards the 0 that it has begun with.
        recent = mean / (1 - MEMORY**number)
        first = recent if number == 1 else first
        lowest = min(lowest, recent)
        return not math.isfinite(recent) or recent > max(TIMES * lowest, first)

    return diverged


def find_curve(rates: list[float], losses: list[float], *, diverges: bool) -> Curve:
    """The places that matter in what was measured."""
    smoothed = smooth(losses[:-1] if diverges and len(losses) > 1 else losses)
    lowest = int(np.argmin(smoothed))
    steepest = None
    if lowest > 0:
        slopes = np.gradient(smoothed[: lowest + 1], np.log(rates[: lowest + 1]))
        steepest = int(np.argmin(slopes))
    return Curve(rates, losses, [*smoothed, *losses[len(smoothed) :]], steepest, lowest, diverges)


def smooth(losses: Sequence[float]) -> list[float]:
    """The mean of the losses around each; one to both sides has no delay."""
    weights = MEMORY ** np.abs(np.arange(-NUM_AROUND, NUM_AROUND + 1))
    padded = np.pad(np.asarray(losses), NUM_AROUND)
    counted = np.pad(np.ones(len(losses)), NUM_AROUND)
    mean = np.convolve(padded, weights, "valid") / np.convolve(counted, weights, "valid")
    return [float(value) for value in mean]


def draw(curve: Curve, title: str) -> "Figure":
    """The loss against the rate, with the places that matter."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    axes.plot(curve.rates, curve.losses, ".", color="0.7", label="loss of a step")
    axes.plot(curve.rates, curve.smoothed, color="tab:blue", label="smoothed")
    for place, colour, what in _marks(curve):
        axes.axvline(
            curve.rates[place],
            color=colour,
            linestyle="--",
            label=f"{what}: {curve.rates[place]:.2g}",
        )
    finite = [loss for loss in curve.losses if math.isfinite(loss)]
    if finite:
        # What is far above where it began would leave the rest no room.
        low, top = min(finite), max(finite[0], min(max(finite), 1.5 * curve.smoothed[0]))
        margin = 0.1 * (top - low) or 1.0
        axes.set_ylim(low - margin, top + margin)
    axes.set(xscale="log", xlabel="learning rate", ylabel="train loss", title=title)
    axes.grid(alpha=0.3)
    axes.legend()
    return figure


def _marks(curve: Curve) -> list[tuple[int, str, str]]:
    marks = [
        (curve.steepest, "tab:green", "falls fastest"),
        (curve.lowest, "tab:orange", "lowest"),
        (len(curve.rates) - 1 if curve.diverges else None, "tab:red", "diverges"),
    ]
    return [(place, colour, what) for place, colour, what in marks if place is not None]


def write(curve: Curve, title: str) -> None:
    """Replace what lies in `.reprise/lr_range`."""
    from torch.utils.tensorboard.writer import SummaryWriter

    shutil.rmtree(FOLDER, ignore_errors=True)
    figure = draw(curve, title)
    with SummaryWriter(str(FOLDER)) as writer:
        for step, (rate, loss) in enumerate(zip(curve.rates, curve.losses, strict=True), start=1):
            writer.add_scalar("lr_range/learning_rate", rate, step)
            writer.add_scalar("lr_range/loss", loss, step)
        figure.savefig(FOLDER / "loss.png", dpi=100)
        writer.add_figure("lr_range/loss_against_rate", figure)


def show(curve: Curve, params: TrainParams) -> None:
    """A table of about twelve rows, and what it says of the rate."""
    notes: dict[int, list[str]] = {}
    for place, _, what in _marks(curve):
        notes.setdefault(place, []).append(what)
    last = len(curve.rates) - 1
    spread = {round(place) for place in np.linspace(0, last, min(NUM_ROWS, last + 1))}
    table = Table("learning rate", "loss", "")
    for place in sorted(spread | set(notes)):
        loss = curve.smoothed[place]
        table.add_row(f"{curve.rates[place]:.2g}", f"{loss:.4g}", ", ".join(notes.get(place, [])))
    Console().print(table)
    if curve.steepest is None:
        print("no rate to suggest: the loss does not fall; try other bounds (--from, --to)")
    else:
        now = params.optimizer.arguments.get("lr")
        stands = "" if now is None else f" (now {now:g})"
        rate = curve.rates[curve.steepest]
        print(f"suggested: train.optimizer.lr: {rate:.1e}{stands}, where the loss falls fastest")
    print(
        f"it {'diverges at' if curve.diverges else 'does not diverge up to'} {curve.rates[-1]:.2g}"
    )
    print(f"the plot: {FOLDER / 'loss.png'}, or 'tensorboard --logdir {FOLDER}'")


def main() -> None:
    """Measure, write, show."""
    parser = argparse.ArgumentParser(prog="python -m stages.tools.lr_range", description=__doc__)
    parser.add_argument("--from", dest="lowest", type=float, default=LOWEST, metavar="RATE")
    parser.add_argument("--to", dest="highest", type=float, default=HIGHEST, metavar="RATE")
    parser.add_argument("--steps", type=at_least(2), default=NUM_STEPS, metavar="N")
    options = parser.parse_args()

    def work(params: Params) -> None:
        if not 0 < options.lowest < options.highest < math.inf:
            bounds = f"from {options.lowest:g} to {options.highest:g}"
            raise UserError(f"the rates go up, from one above 0: '--from' to '--to' is {bounds}")
        training = prepare(params)
        curve = measure(training, options.lowest, options.highest, options.steps)
        write(curve, f"{training.params.optimizer.name}, batches of {training.params.batch_size}")
        show(curve, training.params)

    run_tool("lr_range", work)


if __name__ == "__main__":
    main()
