"""Several trainings: replicas differ in the seed, members in the recipe, folds in the rows.

How far replicas lie apart is the luck of training. Replica 0 has the seed of `params.yaml` and the
weights of build, and is the one that is served: never the luckiest. With folds, and of an ensemble,
a replica is the mean of several trainings. Each trains in a process of its own, as many at once as
the cores allow, or one after the other in the stage's own: neither that nor the number of replicas
changes a bit of any. Or they take their steps together (`members/fit_packed.py`), which moves the
last digits.
"""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from queue import SimpleQueue
from tempfile import TemporaryDirectory
from threading import Thread

from stages.common.errors import UserError
from stages.common.files import read_json, write_csv
from stages.model.model import ModelSpec, make_model
from stages.runtime.outputs import flush
from stages.train.checkpoints.checkpoint import list_checkpoints
from stages.train.checkpoints.checkpointer import PREEMPTED
from stages.train.checkpoints.sharded_checkpoint import has_whole
from stages.train.launch import raise_problems, start, stop
from stages.train.recipe import Trainings
from stages.training.device.device import device_kind
from stages.training.device.distributed import World
from stages.training.device.environment import num_threads, read_at_once
from stages.training.recipe import seed_of

# A training that has ended, and its exit code.
Ended = tuple[int, int]
# Called with the numbers of the trainings that are left, the folders of all, and that of the
# checkpoints, if any are kept; each that it trains leaves its result by `set_aside`.
Here = Callable[[Sequence[int], Sequence[Path], Path | None], None]


