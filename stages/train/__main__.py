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
from dataclasses import replace
from functools import partial
from pathlib import Path

from stages.common.errors import Problem, UserError
from stages.common.params import Params
from stages.model.model import make_model
from stages.runtime.stage import run_stage
from stages.train.checkpoints.checkpoint import checkpoint_key, lock_checkpoints
from stages.train.checkpoints.checkpointer import PREEMPTED
from stages.train.fit import fit
from stages.train.join_trainings import join_trainings
from stages.train.launch import launch
from stages.train.logs.logger import asked_loggers
from stages.train.members.here import choose_here
from stages.train.recipe import KEY, Recipe, describe_members, read_recipe
from stages.train.replicas import can_go_on, num_at_once, train_all, write_seeds
from stages.training.compatibility import check_calibration, check_folds
from stages.training.device.distributed import World
from stages.training.device.environment import num_nodes, num_processes, read_at_once
from stages.training.optim.preflight import check_names


def train(params: Params, out: Path) -> None:
    """Train in this process, or in several when there are several GPUs or PET_* asks for them.

    Replicas and folds train in this one too, or each in processes of its own.
    """
    asked_loggers()
    recipe = read_recipe(params)
    section, trainings = recipe.train, recipe.trainings
    check(recipe)
    processes, nodes = num_processes(), num_nodes()
    if nodes > 1 and trainings.count > 1:
        message = f"{trainings.describe()} train on one machine each; PET_NNODES asks for {nodes}"
        raise UserError(Problem(message, find_key(recipe)))
    with lock_checkpoints(checkpoint_key(processes, nodes)) as checkpoints:
        try:
            if trainings.count > 1:
                for line in describe_members(recipe):
                    print(line)
                join = partial(join_trainings, recipe=recipe)
                at_once = min(
                    num_at_once(each.model, each.train.batch_size, processes)
                    for each in recipe.members or (recipe,)
                )
                here = choose_here(recipe, at_once, processes)
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


def check(recipe: Recipe) -> None:
    """Stop at names and values that fit neither each other nor the target. Raises UserError."""
    section, target = recipe.train, recipe.schema.target
    by_row = recipe.schema.weight is not None
    for number, each in enumerate(recipe.members or (recipe,)):
        make = partial(make_model, each.model, 0)
        try:
            check_names(each.train, target.task, target.classes, make, by_row=by_row)
        except UserError as error:
            if not recipe.members:
                raise
            what = f"member {number} of the ensemble"
            problems = [replace(p, message=f"{what}: {p.message}", key=KEY) for p in error.problems]
            raise UserError(*problems) from None
    problems = check_calibration(section.calibration, target.task, len(target.classes or ()))
    if problems := problems + check_folds(section, ordered=recipe.schema.ordered):
        raise UserError(*problems)


def find_key(recipe: Recipe) -> str:
    """The key that asks for several trainings."""
    if recipe.members:
        return KEY
    return "train.folds" if recipe.train.folds else "train.replicas"


if __name__ == "__main__":
    run_stage("train", train)
