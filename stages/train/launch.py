"""torchrun for several processes on this machine; its children run `stages.train.worker`."""

import os
import subprocess
import sys
from pathlib import Path

from stages.common.errors import UserError

STOP_SECONDS = 30


def launch(num_processes: int, out: Path) -> None:
    """Train in `num_processes` processes that write into `out`; whatever ends us ends them.

    Raises UserError when one of them failed; what it said stands above.
    """
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += [f"--nproc-per-node={num_processes}", "-m", "stages.train.worker", str(out)]
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
    if code != 0:
        raise UserError(
            f"training in {num_processes} processes failed (torchrun: {code}); see above"
        )
