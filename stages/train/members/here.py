"""The way in which the trainings of a recipe are trained, chosen and said in one line."""

import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch

from stages.common.errors import Problem, UserError
from stages.features.schema import load_arrays, read_statistics
from stages.model.model import make_model
from stages.tensors.batch import size_on_device
from stages.train.fit import Recipe
from stages.train.members.fit_in_turn import fit_in_turn
from stages.train.members.fit_packed import CannotPackError, fit_packed, load_packed
from stages.train.replicas import Here, Trainings, read_at_once, result_of
from stages.training.data.memmap import choose_place, open_split
from stages.training.device.device import device_kind
from stages.training.device.out_of_memory import is_out_of_memory
from stages.training.packed.packable import why_not_recipe
from stages.training.packed.rule import HOW, MAX_MEMBERS, Sizes, choose_way, count_products
from stages.training.recipe import PREPARED

KEY = "train.packed"


def choose_here(
    recipe: Recipe, trainings: Trainings, at_once: int, num_processes: int
) -> Here | None:
    """A function that trains all of them in this process; None: each has processes of its own.

    `at_once` processes are as many as the cores allow. Raises UserError where they have to be
    packed and can't be, and for a wrong `REPRISE_AT_ONCE`.
    """
    asked, told = recipe.train.packed, read_at_once()
    alone = device_kind() != "cpu" or num_processes > 1 or recipe.train.dataset is not None
    reason = why_not_recipe(recipe.train, device_kind(), num_processes)
    sizes = None if alone else find_sizes(recipe, trainings, at_once)
    if sizes is not None and reason is None:
        reason = _why_no_room(sizes)
    if asked is True and reason:
        raise _refuse(reason)
    if sizes is None:
        return None
    way = choose_way(sizes, may_pack=asked is not False and reason is None)
    if asked is True or way.name == "packed":
        said = way.said if way.name == "packed" else f"{HOW['packed']} ({KEY})"
        return partial(_train_packs, recipe, trainings, said)
    why = f"; no pack: {reason}" if reason and asked is not False else ""
    if way.name == "processes" if told is None else told > 1:
        if told is None:
            print(f"{trainings.describe()}: {way.said}{why}")
        return None
    said = way.said if told is None else HOW["in turn"]
    return partial(_train_in_turn, recipe, trainings, said + why)


def find_sizes(recipe: Recipe, trainings: Trainings, at_once: int) -> Sizes:
    """The sizes that the rule goes by."""
    section, statistics = recipe.train, read_statistics(PREPARED)
    train, validation = (
        open_split(load_arrays(PREPARED / name), statistics, torch.device("cpu"))
        for name in ("train", "validation")
    )
    num_rows = len(train)
    if section.folds is not None:
        num_rows = (len(train) + len(validation)) * (section.folds - 1) // section.folds
    batch, _ = train.take(slice(0, min(section.batch_size, num_rows)))
    products = count_products(make_model(recipe.model, seed=0), batch)
    num_steps = section.epochs * math.ceil(num_rows / section.batch_size)
    num_bytes = sum(size_on_device(split.features) for split in (train, validation))
    # Each fold has a copy of its rows; replicas share them.
    copies = min(trainings.count, MAX_MEMBERS) if section.folds is not None else 1
    return Sizes(trainings.count, products, num_steps, at_once, num_bytes * copies)


def _why_no_room(sizes: Sizes) -> str | None:
    place, said = choose_place(sizes.num_bytes, torch.device("cpu"))
    return None if place == "device" else f"the memory does not hold the rows ({said})"


def _train_in_turn(
    recipe: Recipe,
    trainings: Trainings,
    said: str,
    left: Sequence[int],
    homes: Sequence[Path],
    checkpoints: Path | None,
) -> None:
    print(f"{trainings.describe()}: {said}")
    fit_in_turn(recipe, trainings, left, homes, keeps=checkpoints is not None)


def _train_packs(
    recipe: Recipe,
    trainings: Trainings,
    said: str,
    left: Sequence[int],
    homes: Sequence[Path],
    checkpoints: Path | None,
) -> None:
    """Train pack by pack, or one after the other where the model can't be packed."""
    print(f"{trainings.describe()}: {said}")
    try:
        _train_each_pack(recipe, trainings, homes, checkpoints)
        return
    except CannotPackError as error:
        reason = str(error)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        reason = "the memory is full"
    if recipe.train.packed is True:
        raise _refuse(reason)
    # Outside of the except block, whose traceback would keep the pack in memory.
    print(f"not packed, but one after the other: {reason}", flush=True)
    left = [number for number in left if not result_of(homes[number]).exists()]
    fit_in_turn(recipe, trainings, left, homes, keeps=checkpoints is not None)


def _train_each_pack(
    recipe: Recipe, trainings: Trainings, homes: Sequence[Path], checkpoints: Path | None
) -> None:
    """Train pack by pack.

    Which trainings are in which follows from their number alone, so that a stage that was killed
    comes to the same packs, and to the same bits.
    """
    count = math.ceil(trainings.count / MAX_MEMBERS)
    size = math.ceil(trainings.count / count)
    for number in range(count):
        members = range(number * size, min((number + 1) * size, trainings.count))
        own = [homes[member] for member in members]
        if all(result_of(home).exists() for home in own):
            continue
        packed = load_packed(recipe, trainings, members)
        folder = None if checkpoints is None else checkpoints / f"pack-{number}"
        fit_packed(recipe, packed, own, folder)


def _refuse(reason: str) -> UserError:
    message = f"the trainings can't be packed: {reason}"
    return UserError(Problem(message, KEY, "true", ("auto", "false")))
