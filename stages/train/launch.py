"""torchrun for several processes on this machine; its children run `stages.train.worker`."""

import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

from stages.common.errors import Problem, UserError
from stages.common.files import read_json, write_json

STOP_SECONDS = 30
# What the processes tell of a user's mistake, in the folder that a failure throws away.
PROBLEMS = "problems.json"


def launch(num_processes: int, out: Path, checkpoints: Path | None) -> None:
    """Train in `num_processes` processes that write into `out`; whatever ends us ends them.

    They go on from the checkpoints in that folder, and keep theirs there.

    Raises the UserError that the processes met, and one of its own when one of them failed; what
    it said then stands above.
    """
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += [f"--nproc-per-node={num_processes}", "-m", "stages.train.worker", str(out)]
    command += [] if checkpoints is None else [str(checkpoints)]
    # Without it a restarted group often waits for a store that has gone.
    environment = {**os.environ, "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
    environment.setdefault("OMP_NUM_THREADS", "1")
    process = subprocess.Popen(command, env=environment)
    try:
        code = process.wait()
    except BaseException:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
        raise
    if (out / PROBLEMS).exists():
        problems = read_json(out / PROBLEMS)
        raise UserError(*(Problem(**{**p, "allowed": tuple(p["allowed"])}) for p in problems))
    if code != 0:
        raise UserError(
            f"training in {num_processes} processes failed (torchrun: {code}); see above"
        )


def hand_over(error: UserError, out: Path) -> None:
    """Leave a user's mistake for `launch` to raise: torchrun would bury it under tracebacks."""
    write_json(out / PROBLEMS, [asdict(problem) for problem in error.problems])
