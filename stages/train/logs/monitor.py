"""The monitor of a training: the progress, TensorBoard, other loggers."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from stages.features.schema import Target
from stages.model.model import ModelSpec
from stages.train.logs.logger import Log, open_loggers
from stages.train.logs.progress import Progress, show_progress
from stages.train.logs.tensorboard import (
    TensorBoard,
    chosen_values,
    kept_scalars,
    open_tensorboard,
    run_folder,
    scalars_of,
)
from stages.training.device.distributed import World
from stages.training.params import TrainParams
from stages.training.state import Data, Epoch, Result


@dataclass(frozen=True)
class Monitor:
    """Called after every epoch; `progress` also tells of steps, and wants to be closed."""

    tensorboard: TensorBoard
    log: Log | None
    metric: str
    progress: Progress

    def __call__(self, epoch: Epoch, model: nn.Module | None) -> None:
        """Tell of an epoch; `model` None: one of an earlier run."""
        self.progress.after_epoch(epoch)
        self.tensorboard.write_epoch(epoch, model)
        if self.log is not None:
            self.log(epoch.epoch, scalars_of(epoch, self.metric))

    def write_end(self, result: Result, model: nn.Module, data: Data, target: Target) -> None:
        """Tell how the `model` that is kept does on validation."""
        self.tensorboard.write_end(result, model, data, target)
        assert result.best_epoch is not None
        if self.log is not None:
            self.log(len(result.history), kept_scalars(result.best_epoch, self.metric))


@contextmanager
def open_monitor(
    spec: ModelSpec,
    section: TrainParams,
    seed: int,
    data: Data,
    done: Sequence[Epoch],
    checkpoints: Path | None,
    world: World,
) -> Iterator[Monitor]:
    """The monitor of a training that has the epochs `done` behind it."""
    metric = data.metric
    progress = show_progress(section, len(data.train), metric, len(done))
    name, values = run_folder(spec, section, seed).name, chosen_values(spec, section, seed)
    # Of several machines the first tells the loggers; each has events of its own.
    told_by = open_loggers(name, values, checkpoints) if world.rank == 0 else nullcontext()
    with open_tensorboard(spec, section, seed, metric) as tensorboard, told_by as log:
        yield Monitor(tensorboard, log, metric, progress)
