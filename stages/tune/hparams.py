"""TensorBoard's HParams page of a search: a run for each trial, with its values and its curve.

Event files carry the time, so they are no output: they lie under `data/tensorboard`, which git and
DVC ignore. A search that DVC restored from its cache has none.
"""

import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from stages.common.config import Overrides
from stages.tune.trials import Search

RUNS = Path("data/tensorboard")
METRIC = "tune/value"


def write_hparams(name: str, search: Search, paths: Sequence[str], current: Overrides) -> None:
    """Write a folder of events by the name of the search, in place of an older one, with `paths`.

    The curve of a trial has the value of each of its epochs; its result is the best of them.
    """
    # Seconds to import: after the search.
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.summary.writer.record_writer import RecordWriter
    from torch.utils.tensorboard.summary import hparams, scalar

    folder = RUNS / f"tune-{name}"
    shutil.rmtree(folder, ignore_errors=True)
    now = time.time()
    best = min if search.sign == 1 else max
    for trial in search.trials:
        if not trial.values:
            continue
        chosen = _shown({**current, **trial.overrides}, paths) | {"origin": trial.origin}
        result = best(trial.values) if trial.value is None else trial.value
        summaries = [(summary, 0) for summary in hparams(chosen, {METRIC: result})]
        summaries += [
            (scalar(METRIC, value), epoch) for epoch, value in enumerate(trial.values, start=1)
        ]
        run = folder / f"{trial.number:04d}"
        run.mkdir(parents=True)
        with (run / f"events.out.tfevents.{now:.0f}.tune").open("wb") as file:
            # Written directly: SummaryWriter starts a thread for each run.
            writer = RecordWriter(file)
            for summary, step in summaries:
                event = Event(wall_time=now, step=step, summary=summary)
                writer.write(event.SerializeToString())
            writer.flush()


def _shown(tried: Mapping[str, Any], paths: Sequence[str]) -> dict[str, bool | int | float | str]:
    """The values of the keys that a trial has; what TensorBoard can't show becomes text."""
    return {
        path: tried[path] if isinstance(tried[path], bool | int | float | str) else str(tried[path])
        for path in paths
        if path in tried
    }
