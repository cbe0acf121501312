"""The rule by which several trainings are packed, follow one another, or have processes.

It goes by sizes and numbers of steps, never by a stopwatch, so the same machine chooses the same
every time. `benchmarks/packed.py` measures what it estimates from.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from stages.tensors.batch import Batch

Name = Literal["packed", "in turn", "processes"]
HOW: dict[Name, str] = {
    "packed": "packed, their steps together",
    "in turn": "one after the other",
    "processes": "each in a process",
}
# Members of one pack. More take more memory and are hardly faster.
MAX_MEMBERS = 32
# Seconds until a process has loaded the libraries and the rows.
START = 3.0
# Seconds of a step alone, and of a product in its forward pass with what follows from it.
STEP, PRODUCT = 4.5e-4, 1.5e-10
# Seconds of a step of a pack, of each member in it, and of a product.
PACK_STEP, MEMBER_STEP, PACKED_PRODUCT = 7e-4, 4e-5, 1.7e-10
# A pack moves the last digits, so it has to save a fifth.
SHARE = 0.8


@dataclass(frozen=True)
class Sizes:
    """Sizes from which the choice follows.

    `products` are those of numbers in the forward pass of a step, `num_steps` the steps of a
    training, `at_once` the processes that the cores allow, `num_bytes` those of all rows of a pack.
    """

    num_trainings: int
    products: int
    num_steps: int
    at_once: int
    num_bytes: int = 0


@dataclass(frozen=True)
class Way:
    """A way to train several, and the estimate behind it in words."""

    name: Name
    said: str


def choose_way(sizes: Sizes, *, may_pack: bool) -> Way:
    """The way that takes the least time by the estimate; a pack has to save a fifth of the others'.

    Of equal ones it is the first.
    """
    seconds = estimate(sizes)
    names: list[Name] = ["in turn", "processes"]
    best = min(names, key=lambda name: seconds[name])
    if may_pack:
        names.insert(0, "packed")
        best = "packed" if seconds["packed"] <= SHARE * seconds[best] else best
    others = ", ".join(f"{name} {_spell(seconds[name])}" for name in names if name != best)
    products = f"a step of {sizes.products / 1e6:.1f}M products"
    said = f"{HOW[best]} ({products}: by rule about {_spell(seconds[best])}; {others})"
    return Way(best, said)


def estimate(sizes: Sizes) -> dict[Name, float]:
    """The seconds of each way, beside what all of them take."""
    alone = sizes.num_steps * (STEP + sizes.products * PRODUCT)
    count, rounds = sizes.num_trainings, math.ceil(sizes.num_trainings / sizes.at_once)
    packs = math.ceil(count / MAX_MEMBERS)
    steps = packs * PACK_STEP + count * (MEMBER_STEP + sizes.products * PACKED_PRODUCT)
    return {
        "packed": sizes.num_steps * steps,
        "in turn": count * alone,
        "processes": rounds * (START + alone),
    }


def split_evenly(numbers: Sequence[int], most: int) -> list[Sequence[int]]:
    """`numbers` in as few packs as there can be of at most `most` members, about as large."""
    size = math.ceil(len(numbers) / math.ceil(len(numbers) / most))
    return [numbers[start : start + size] for start in range(0, len(numbers), size)]


@torch.no_grad()
def count_products(model: nn.Module, batch: Batch) -> int:
    """The products of numbers in a forward pass of a training with the rows of `batch`."""
    with torch.random.fork_rng(devices=[]), FlopCounterMode(display=False) as counter:
        model.train()
        model(batch)
    return int(counter.get_total_flops()) // 2


def _spell(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 100 else f"{seconds / 60:.0f} min"
