"""The history of the last training that ended: has it learned anything, and what stands out?

Judged without torch, from `data/train/history.csv` and the targets that it was validated on.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pipeline.common.lockfile import LOCK
from pipeline.doctor.cause import Probe
from pipeline.doctor.guess import RECIPE, Guess
from stages.common.config import get_path
from stages.common.files import read_csv, read_json
from stages.common.params import PARAMS, to_plain
from stages.common.yamlfile import read_yaml

HISTORY = Path("data/train/history.csv")
LONG_GRADIENT = 1e3
# Of the rows that the best guess has wrong.
MARGIN = 0.02
# Standard errors, and the last loss of training as a share of the first.
SURE, FALLEN = 3.0, 0.9
SAME = "the model predicts the same for every row"
HIDDEN = "a metric that does not show what was learned"
PROBES: tuple[Probe, ...] = ("learning", "layers", "labels")
# Of epochs that were trained, and of the lowest loss of validation.
EARLY, RISEN = 0.25, 1.5


@dataclass(frozen=True)
class Sign:
    """A thing that stands out: its cause in the table, the evidence, and what measures more."""

    cause: str
    what: str
    probes: tuple[Probe, ...] = ()
    fails: bool = False


def read_history() -> list[dict[str, float]]:
    """The rows of the history, as numbers; what is empty is not a number."""
    rows = read_csv(HISTORY)
    return [{k: float(v) if v else math.nan for k, v in row.items()} for row in rows]


def judge(history: list[dict[str, float]], guess: Guess) -> Iterator[Sign]:
    """Yield what stands out, the worst first."""
    metric = next(n for n in history[0] if n.startswith("validation_") and n != "validation_loss")
    values = [row[metric] for row in history]
    best = max(values) if metric == "validation_accuracy" else min(values)
    if not is_beaten(metric, best, guess):
        yield judge_loss(history, f"{metric} is {best:.4g} at best", guess)
    yield from _judge_gradients(history)
    yield from _judge_losses(history)
    skipped = sum(int(row.get("skipped_steps", 0) or 0) for row in history)
    if skipped:
        what = f"{skipped} steps were not applied: their loss or gradient was not finite"
        yield Sign("the loss is not finite", what)


def is_beaten(metric: str, best: float, guess: Guess) -> bool:
    """Check whether the best epoch is better than the guess by the metric, by more than luck."""
    if metric == "validation_accuracy":
        return best > guess.metric + max(guess.luck, MARGIN * (1 - guess.metric))
    return best < guess.metric - guess.luck


def judge_loss(history: list[dict[str, float]], said: str, guess: Guess) -> Sign:
    """The sign of a metric that is no better than the guess: the loss tells what that means.

    Of rare classes, and of values that are hard to predict, a good model moves the loss alone.
    One that is far too sure of itself moves neither: the order of its scores tells, if it has
    trained; weights as they were drawn have an order too.
    """
    said += f", and {guess.what} gets {guess.metric:.4g}"
    # An ensemble whose members learn by different losses has no mean of them.
    if guess.loss is None or "validation_loss" not in history[0]:
        said += "; what this loss is without a look at the rows is not known"
    else:
        losses = [row["validation_loss"] for row in history]
        lowest = min((loss for loss in losses if math.isfinite(loss)), default=math.inf)
        without = f"and without a look at the rows {guess.loss:.4g}"
        said += f"; validation_loss is {lowest:.4g}, {without}"
        if lowest < guess.loss - guess.loss_luck:
            return Sign(HIDDEN, said)
    losses = [row.get("train_loss", math.inf) for row in history]
    if guess.order > SURE and losses[-1] < FALLEN * losses[0]:
        order = f"the order of its scores goes with the targets (by {guess.order:.0f} of its errors"
        return Sign(HIDDEN, f"{said}; {order}, where luck comes to one)")
    is_known = guess.loss is not None and "validation_loss" in history[0]
    return Sign(SAME, said, PROBES, fails=is_known)


def _judge_gradients(history: list[dict[str, float]]) -> Iterator[Sign]:
    norms = [row["gradient_norm"] for row in history if math.isfinite(row["gradient_norm"])]
    if norms and max(norms) > LONG_GRADIENT:
        what = f"the norm of the gradient was {max(norms):.3g} in an epoch's mean"
        yield Sign("gradients that explode", what, ("layers",))


def _judge_losses(history: list[dict[str, float]]) -> Iterator[Sign]:
    if "train_loss" not in history[0]:
        return
    losses = [row["validation_loss"] for row in history]
    lowest = min(range(len(losses)), key=lambda i: losses[i])
    falls = history[-1]["train_loss"] < 0.8 * history[0]["train_loss"]
    risen = losses[-1] > RISEN * losses[lowest]
    if len(history) < 4 or not falls or not risen or lowest + 1 > EARLY * len(history):
        return
    what = f"validation_loss was lowest in epoch {lowest + 1} ({losses[lowest]:.3g}) and is "
    what += f"{losses[-1]:.3g} in epoch {len(history)}, while train_loss falls"
    yield Sign("the rows are learned by heart", what, ("splits",))


def is_of_now() -> bool:
    """Check whether `params.yaml` has the values that the training of `dvc.lock` was made with."""
    entry = ((read_yaml(LOCK).get("stages") or {}) if LOCK.exists() else {}).get("train") or {}
    made_with = (entry.get("params") or {}).get(str(PARAMS)) or {}
    tree = read_yaml(PARAMS)
    try:
        return all(to_plain(get_path(tree, k)) == to_plain(v) for k, v in made_with.items())
    except KeyError:
        return False


def rows_at_once() -> tuple[int, int | None] | None:
    """The rows that the memory held at once, and those that were asked for, where they differ."""
    if not RECIPE.exists():
        return None
    used = (read_json(RECIPE).get("train") or {}).get("micro_batch_size")
    asked = (read_yaml(Path("params.yaml")).get("train") or {}).get("micro_batch_size")
    return (int(used), asked) if used is not None and used != asked else None
