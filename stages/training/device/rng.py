"""The global generators of Python, NumPy and torch: what a model of one's own may draw from.

What the project draws itself (first weights, orders, masks, noise) has generators of its own.
"""

import random
from typing import Any

import numpy as np
import torch


def seed_generators(seed: int, rank: int) -> None:
    """Seed them all for one of several processes, each of which draws numbers of its own.

    Else a layer that draws would do the same to the rows of each.
    """
    # The last number keeps them apart from what epochs and steps are seeded with.
    seed_all(seed, rank, 2)
    number = seed if rank == 0 else torch.initial_seed()
    torch.default_generator.manual_seed(number)
    # A GPU's generator as well. Without a GPU torch would keep each call, for when there is one.
    if torch.accelerator.is_available():
        torch.manual_seed(number)


def seed_all(*numbers: int) -> None:
    """Seed the global generators on the CPU with 32 bits each, mixed from all numbers."""
    for_python, for_numpy, for_torch = np.random.SeedSequence(numbers).generate_state(3)
    random.seed(int(for_python))
    np.random.seed(for_numpy)  # noqa: NPY002  # what a model or dataset of one's own may draw from
    torch.default_generator.manual_seed(int(for_torch))


def read_generators(device: torch.device) -> dict[str, Any]:
    """The state of the generators, as plain values and tensors.

    Of a GPU's generators that of `device`.
    """
    numpy = np.random.get_state(legacy=False)  # noqa: NPY002
    key = torch.from_numpy(numpy["state"]["key"].astype(np.int64))
    return {
        "python": random.getstate(),
        "numpy": {**numpy, "state": {**numpy["state"], "key": key}},
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
    }


def put_generators(saved: dict[str, Any], device: torch.device) -> None:
    """Put them back where they were when `saved` was read."""
    numpy = saved["numpy"]
    key = numpy["state"]["key"].numpy().astype(np.uint32)
    random.setstate(saved["python"])
    np.random.set_state({**numpy, "state": {**numpy["state"], "key": key}})  # noqa: NPY002
    torch.set_rng_state(saved["torch"])
    if device.type == "cuda":
        torch.cuda.set_rng_state(saved["cuda"], device)
