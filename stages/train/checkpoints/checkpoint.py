"""Checkpoints: a training that was killed resumes from one, with the same bits.

A checkpoint is written between two steps, into `.reprise/checkpoints/<key>`; `checkpointer.py` says
when. The key is made of all that the result depends on, so a changed parameter, input or file never
meets an old one. Its name ends in its checksum; the last two are kept, each with the weights of the
best epoch. Where the processes divide the weights each writes a part of it
(`sharded_checkpoint.py`). The folder outlives DVC's clean-up before a run; in a scheduled clone it
is a link to one beside the shared cache, so it outlives the clone as well. A training that has
ended leaves none.
"""

import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import astuple
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

from stages.locks import hold, lock_of
from stages.runtime.snapshot import fingerprint
from stages.training.device.device import device_kind
from stages.training.device.distributed import World
from stages.training.device.fsdp import local, put_weights
from stages.training.device.rng import put_generators, read_generators
from stages.training.state import Epoch, EpochTotals, State

CHECKPOINTS = Path(".reprise/checkpoints")
NUM_KEPT = 2
# What the name of a file ends in until all of it is there.
WRITING = ".writing"


def checkpoint_key(num_processes: int, num_nodes: int = 1) -> str:
    """The name of what a training's bits depend on: all that DVC looks at, and the machine's part.

    Of the machine: the kind of device, the processes, and what its threads are chosen from.
    """
    threads = os.environ.get("REPRISE_THREADS") or os.cpu_count()
    processes = f"{num_nodes}x{num_processes}" if num_nodes > 1 else num_processes
    return f"{fingerprint('train')}-{device_kind()}-{processes}-{threads}"


@contextmanager
def lock_checkpoints(key: str) -> Iterator[Path | None]:
    """The folder for the checkpoints of `key`, held against other runs; None if one holds it."""
    folder = CHECKPOINTS / key
    CHECKPOINTS.mkdir(parents=True, exist_ok=True)
    path = lock_of(folder)
    # `reprise gc` holds it while it looks whether it is held.
    lock = hold(path, wait_seconds=1.0)
    if lock is None:
        print("another run trains the very same: it keeps checkpoints, this one keeps none")
        yield None
        return
    with lock:
        folder.mkdir(exist_ok=True)
        yield folder
        # The training has ended: one that is asked for again really trains.
        shutil.rmtree(folder, ignore_errors=True)
        # Last, and still held: whoever has opened it meanwhile sees that it is gone.
        path.unlink(missing_ok=True)


def list_checkpoints(folder: Path | None) -> list[Path]:
    """The checkpoints there are, the oldest first."""
    return sorted(folder.glob("*.pt")) if folder is not None else []


def newest(folder: Path | None, world: World) -> int:
    """The process whose machine has the checkpoint that is furthest on; 0 where none has any."""
    own = list_checkpoints(folder) if world.is_local_main_process else []
    # Names begin with the epochs and steps, at a fixed width; the checksum is that of one file.
    found = world.gather(own[-1].name.rpartition("-")[0] if own else "")
    return found.index(max(found))


def load_checkpoint(folder: Path | None) -> dict[str, Any] | None:
    """The newest that is what was written, as `state_dict` has put it together."""
    for path in reversed(list_checkpoints(folder)):
        saved = read_checkpoint(path)
        if saved is not None:
            print(f"resumes from {path}, {reached(saved)}")
            return saved
    return None


def read_checkpoint(path: Path) -> dict[str, Any] | None:
    """The content of one file; None, said with the reason, where it is not what was written."""
    try:
        if _checksum(path) != path.stem.rpartition("-")[2]:
            raise ValueError("its checksum is another")
        saved: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, UnpicklingError) as error:
        reason = str(error).split("\n")[0]
        print(f"{path} can't be read ({reason}); trying the one before it")
        return None
    return saved


def reached(saved: dict[str, Any]) -> str:
    """The epochs and steps that the training had behind it, in words."""
    if "position" in saved:
        epochs, steps = saved["position"]
    else:
        epochs, steps = len(saved["history"]), round(saved["ranks"][0]["sums"]["num_steps"])
    within = f" and {steps} steps" if steps else ""
    return f"after epoch {epochs}{within}"


