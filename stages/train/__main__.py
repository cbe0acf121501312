"""From first weights to trained ones: `python -m stages.train`.

Reads the arrays of `data/prepare`, the model of `data/build` and the winner of `data/tune`;
writes `data/train/model.safetensors`, `model.json`, `calibration.json` (what makes of scores
probabilities, and of those a class), `recipe.json` (how it was trained), `history.csv`,
`metrics.json` and plots.
The loop stands in `loop.py`; `fit.py` is what goes in and comes out of it.
"""

import sys
from pathlib import Path

from stages.common.errors import UserError
from stages.common.params import Params
from stages.common.stage import run_stage
from stages.train.checkpoint import (
    PREEMPTED,
    hold_checkpoints,
    key_of,
    list_checkpoints,
)
from stages.train.fit import fit, read_recipe
from stages.train.launch import launch
from stages.train.machine import World, num_processes
from stages.train.optimizers import check_names
from stages.train.params import check_calibration


def train(params: Params, out: Path) -> None:
    """Train in this process, or in several when there are several GPUs or PET_* asks for them."""
    section, _, schema, _ = read_recipe(params)
    target = schema.target
    check_names(section, target.task)
    if problems := check_calibration(section.calibration, target.task, len(target.classes or ())):
        raise UserError(*problems)
    processes = num_processes()
    with hold_checkpoints(key_of(processes)) as checkpoints:
        try:
            if processes == 1:
                fit(params, out, World(), checkpoints)
            else:
                launch(processes, out, checkpoints)
        except SystemExit:
            # Told to stop (SIGTERM): whoever did may run us again.
            if not list_checkpoints(checkpoints):
                raise
            print("preempted: the next run goes on from the last checkpoint", file=sys.stderr)
            sys.exit(PREEMPTED)


if __name__ == "__main__":
    run_stage("train", train)
