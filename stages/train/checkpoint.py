"""Where a training is, on disk: one that was killed goes on from there, with the same bits.

A checkpoint is written after an epoch, into `.reprise/checkpoints/<key>`; the key is made of all
that the result depends on, so a changed parameter, input or file never meets an old one. The
folder outlives DVC's clean-up before a run; in a scheduled clone it is a link to one beside the
shared cache, so it outlives the clone as well. A training that has ended leaves none.
"""

import fcntl
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import astuple, dataclass, field
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from stages.common.fingerprint import fingerprint
from stages.train.loop import Epoch, Result
from stages.train.machine import device_kind

CHECKPOINTS = Path(".reprise/checkpoints")
# EX_TEMPFAIL: told to stop, and able to go on from a checkpoint.
PREEMPTED = 75
# Not more often than this, so that short epochs don't spend their time on the disk.
SECONDS_BETWEEN = 10.0
NUM_KEPT = 2


def key_of(num_processes: int) -> str:
    """The name of what a training's bits depend on: all that DVC looks at, and the machine's part.

    Of the machine: the kind of device, the processes, and what its threads are chosen from.
    """
    threads = os.environ.get("REPRISE_THREADS") or os.cpu_count()
    return f"{fingerprint('train')}-{device_kind()}-{num_processes}-{threads}"


@contextmanager
def hold_checkpoints(key: str) -> Iterator[Path | None]:
    """The folder for the checkpoints of `key`, held against other runs; None if one holds it."""
    folder = CHECKPOINTS / key
    CHECKPOINTS.mkdir(parents=True, exist_ok=True)
    with folder.with_suffix(".lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("another run trains the very same: it keeps checkpoints, this one keeps none")
            yield None
            return
        folder.mkdir(exist_ok=True)
        yield folder
        # The training has ended: one that is asked for again really trains.
        shutil.rmtree(folder, ignore_errors=True)


def list_checkpoints(folder: Path | None) -> list[Path]:
    """The checkpoints there are, the oldest first."""
    return sorted(folder.glob("*.pt")) if folder is not None else []


def load_checkpoint(folder: Path | None) -> dict[str, Any] | None:
    """The newest that can be read, as `pack` has put it together."""
    for path in reversed(list_checkpoints(folder)):
        try:
            saved: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        except (OSError, RuntimeError, EOFError, ValueError, UnpicklingError) as error:
            reason = str(error).split("\n")[0]
            print(f"{path} can't be read ({reason}); trying the one before it")
            continue
        print(f"goes on from {path}, after epoch {len(saved['history'])}")
        return saved
    return None


@dataclass
class Saver:
    """Writes a checkpoint after an epoch when the last one is some seconds old."""

    folder: Path
    seconds_between: float = field(
        default_factory=lambda: float(os.environ.get("REPRISE_CHECKPOINT_SECONDS", SECONDS_BETWEEN))
    )
    saved_at: float = field(default_factory=time.monotonic)

    def __call__(
        self, result: Result, model: nn.Module, optimizer: Optimizer, schedule: LRScheduler
    ) -> None:
        """Write one, if it is time; whole or not at all."""
        if time.monotonic() - self.saved_at < self.seconds_between:
            return
        path = self.folder / f"{len(result.history):08}.pt"
        temporary = path.with_suffix(".writing")
        with temporary.open("wb") as file:
            torch.save(pack(result, model, optimizer, schedule), file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        for old in list_checkpoints(self.folder)[:-NUM_KEPT]:
            old.unlink()
        self.saved_at = time.monotonic()


def pack(
    result: Result, model: nn.Module, optimizer: Optimizer, schedule: LRScheduler
) -> dict[str, Any]:
    """All that the next epoch depends on, as tensors and plain values."""
    assert result.kept is not None
    return {
        "history": [astuple(epoch) for epoch in result.history],
        "kept": result.kept.epoch,
        "kept_weights": result.weights,
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "schedule": schedule.state_dict(),
        "random": torch.get_rng_state(),
        "random_cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def history_of(saved: dict[str, Any] | None) -> list[Epoch]:
    """The epochs that a checkpoint has behind it."""
    return [] if saved is None else [Epoch(*row) for row in saved["history"]]


def unpack(
    saved: dict[str, Any], model: nn.Module, optimizer: Optimizer, schedule: LRScheduler
) -> Result:
    """Put everything back as it was when `saved` was packed; the result so far."""
    model.load_state_dict(saved["model"])
    optimizer.load_state_dict(saved["optimizer"])
    schedule.load_state_dict(saved["schedule"])
    torch.set_rng_state(saved["random"])
    if saved["random_cuda"]:
        torch.cuda.set_rng_state_all(saved["random_cuda"])
    history = history_of(saved)
    return Result(history, history[saved["kept"] - 1], saved["kept_weights"])
