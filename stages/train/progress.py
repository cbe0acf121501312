"""How a person sees a training: a bar on a terminal, about twenty plain lines elsewhere."""

import sys
from collections.abc import Callable

from tqdm import tqdm

from stages.train.loop import Epoch

NUM_LINES = 20


def show_progress(
    num_epochs: int, metric: str
) -> tuple[Callable[[Epoch], None], Callable[[], None]]:
    """A function to call after every epoch, and one to call at the end."""
    if sys.stderr.isatty():
        bar = tqdm(total=num_epochs, unit="epoch", dynamic_ncols=True)

        def advance(epoch: Epoch) -> None:
            bar.set_postfix_str(_figures(epoch, metric))
            bar.update()

        return advance, bar.close

    every = max(1, num_epochs // NUM_LINES)

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