def num_at_once(spec: ModelSpec, batch_size: int, num_processes: int) -> int:
    """The number of trainings side by side: by the cores, and one except on a CPU."""
    if num_processes > 1 or device_kind() != "cpu":
        return 1
    num_weights = sum(weight.numel() for weight in make_model(spec, seed=0).parameters())
    threads, _ = num_threads(num_weights, batch_size, World())
    return max(1, (os.cpu_count() or 1) // threads)


def num_sharing(spec: ModelSpec, num_trainings: int, batch_size: int, world: World) -> int:
    """The number of a stage's processes that hold its data in the memory of this machine's CPU.

    Devices of another kind have memories of their own.
    """
    if device_kind() != "cpu":
        return 1
    at_once = read_at_once() or num_at_once(spec, batch_size, world.size)
    return world.local_size * min(num_trainings, at_once)


def train_all(
    trainings: Trainings,
    at_once: int,
    num_processes: int,
    out: Path,
    checkpoints: Path | None,
    join: Callable[[Sequence[Path], Path], None],
    here: Here | None = None,
) -> None:
    """Train them all, and write into `out` what one training writes.

    `join` makes of the folders of a replica's trainings the one that it is given last. `here`
    trains in this process; those that it leaves train in processes of their own.

    Of several replicas each has the same in `out/replicas/<k>`, and `out` that of replica 0. A
    stage that was killed resumes: those that had ended are not trained again, the others resume
    from their checkpoints, which lie in `checkpoints/<number>` as long as the stage has not ended.
    Whatever ends this process ends them. Raises UserError, naming the training, when one fails.
    """
    with TemporaryDirectory(dir=out, prefix=".trainings-") as temporary:
        homes = [Path(checkpoints or temporary) / str(n) for n in range(trainings.count)]
        left = [n for n in range(trainings.count) if not result_of(homes[n]).exists()]
        if len(left) < trainings.count:
            done = trainings.count - len(left)
            print(f"{done} of {trainings.count} trainings have ended before")
        if here is not None:
            here(left, homes, checkpoints)
            left = [n for n in left if not result_of(homes[n]).exists()]
        if left:
            whole = here is None
            said = trainings.describe() if whole else f"the {len(left)} others"
            print(f"{said}, {min(at_once, trainings.count if whole else len(left))} at once")
            _train(trainings, left, homes, at_once, num_processes, keeps=checkpoints is not None)
        per_replica = trainings.per_replica
        for replica in range(trainings.replicas):
            own = homes[replica * per_replica : (replica + 1) * per_replica]
            results = [result_of(home) for home in own]
            to = out if trainings.replicas == 1 else out / "replicas" / str(replica)
            if per_replica > 1:
                to.mkdir(parents=True, exist_ok=True)
                join(results, to)
            else:
                shutil.copytree(results[0], to)
        if per_replica > 1:
            _write_trainings(out, trainings, homes)
    if trainings.replicas > 1:
        shutil.copytree(out / "replicas" / "0", out, dirs_exist_ok=True)


def _write_trainings(out: Path, trainings: Trainings, homes: Sequence[Path]) -> None:
    """Write `replicas/folds.csv`, or of an ensemble `members.csv`: each training's metrics."""
    metrics = [read_json(result_of(home) / "metrics.json") for home in homes]
    (out / "replicas").mkdir(exist_ok=True)
    there = (True, trainings.members > 1, trainings.folds > 0)
    heads = [name for name, has in zip(("replica", "member", "fold"), there, strict=True) if has]
    rows = []
    for number, found in enumerate(metrics):
        place = [n for n, has in zip(trainings.place(number), there, strict=True) if has]
        rows.append((*place, *(found.get(name, "") for name in metrics[0])))
    file = "members.csv" if trainings.members > 1 else "folds.csv"
    write_csv(out / "replicas" / file, (*heads, *metrics[0]), rows)


def result_of(home: Path) -> Path:
    """The folder of all that a training has written, once it has ended."""
    return home / "result"


def can_go_on(checkpoints: Path | None) -> bool:
    """Check whether a stage that was told to stop has left anything to resume from."""
    if checkpoints is None:
        return False
    homes = [home for home in checkpoints.iterdir() if home.is_dir()]
    found = any(_has_any(home) or result_of(home).exists() for home in homes)
    return found or _has_any(checkpoints)


def _has_any(checkpoints: Path | None) -> bool:
    return bool(list_checkpoints(checkpoints) or has_whole(checkpoints))


def write_seeds(out: Path, seed: int, num_replicas: int) -> None:
    """Write `replicas/seeds.csv`: the seed of each replica and the metrics of its training."""
    folders = (
        [out / "replicas" / str(k) for k in range(num_replicas)] if num_replicas > 1 else [out]
    )
    metrics = [read_json(folder / "metrics.json") for folder in folders]
    names = list(dict.fromkeys(name for found in metrics for name in found))
    (out / "replicas").mkdir(exist_ok=True)
    write_csv(
        out / "replicas" / "seeds.csv",
        ("replica", "seed", *names),
        [(k, seed_of(seed, k), *(m.get(n, "") for n in names)) for k, m in enumerate(metrics)],
    )


def _train(
    trainings: Trainings,
    left: Sequence[int],
    homes: Sequence[Path],
    at_once: int,
    num_processes: int,
    *,
    keeps: bool,
) -> None:
    running: dict[int, subprocess.Popen[bytes]] = {}
    ended: SimpleQueue[Ended] = SimpleQueue()
    waiting = list(left)
    try:
        while waiting or running:
            while waiting and len(running) < at_once:
                number = waiting.pop(0)
                home, writing = homes[number], begin_writing(homes[number])
                process = start(
                    num_processes, number, writing, home if keeps else None, subprocess.PIPE
                )
                running[number] = process
                following = (trainings.name(number), number, process, ended)
                Thread(target=_follow, args=following, daemon=True).start()
            number, code = ended.get()
            del running[number]
            _keep(trainings.name(number), homes[number], code)
    except BaseException:
        stop(list(running.values()))
        raise


def _writing(home: Path) -> Path:
    return home / "writing"


def begin_writing(home: Path) -> Path:
    """An empty folder for what a training writes, without what a killed one had begun."""
    shutil.rmtree(_writing(home), ignore_errors=True)
    _writing(home).mkdir(parents=True)
    return _writing(home)


def set_aside(home: Path) -> None:
    """Keep what a training has written, which has ended."""
    for file in _writing(home).rglob("*"):
        flush(file)
    _writing(home).rename(result_of(home))


def named(name: str, error: UserError) -> UserError:
    """The mistake that a training has met, with the training's name."""
    first, *others = error.problems
    return UserError(replace(first, message=f"{name}: {first.message}"), *others)


def _follow(
    name: str, number: int, process: "subprocess.Popen[bytes]", ended: "SimpleQueue[Ended]"
) -> None:
    """Pass on what a training says, line by line under its name, then how it has ended."""
    assert process.stdout is not None
    with process:
        for line in process.stdout:
            text = line.decode(errors="replace").rstrip()
            print(f"{name} │ {text}\n", end="", flush=True)
    ended.put((number, process.returncode))


def _keep(name: str, home: Path, code: int) -> None:
    """Set aside what a training has written. Raises UserError when it failed."""
    if code in (-signal.SIGTERM, PREEMPTED):
        # Whoever told it to stop means the stage and all trainings.
        sys.exit(128 + signal.SIGTERM)
    try:
        raise_problems(_writing(home))
    except UserError as error:
        raise named(name, error) from None
    if code != 0:
        raise UserError(f"{name} failed (exit code {code}); see above")
    set_aside(home)
