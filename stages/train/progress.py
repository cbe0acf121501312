"""How a person sees a training: a bar on a terminal, about twenty plain lines elsewhere."""

import sys
import time
from collections.abc import Callable

from tqdm import tqdm

from stages.train.state import Epoch

NUM_LINES = 20
MIN_LINES = 5


def show_progress(
    num_epochs: int, metric: str, num_trainings: int = 1, num_done: int = 0
) -> tuple[Callable[[Epoch], None], Callable[[], None]]:
    """A function to call after every epoch, and one to call at the end.

    Of several trainings that are shown together each has fewer lines. The first `num_done` epochs
    were trained by an earlier run and are shown at once: they count for no rate.
    """
    if sys.stderr.isatty():
        bar = tqdm(total=num_epochs, initial=num_done, unit="epoch", dynamic_ncols=True)

        def advance(epoch: Epoch) -> None:
            bar.set_postfix_str(_figures(epoch, metric))
            if epoch.epoch > num_done:
                bar.update()

        return advance, bar.close

    every = max(1, num_epochs // max(MIN_LINES, NUM_LINES // num_trainings))
    # The first epoch of a run also warms up, so the rate is that of the epochs after it.
    first = max(1, num_done)
    began = time.monotonic()

    def print_line(epoch: Epoch) -> None:
        nonlocal began
        now = time.monotonic()
        if epoch.epoch <= first:
            began = now
        if epoch.epoch % every == 0 or epoch.epoch in (1, num_epochs):
            width = len(str(num_epochs))
            pace = _pace(epoch.epoch - first, num_epochs - epoch.epoch, now - began)
            figures = _figures(epoch, metric)
            print(f"epoch {epoch.epoch:{width}}/{num_epochs}  {figures}{pace}", flush=True)

    return print_line, lambda: None


def _pace(num_timed: int, num_left: int, seconds: float) -> str:
    """The rate of `num_timed` epochs in `seconds`, and how long those that are left take by it.

    Nothing when there is no time to tell it from. Early stopping may end a training before.
    """
    if num_timed < 1 or seconds <= 0:
        return ""
    rate = num_timed / seconds
    shown = f"{rate:.1f} epochs/s" if rate >= 1 else f"{1 / rate:.1f} s/epoch"
    return f"  {shown}, {num_left / rate:.0f} s left"


def _figures(epoch: Epoch, metric: str) -> str:
    return (
        f"train loss {epoch.train_loss:.4f}  validation loss {epoch.validation_loss:.4f}  "
        f"{metric} {epoch.metric:.4f}"
    )
