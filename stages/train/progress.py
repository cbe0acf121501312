"""How a person sees a training: a bar on a terminal, about twenty plain lines elsewhere."""

import sys
from collections.abc import Callable

from tqdm import tqdm

from stages.train.state import Epoch

NUM_LINES = 20
MIN_LINES = 5


def show_progress(
    num_epochs: int, metric: str, num_trainings: int = 1
) -> tuple[Callable[[Epoch], None], Callable[[], None]]:
    """A function to call after every epoch, and one to call at the end.

    Of several trainings that are shown together each has fewer lines.
    """
    if sys.stderr.isatty():
        bar = tqdm(total=num_epochs, unit="epoch", dynamic_ncols=True)

        def advance(epoch: Epoch) -> None:
            bar.set_postfix_str(_figures(epoch, metric))
            bar.update()

        return advance, bar.close

    every = max(1, num_epochs // max(MIN_LINES, NUM_LINES // num_trainings))

    def print_line(epoch: Epoch) -> None:
        if epoch.epoch % every == 0 or epoch.epoch in (1, num_epochs):
            width = len(str(num_epochs))
            print(
                f"epoch {epoch.epoch:{width}}/{num_epochs}  {_figures(epoch, metric)}", flush=True
            )

    return print_line, lambda: None


def _figures(epoch: Epoch, metric: str) -> str:
    return (
        f"train loss {epoch.train_loss:.4f}  validation loss {epoch.validation_loss:.4f}  "
        f"{metric} {epoch.metric:.4f}"
    )
