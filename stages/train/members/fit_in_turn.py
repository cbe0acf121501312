"""Trainings one after the other in the stage's own process, which has loaded the libraries."""

from collections.abc import Sequence
from pathlib import Path

from stages.common.errors import UserError
from stages.train.fit import fit
from stages.train.members.said_by import said_by
from stages.train.recipe import Recipe
from stages.train.replicas import begin_writing, named, set_aside
from stages.training.device.distributed import World


def fit_in_turn(
    recipe: Recipe, numbers: Sequence[int], homes: Sequence[Path], *, keeps: bool
) -> None:
    """Train `numbers`, each to the bits that it has in a process of its own.

    Each writes into its folder of `homes`, and has its checkpoints there if it `keeps` some. Raises
    UserError, naming the training, when one fails.
    """
    for number in numbers:
        name, home = recipe.trainings.name(number), homes[number]
        writing = begin_writing(home)
        try:
            with said_by(name):
                fit(recipe, writing, World(), home if keeps else None, number, in_stage=True)
        except UserError as error:
            raise named(name, error) from None
        set_aside(home)
