"""A training as a run of Weights & Biases: offline, unless `WANDB_API_KEY` or `WANDB_MODE` is set.

An offline run lies in `.reprise/wandb` (or below `WANDB_DIR`); `wandb sync` uploads it.
`WANDB_PROJECT` names the project, else it is 'reprise'.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stages.train.logs.logger import BrokenOffError, Log, Run, Values

HOME = Path(".reprise")
PROJECT = "reprise"
START_SECONDS = 30.0


@contextmanager
def open_wandb(run: Run) -> Iterator[Log]:
    """Log to the run with the id `run.token`; a step that it has stays alone.

    A training that resumes online resumes its run there. Offline it can't be known what was
    uploaded: the whole history is written anew, in place of the files of the same run.

    Raises whatever wandb raises.
    """
    os.environ.setdefault("WANDB_SILENT", "true")
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    import wandb

    mode = os.environ.get("WANDB_MODE")
    mode = mode or ("online" if os.environ.get("WANDB_API_KEY") else "offline")
    home = Path(os.environ.get("WANDB_DIR") or HOME)
    home.mkdir(parents=True, exist_ok=True)
    if mode == "offline":
        for old in home.glob(f"wandb/offline-run-*-{run.token}"):
            shutil.rmtree(old, ignore_errors=True)
    # Of the terminal, the code and the git remote, whose address may hold a token, it gets nothing.
    settings = wandb.Settings(
        console="off", save_code=False, disable_git=True, init_timeout=START_SECONDS
    )
    opened = wandb.init(
        project=os.environ.get("WANDB_PROJECT") or PROJECT,
        id=run.token,
        name=run.name,
        config=dict(run.chosen),
        dir=str(home),
        mode=mode,
        resume="allow",
        settings=settings,
    )
    where = opened.url or f"'wandb sync {opened.settings.sync_dir}' uploads it"
    print(f"wandb: run {run.name} ({mode}): {where}", flush=True)

    def log(step: int, values: Values) -> None:
        if step >= opened.step:
            opened.log(dict(values), step=step, commit=True)
        else:
            # Steps only go up there: what was logged at this one before stays.
            opened.summary.update(dict(values))

    try:
        yield log
    except BrokenOffError:
        opened.finish(exit_code=1)
        raise
    opened.finish()
