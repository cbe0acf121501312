"""One of several processes that train together; started by torchrun (`stages.train.launch`)."""

import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist

from stages.common.errors import UserError
from stages.common.params import read_params
from stages.train.fit import fit
from stages.train.launch import hand_over
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
    out, checkpoints = Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 else None
    try:
        fit(read_params("train"), out, world, checkpoints)
    except UserError as error:
        # All processes meet the same one.
        if world.rank == 0:
            hand_over(error, out)
        return
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