def write_checkpoint(folder: Path, position: tuple[int, int], content: dict[str, Any]) -> None:
    """Write a checkpoint under a name of epochs, steps and its own checksum; drop the oldest.

    Raises OSError.
    """
    # What a killed process has left half written; nobody else writes here.
    for left in folder.glob(f"[0-9]*{WRITING}"):
        left.unlink()
    write_file(folder, checkpoint_stem(position), ".pt", content)
    for old in list_checkpoints(folder)[:-NUM_KEPT]:
        old.unlink()


def checkpoint_stem(position: tuple[int, int]) -> str:
    """The beginning of a checkpoint's name, epochs and steps: it sorts as they do."""
    return f"{position[0]:08}-{position[1]:08}"


def write_file(folder: Path, stem: str, suffix: str, content: dict[str, Any]) -> None:
    """Write `content` whole or not at all, under a name that ends in its checksum.

    Raises OSError.
    """
    temporary = folder / f"{stem}{WRITING}"
    try:
        with temporary.open("wb") as file:
            torch.save(content, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(folder / f"{stem}-{_checksum(temporary)}{suffix}")
    finally:
        # Where the disk is full, what is half written must not fill it further.
        temporary.unlink(missing_ok=True)


def _checksum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def copied(value: Any) -> Any:
    """`value` with its tensors copied to the CPU, so that the next step can't change them."""
    if isinstance(value, torch.Tensor):
        return local(value).detach().to("cpu", copy=True)
    if isinstance(value, dict):
        return {key: copied(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(copied(item) for item in value)
    return value


def rank_state_dict(state: State) -> dict[str, Any]:
    """The state of this process alone: its sums of the epoch, and its random generators."""
    sums = {name: value for name, value in vars(state.totals).items() if name != "logged"}
    sums = {name: float(value) for name, value in sums.items()}
    logged = {name: float(value) for name, value in state.totals.logged.items()}
    return {"sums": sums, "logged": logged, "generators": read_generators(_device_of(state))}


def _device_of(state: State) -> torch.device:
    return next(state.model.parameters()).device


def state_dict(state: State, ranks: list[dict[str, Any]]) -> dict[str, Any]:
    """All that the next step depends on, as tensors and plain values.

    `ranks` has the `rank_state_dict` of each process.
    """
    kept = state.result.best_epoch
    return {
        "history": [astuple(epoch) for epoch in state.result.history],
        "kept": None if kept is None else kept.epoch,
        "kept_weights": state.result.weights,
        "micro_batch_size": state.result.micro_batch_size,
        "model": state.model.state_dict(),
        "average": None if state.average is None else state.average.state_dict(),
        "optimizer": state.optimizer.state_dict(),
        "schedule": state.schedule.state_dict(),
        "scaler": None if state.scaler is None else state.scaler.state_dict(),
        "ranks": ranks,
    }


def history_of(saved: dict[str, Any] | None) -> list[Epoch]:
    """The epochs that a checkpoint has behind it."""
    return [] if saved is None else [Epoch(*row) for row in saved["history"]]


def load_state_dict(saved: dict[str, Any] | None, world: World, state: State) -> None:
    """Put everything back as it was when `saved` was packed; nothing if it is None."""
    if saved is None:
        return
    put_weights(state.model, saved["model"])
    if state.average is not None:
        put_weights(state.average, saved["average"])
    state.optimizer.load_state_dict(saved["optimizer"])
    state.schedule.load_state_dict(saved["schedule"])
    if state.scaler is not None:
        state.scaler.load_state_dict(saved["scaler"])
    own = saved["ranks"][world.rank]
    put_generators(own["generators"], _device_of(state))
    whole = ("num_steps", "consecutive_skips", "steps_logged")
    sums = {n: int(v) if n in whole else v for n, v in own["sums"].items()}
    state.totals = EpochTotals(**sums, logged=own["logged"])
    result = state.result
    result.history += history_of(saved)
    result.best_epoch = None if saved["kept"] is None else result.history[saved["kept"] - 1]
    result.weights = saved["kept_weights"]
    result.micro_batch_size = saved["micro_batch_size"]
