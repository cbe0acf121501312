"""A process that trains: alone, or one of several that torchrun starts (`stages.train.launch`).

python -m stages.train.worker REPLICA OUT [CHECKPOINTS]
"""

import os
import signal
import sys
from pathlib import Path
from threading import Thread

import torch
import torch.distributed as dist

from stages.common.errors import UserError
from stages.common.params import read_params
from stages.train.fit import fit
from stages.train.launch import hand_over
from stages.train.machine import World, choose_device


def main() -> None:
    """Join the others, train, leave."""
    world = join() if "RANK" in os.environ else alone()
    replica, out = int(sys.argv[1]), Path(sys.argv[2])
    checkpoints = Path(sys.argv[3]) if len(sys.argv) > 3 else None
    try:
        fit(read_params("train"), out, world, checkpoints, replica)
    except UserError as error:
        # All meet the same one, but where the memory of one is full: the others then lose it.
        hand_over(error, out, world.rank)
        return
    if world.size > 1:
        dist.barrier()
        dist.destroy_process_group()


def join() -> World:
    """One of the processes that torchrun has started."""
    device = choose_device()
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    world = World(rank=dist.get_rank(), size=dist.get_world_size())
    if world.rank > 0:
        # All print the same; one is enough.
        sys.stdout = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115
    return world


def alone() -> World:
    """The only process of its training; it ends with the stage, even if that was killed."""
    # Ctrl-C reaches the stage as well, which ends us.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Thread(target=_end_with_the_stage, daemon=True).start()
    return World()


def _end_with_the_stage() -> None:
    # The stage holds the other end of this pipe and never writes: it is read when the stage ends.
    os.read(0, 1)
    os._exit(1)


if __name__ == "__main__":
    main()
