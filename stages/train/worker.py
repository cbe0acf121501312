"""One of several processes that train together; started by torchrun (`stages.train.launch`)."""

import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist

from stages.common.params import read_params
from stages.train.fit import fit
from stages.train.machine import World, choose_device


def main() -> None:
    """Join the others, train, leave."""
    device = choose_device()
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    world = World(rank=dist.get_rank(), size=dist.get_world_size())
    if world.rank > 0:
        # All print the same; one is enough.
        sys.stdout = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115
    fit(read_params("train"), Path(sys.argv[1]), world)
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
