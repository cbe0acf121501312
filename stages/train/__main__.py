"""Training, from first weights to trained ones: `python -m stages.train`.

Reads the arrays of `data/prepare`, the model of `data/build` and the best trial of `data/tune`;
writes `data/train/model.safetensors`, `model.json`, `calibration.json` (what makes of scores
probabilities, and of those a class), `recipe.json` (how it was trained), `machine.json` (on what
kind of machine), `history.csv`, `metrics.json`, plots, `validation` (of each row that was validated
on its key, target and scores) and `replicas`: the seeds, and of two or more replicas a folder each
with all of these.
The loop stands in `stages/training/loop.py`; `fit.py` is what goes in and comes out of it.
"""

import signal
import sys
from functools import partial
from pathlib import Path

from stages.common.errors import Problem, UserError
from stages.common.params import Params
from stages.model.model import make_model
from stages.runtime.stage import run_stage
from stages.train.checkpoints.checkpoint import checkpoint_key, lock_checkpoints
from stages.train.checkpoints.checkpointer import PREEMPTED
from stages.train.fit import fit, read_recipe
from stages.train.join_folds import join_folds
from stages.train.launch import launch
from stages.train.logs.logger import asked_loggers
from stages.train.members.here import choose_here
from stages.train.replicas import (
    can_go_on,
    num_at_once,
    read_at_once,
    train_all,
    trainings_of,
    write_seeds,
)
from stages.training.compatibility import check_calibration, check_folds
from stages.training.device.distributed import World
from stages.training.device.environment import num_nodes, num_processes
from stages.training.optim.monitored_metric import metric_of
from stages.training.optim.preflight import check_names


def train(params: Params, out: Path) -> None:
    """Train in this process, or in several when there are several GPUs or PET_* asks for them.

    Replicas and folds train in this one too, or each in processes of its own.
    """
    asked_loggers()
    recipe = read_recipe(params)
    section, spec, target = recipe.train, recipe.model, recipe.schema.target
    by_row = recipe.schema.weight is not None
    check_names(section, target.task, target.classes, lambda: make_model(spec, 0), by_row=by_row)
    problems = check_calibration(section.calibration, target.task, len(target.classes or ()))
    if problems := problems + check_folds(section, ordered=recipe.schema.ordered):
        raise UserError(*problems)
    processes, nodes = num_processes(), num_nodes()
    trainings = trainings_of(section)
    if nodes > 1 and trainings.count > 1:
        message = f"replicas and folds train on one machine each; PET_NNODES asks for {nodes}"
        key, value = ("folds", section.folds) if section.folds else ("replicas", section.replicas)
        raise UserError(Problem(message, f"train.{key}", str(value)))
    with lock_checkpoints(checkpoint_key(processes, nodes)) as checkpoints:
        try:
            if trainings.count > 1:
                at_once = num_at_once(spec, section.batch_size, processes)
                metric = metric_of(target.task)
                join = partial(join_folds, params=section.calibration, metric=metric)
                here = choose_here(recipe, trainings, at_once, processes)
                at_once = read_at_once() or at_once
                train_all(trainings, at_once, processes, out, checkpoints, join, here)
            elif processes * nodes == 1:
                fit(recipe, out, World(), checkpoints)
            else:
                launch(processes, out, checkpoints)
        except SystemExit:
            # Told to stop (SIGTERM): whoever did may run the stage again.
            if not can_go_on(checkpoints):
                sys.exit(128 + signal.SIGTERM)
            print("preempted: the next run resumes from the last checkpoint", file=sys.stderr)
            sys.exit(PREEMPTED)
        except KeyboardInterrupt:
            if can_go_on(checkpoints):
                print("the next run resumes from the last checkpoint", file=sys.stderr)
            raise
    write_seeds(out, params.seed, section.replicas)


if __name__ == "__main__":
    run_stage("train", train)
