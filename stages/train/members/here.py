"""The way in which the trainings of a recipe are trained, chosen and said in one line.

Those of one form are a group: replicas and folds are one, and so are members of an ensemble that
differ in numbers that change no shape. A group is a pack or two, or its trainings train one by one.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from stages.common.errors import Problem, UserError
from stages.features.schema import load_arrays, read_statistics
from stages.model.model import make_model
from stages.tensors.batch import size_on_device
from stages.train.members.fit_in_turn import fit_in_turn
from stages.train.members.fit_packed import CannotPackError, fit_packed, load_packed
from stages.train.recipe import Recipe
from stages.train.replicas import Here, result_of
from stages.training.data.memmap import choose_place, open_split
from stages.training.device.device import device_kind
from stages.training.device.environment import read_at_once
from stages.training.device.out_of_memory import is_out_of_memory
from stages.training.packed.packable import form_of_recipe, group_by_form, why_not_recipe
from stages.training.packed.rule import (
    HOW,
    MAX_MEMBERS,
    Sizes,
    choose_way,
    count_products,
    split_evenly,
)
from stages.training.params import Choice
from stages.training.recipe import PREPARED

KEY = "train.packed"


@dataclass(frozen=True)
class Group:
    """Trainings of one form by their numbers, with the name of them all and `first`'s recipe.

    `sizes` are those of all of them. `reason` says why they can't be packed; None: they can.
    """

    numbers: Sequence[int]
    name: str
    first: Recipe
    sizes: Sizes
    reason: str | None


def choose_here(recipe: Recipe, at_once: int, num_processes: int) -> Here | None:
    """A function that trains in this process; None: each training has processes of its own.

    `at_once` processes are as many as the cores allow. Raises UserError where they have to be
    packed and can't be, and for a wrong `REPRISE_AT_ONCE`.
    """
    asked, told = recipe.train.packed, read_at_once()
    if reason := _why_alone(recipe, num_processes):
        if asked is True:
            raise _refuse(reason)
        return None
    groups = find_groups(recipe, at_once)
    packs: list[tuple[Group, str]] = []
    others: list[Group] = []
    for group in groups:
        said = _say_pack(group, asked)
        if said is None:
            others.append(group)
        else:
            packs.append((group, f"{group.name}: {said}"))
    if not others:
        return partial(_train_here, recipe, packs, (), None)
    known = others[0].reason is None and asked is not False and len(groups) == 1
    way = choose_way(join_sizes([group.sizes for group in others]), may_pack=known)
    reasons = [group.reason for group in others if group.reason and len(group.numbers) > 1]
    why = f"; no pack: {reasons[0]}" if reasons and asked is not False else ""
    numbers = sorted(number for group in others for number in group.numbers)
    name = ", ".join(group.name for group in others) if packs else recipe.trainings.describe()
    if way.name == "processes" if told is None else told > 1:
        if told is None:
            print(f"{name}: {way.said}{why}")
        return partial(_train_here, recipe, packs, (), None) if packs else None
    said = way.said if told is None else HOW["in turn"]
    return partial(_train_here, recipe, packs, numbers, f"{name}: {said}{why}")


def find_groups(recipe: Recipe, at_once: int) -> list[Group]:
    """The trainings by their form; those without an ensemble are one group."""
    members, trainings = recipe.members or (recipe,), recipe.trainings
    forms = [form_of_recipe(make_model(each.model, 0), each.train) for each in members]
    groups: list[Group] = []
    for places in group_by_form(forms):
        first = members[places[0]]
        numbers = [n for n in range(trainings.count) if trainings.place(n)[1] in places]
        sizes = find_sizes(first, len(numbers), at_once)
        name = f"member{'s' * (len(places) > 1)} {', '.join(map(str, places))}"
        name = trainings.describe() if len(places) == len(members) else name
        reasons = (why_not_recipe(members[p].train, device_kind(), 1) for p in places)
        reason = next(filter(None, reasons), None) or _why_no_room(sizes)
        groups.append(Group(numbers, name, first, sizes, reason))
    return groups


def find_sizes(recipe: Recipe, num_trainings: int, at_once: int) -> Sizes:
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
    copies = min(num_trainings, MAX_MEMBERS) if section.folds is not None else 1
    return Sizes(num_trainings, products, num_steps, at_once, num_bytes * copies)


def join_sizes(sizes: Sequence[Sizes]) -> Sizes:
    """The sizes of several groups as those of one, with means over the trainings."""
    count = sum(each.num_trainings for each in sizes)
    products, num_steps = (
        round(sum(number * each.num_trainings for number, each in zip(found, sizes, strict=True)))
        // count
        for found in ([s.products for s in sizes], [s.num_steps for s in sizes])
    )
    return Sizes(count, products, num_steps, sizes[0].at_once)


def _say_pack(group: Group, asked: Choice) -> str | None:
    """The words for a pack; None: the group is none. Raises UserError where it has to be one."""
    if len(group.numbers) == 1 or asked is False:
        return None
    if group.reason is not None:
        if asked is True:
            raise _refuse(group.reason)
        return None
    way = choose_way(group.sizes, may_pack=True)
    if way.name == "packed":
        return way.said
    return f"{HOW['packed']} ({KEY})" if asked is True else None


def _why_alone(recipe: Recipe, num_processes: int) -> str | None:
    """The reason why each training has processes of its own, whatever the rule says."""
    sections = [each.train for each in recipe.members or (recipe,)]
    if device_kind() == "cpu" and num_processes == 1 and sections[0].dataset is None:
        return None
    reasons = (why_not_recipe(section, device_kind(), num_processes) for section in sections)
    return next(filter(None, reasons), None)


def _why_no_room(sizes: Sizes) -> str | None:
    place, said = choose_place(sizes.num_bytes, torch.device("cpu"))
    return None if place == "device" else f"the memory does not hold the rows ({said})"


def _train_here(
    recipe: Recipe,
    packs: Sequence[tuple[Group, str]],
    others: Sequence[int],
    said: str | None,
    left: Sequence[int],
    homes: Sequence[Path],
    checkpoints: Path | None,
) -> None:
    """Train the packs, then `others` one after the other, for which there are words.

    Which trainings are in which pack follows from their numbers alone, so that a stage that was
    killed comes to the same packs, and to the same bits.
    """
    numbers = list(others)
    for group, words in packs:
        print(words)
        parts = split_evenly(group.numbers, MAX_MEMBERS)
        # Named by its first training: a resumed stage with other memory may have other packs.
        folders = [checkpoints and checkpoints / f"pack-{part[0]}" for part in parts]
        if (reason := _train_packs(recipe, parts, homes, folders)) is not None:
            if recipe.train.packed is True:
                raise _refuse(reason)
            # Said outside of an except block, whose traceback would keep the pack in memory.
            print(f"not packed, but one after the other: {reason}", flush=True)
            numbers += group.numbers
    if said is not None:
        print(said)
    alone = sorted(n for n in numbers if n in left and not result_of(homes[n]).exists())
    fit_in_turn(recipe, alone, homes, keeps=checkpoints is not None)


def _train_packs(
    recipe: Recipe,
    parts: Sequence[Sequence[int]],
    homes: Sequence[Path],
    folders: Sequence[Path | None],
) -> str | None:
    """Train a pack of each of `parts`; return the reason why one of them can't be one."""
    try:
        for numbers, folder in zip(parts, folders, strict=True):
            own = [homes[number] for number in numbers]
            if all(result_of(home).exists() for home in own):
                continue
            fit_packed(load_packed(recipe, numbers), own, folder)
    except CannotPackError as error:
        return str(error)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return "the memory is full"
    return None


def _refuse(reason: str) -> UserError:
    message = f"the trainings can't be packed: {reason}"
    return UserError(Problem(message, KEY, "true", ("auto", "false")))
