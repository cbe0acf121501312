"""The progress of a training: a bar on a terminal, about twenty plain lines elsewhere.

An epoch that takes long also tells how far it is: its rate, and the time that is left.
"""

import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

from tqdm import tqdm

from stages.training.params import TrainParams
from stages.training.state import Epoch, State

NUM_LINES = 20
MIN_LINES = 5
# Between two looks at an epoch that runs: on a terminal, and of plain lines, which a training
# of days leaves more room: this share of the time that it has taken.
SECONDS_ON_TERMINAL = 1.0
SECONDS_BETWEEN_LINES = 30.0
SHARE_BETWEEN_LINES = 0.05
# Times that are longer are told in the next larger unit.
MAX_SECONDS, MAX_MINUTES = 100, 100


@dataclass(frozen=True)
class Progress:
    """Called after every step, after every epoch, and at the end, also of one that failed."""

    after_step: Callable[[State], None]
    after_epoch: Callable[[Epoch], None]
    close: Callable[[], None]


def show_progress(params: TrainParams, num_rows: int, metric: str, num_done: int = 0) -> Progress:
    """The callbacks that tell of a training on `num_rows` rows.

    Of replicas, which are shown together, each has fewer lines. The first `num_done` epochs were
    trained by an earlier run and are shown at once: they count for no rate.
    """
    if sys.stderr.isatty():
        return _move_bar(params, num_rows, metric, num_done)
    return _print_lines(params, num_rows, metric, num_done)


def follow_steps(
    params: TrainParams,
    num_rows: int,
    wait: Callable[[float], float],
    say: Callable[[int, str], None],
) -> Callable[[State], None]:
    """A function to call after every step, which says now and then how far its epoch is.

    Of a training so many seconds long, `wait` gives the seconds until the next look. The first
    look at an epoch begins its rate and says nothing: so an epoch that is over before the next one
    is not told of, and the steps of an earlier run count for no rate. All it takes of a step is a
    look at the clock; a device may be some steps behind.
    """
    started = time.monotonic()
    due, number, first, began = -math.inf, 0, 0, 0.0

    def after_step(state: State) -> None:
        nonlocal due, number, first, began
        now = time.monotonic()
        if now < due:
            return
        due = now + wait(now - started)
        done = min(state.totals.num_steps * params.batch_size, num_rows)
        epoch = len(state.result.history) + 1
        if epoch != number:
            number, first, began = epoch, done, now
        elif done > first and now > began:
            rate = (done - first) / (now - began)
            left = (num_rows - done) / rate
            shown = f"{rate:,.0f}" if rate >= 10 else f"{rate:.1f}"
            text = f"{done / num_rows:4.0%}  {shown} rows/s, {spell_seconds(left)} left"
            if number < params.epochs:
                # Without validations: an estimate, until whole epochs have been timed.
                rest = left + (params.epochs - number) * num_rows / rate
                text += f" of it, {spell_seconds(rest)} of all"
            say(number, text)

    return after_step


def spell_seconds(seconds: float) -> str:
    """Such as '45 s', '12 min' or '3 h 40 min'."""
    if seconds < MAX_SECONDS:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < MAX_MINUTES:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60} min"


def _move_bar(params: TrainParams, num_rows: int, metric: str, num_done: int) -> Progress:
    bar = tqdm(total=params.epochs, initial=num_done, unit="epoch", dynamic_ncols=True)
    figures = ""

    def say(number: int, text: str) -> None:
        # What a narrow terminal cuts off is the last epoch's.
        bar.set_postfix_str(f"epoch {number}: {text.strip()}" + (figures and f"; {figures}"))

    def after_epoch(epoch: Epoch) -> None:
        nonlocal figures
        figures = _figures(epoch, metric)
        bar.set_postfix_str(figures)
        if epoch.epoch > num_done:
            bar.update()

    after_step = follow_steps(params, num_rows, lambda _: SECONDS_ON_TERMINAL, say)
    return Progress(after_step, after_epoch, bar.close)


def _print_lines(params: TrainParams, num_rows: int, metric: str, num_done: int) -> Progress:
    num_epochs, num_trainings = params.epochs, params.replicas * (params.folds or 1)
    every = max(1, num_epochs // max(MIN_LINES, NUM_LINES // num_trainings))
    width = len(str(num_epochs))
    # The first epoch of a run also warms up, so the rate is that of the epochs after it.
    first = max(1, num_done)
    began = time.monotonic()

    def wait(seconds: float) -> float:
        return max(num_trainings * SECONDS_BETWEEN_LINES, SHARE_BETWEEN_LINES * seconds)

    def say(number: int, text: str) -> None:
        print(f"epoch {number:{width}}/{num_epochs}  {text}", flush=True)

    def after_epoch(epoch: Epoch) -> None:
        nonlocal began
        now = time.monotonic()
        if epoch.epoch <= first:
            began = now
        if epoch.epoch % every == 0 or epoch.epoch in (1, num_epochs):
            pace = _pace(epoch.epoch - first, num_epochs - epoch.epoch, now - began)
            say(epoch.epoch, _figures(epoch, metric) + pace)

    after_step = follow_steps(params, num_rows, wait, say)
    return Progress(after_step, after_epoch, lambda: None)


def _pace(num_timed: int, num_left: int, seconds: float) -> str:
    """The rate of `num_timed` epochs in `seconds`, and how long those that are left take by it.

    Nothing when there is no time to tell it from. Early stopping may end a training before.
    """
    if num_timed < 1 or seconds <= 0:
        return ""
    rate = num_timed / seconds
    shown = f"{rate:.1f} epochs/s" if rate >= 1 else f"{1 / rate:.1f} s/epoch"
    return f"  {shown}, {spell_seconds(num_left / rate)} left"


def _figures(epoch: Epoch, metric: str) -> str:
    return (
        f"train loss {epoch.train_loss:.4f}  validation loss {epoch.validation_loss:.4f}  "
        f"{metric} {epoch.metric:.4f}"
    )
