"""Replicas: trainings of one recipe that differ in the seed alone.

How far they lie apart is the luck of training. Replica 0 has the seed of `params.yaml` and the
weights of build, and is the one that is served: never the luckiest. Each trains in a process of
its own, as many at once as the cores allow; neither that nor their number changes a bit of any.
"""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
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
from stages.training.device.device import device_kind
from stages.training.device.distributed import World
from stages.training.device.environment import num_threads
from stages.training.recipe import seed_of

# A replica that has ended, and its exit code.
Ended = tuple[int, int]


def num_at_once(spec: ModelSpec, batch_size: int, num_processes: int) -> int:
    """The number of replicas that train side by side: by the cores, and one except on a CPU."""
    if num_processes > 1 or device_kind() != "cpu":
        return 1
    num_weights = sum(weight.numel() for weight in make_model(spec, seed=0).parameters())
    threads, _ = num_threads(num_weights, batch_size, World())
    return max(1, (os.cpu_count() or 1) // threads)


def num_sharing(spec: ModelSpec, num_replicas: int, batch_size: int, world: World) -> int:
    """The number of a stage's processes that hold its data in the memory of this machine's CPU.

    Devices of another kind have memories of their own.
    """
    if device_kind() != "cpu":
        return 1
    return world.local_size * min(num_replicas, num_at_once(spec, batch_size, world.size))


def train_replicas(
    num_replicas: int, at_once: int, num_processes: int, out: Path, checkpoints: Path | None
) -> None:
    """Train them all; what each has written becomes `out/replicas/<k>`, replica 0's `out` too.

    A stage that was killed resumes: those that had ended are not trained again, the others resume
    from their checkpoints, which lie in `checkpoints/<k>` as long as the stage has not ended.
    Whatever ends this process ends them. Raises UserError, naming the replica, when one fails.
    """
    with TemporaryDirectory(dir=out, prefix=".replicas-") as temporary:
        homes = [Path(checkpoints or temporary) / str(k) for k in range(num_replicas)]
        left = [k for k in range(num_replicas) if not result_of(homes[k]).exists()]
        if len(left) < num_replicas:
            print(f"{num_replicas - len(left)} of {num_replicas} replicas have been trained")
        print(f"{num_replicas} replicas, {min(at_once, num_replicas)} at once")
        _train(left, homes, at_once, num_processes, keeps=checkpoints is not None)
        for replica, home in enumerate(homes):
            shutil.copytree(result_of(home), out / "replicas" / str(replica))
    shutil.copytree(out / "replicas" / "0", out, dirs_exist_ok=True)


def result_of(home: Path) -> Path:
    """The folder of all that a replica has written, once it has ended."""
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
    left: Sequence[int], homes: Sequence[Path], at_once: int, num_processes: int, *, keeps: bool
) -> None:
    running: dict[int, subprocess.Popen[bytes]] = {}
    ended: SimpleQueue[Ended] = SimpleQueue()
    waiting = list(left)
    try:
        while waiting or running:
            while waiting and len(running) < at_once:
                replica = waiting.pop(0)
                home, writing = homes[replica], _writing(homes[replica])
                # What a killed one had begun to write.
                shutil.rmtree(writing, ignore_errors=True)
                writing.mkdir(parents=True)
                process = start(
                    num_processes, replica, writing, home if keeps else None, subprocess.PIPE
                )
                running[replica] = process
                Thread(target=_follow, args=(replica, process, ended), daemon=True).start()
            replica, code = ended.get()
            del running[replica]
            _keep(replica, homes[replica], code)
    except BaseException:
        stop(list(running.values()))
        raise


def _writing(home: Path) -> Path:
    return home / "writing"


def _follow(replica: int, process: "subprocess.Popen[bytes]", ended: "SimpleQueue[Ended]") -> None:
    """Pass on what a replica says, line by line under its number, then how it has ended."""
    assert process.stdout is not None
    with process:
        for line in process.stdout:
            text = line.decode(errors="replace").rstrip()
            print(f"replica {replica} │ {text}\n", end="", flush=True)
    ended.put((replica, process.returncode))


def _keep(replica: int, home: Path, code: int) -> None:
    """Set aside what a replica has written. Raises UserError when it failed."""
    if code in (-signal.SIGTERM, PREEMPTED):
        # Whoever told it to stop means the stage and all replicas.
        sys.exit(128 + signal.SIGTERM)
    try:
        raise_problems(_writing(home))
    except UserError as error:
        first, *others = error.problems
        named = replace(first, message=f"replica {replica}: {first.message}")
        raise UserError(named, *others) from None
    if code != 0:
        raise UserError(f"replica {replica} failed (exit code {code}); see above")
    for file in _writing(home).rglob("*"):
        flush(file)
    _writing(home).rename(result_of(home))
