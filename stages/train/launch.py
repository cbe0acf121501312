"""Processes that train: `stages.train.worker`, alone or several under torchrun."""

import os
import signal
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import IO

from stages.common.errors import Problem, UserError
from stages.common.files import read_json, write_json
from stages.training.device.environment import num_nodes

STOP_SECONDS = 30
# How often torchrun starts all processes again when one was lost; PET_MAX_RESTARTS is another.
MAX_RESTARTS = "3"
# What each process tells of a user's mistake, in the folder that a failure throws away.
PROBLEMS = "problems-*.json"
# What each process says that has lost the others, beside the checkpoints: torchrun tells only that
# one has failed.
LOST = "lost-*.txt"
# There from when the processes were told to stop to when torchrun has started them again.
STOPPED = ".stopped"


def launch(num_processes: int, out: Path, checkpoints: Path | None) -> None:
    """Train in `num_processes` processes that write into `out` and end with this one.

    They resume from the checkpoints in that folder, and keep theirs there.

    Raises the UserError that the processes met, and one of its own when one of them failed; what
    it said then stands above.
    """
    for path in checkpoints.glob(LOST) if checkpoints else ():
        path.unlink()
    process = start(num_processes, 0, out, checkpoints)
    try:
        code = process.wait()
    except BaseException:
        stop([process])
        raise
    raise_problems(out)
    if code == -signal.SIGTERM or (code != 0 and (out / STOPPED).exists()):
        # torchrun was told to, or another machine, which is not back in time to resume with.
        sys.exit(128 + signal.SIGTERM)
    if code < 0:
        # Nothing has been said of it above.
        message = f"torchrun was ended by {signal.Signals(-code).name}, by the system or by hand"
        raise UserError(
            f"{message}; the next run resumes from the last checkpoint, if there is one"
        )
    if code != 0:
        message = f"training in several processes failed (torchrun: {code}); see above"
        left = sorted(checkpoints.glob(LOST)) if checkpoints else []
        raise UserError("\n  ".join([message, *(p.read_text(encoding="utf-8") for p in left)]))


def start(
    num_processes: int,
    number: int,
    out: Path,
    checkpoints: Path | None,
    stdout: IO[bytes] | int | None = None,
) -> "subprocess.Popen[bytes]":
    """Start the training `number` of `fit`, which writes into `out`; `stdout` takes what it says.

    Its processes end when this one does, however it ends: the pipe that is their input closes then.
    """
    worker = ["-m", "stages.train.worker", str(number), str(out)]
    worker += [] if checkpoints is None else [str(checkpoints)]
    stderr = None if stdout is None else subprocess.STDOUT
    if num_processes * num_nodes() == 1:
        command = [sys.executable, *worker]
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=stdout, stderr=stderr)
    command = [sys.executable, "-m", "stages.train.torchrun", f"--nproc-per-node={num_processes}"]
    # Without it a restarted group often waits for a store that has gone.
    environment = {**os.environ, "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
    environment.setdefault("OMP_NUM_THREADS", "1")
    environment.setdefault("PET_MAX_RESTARTS", MAX_RESTARTS)
    if num_nodes() == 1:
        command.append("--standalone")
    else:
        # torchrun reads PET_* itself.
        if "PET_RDZV_ENDPOINT" in environment:
            environment.setdefault("PET_RDZV_BACKEND", "c10d")
        meeting = environment.get("PET_RDZV_ENDPOINT") or environment["PET_MASTER_ADDR"]
        print(f"waits for {num_nodes()} machines to meet at {meeting}", flush=True)
    command += worker
    # In a group of its own: Ctrl-C reaches the stage, which tells torchrun to end. Told twice,
    # torchrun would leave its processes before they have ended.
    return subprocess.Popen(
        command,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=stdout,
        stderr=stderr,
        process_group=0,
    )


def stop(processes: "list[subprocess.Popen[bytes]]") -> None:
    """Tell all of them to end, and wait until they have; after some seconds, kill them."""
    for process in processes:
        process.terminate()
    for process in processes:
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()


def hand_over(error: UserError, out: Path, rank: int) -> None:
    """Leave a user's mistake for `launch` to raise: torchrun would bury it under tracebacks."""
    problems = [asdict(problem) for problem in error.problems]
    write_json(out / PROBLEMS.replace("*", f"{rank:05}"), problems)


def note_loss(said: str, checkpoints: Path | None, rank: int) -> None:
    """Leave for `launch` to tell that a process has lost the others, and how."""
    if checkpoints is not None:
        (checkpoints / LOST.replace("*", f"{rank:05}")).write_text(said, encoding="utf-8")


def raise_problems(out: Path) -> None:
    """Raise the user's mistake that the processes have left in `out`, if they met one.

    Where several did, it is that of the first of them, however they ended.
    """
    if left := sorted(out.glob(PROBLEMS)):
        problems = read_json(left[0])
        raise UserError(*(Problem(**{**p, "allowed": tuple(p["allowed"])}) for p in problems))
