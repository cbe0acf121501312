"""A process that trains: alone, or one of several that torchrun starts (`stages.train.launch`).

python -m stages.train.worker NUMBER OUT [CHECKPOINTS]

When one of several is lost, torchrun ends the others and starts all again; they resume from
the last checkpoint; with fewer rows at once, where it was lost for want of memory. A mistake that
would come again is left as a file instead, and ends all of them.
"""

import gc
import os
import signal
import sys
from pathlib import Path
from threading import Thread
from typing import NoReturn

import torch
import torch.distributed as dist

from stages.common.errors import UserError
from stages.common.terminal import keep_printing
from stages.common.user_code import own_errors, to_user_error
from stages.runtime.input_watch import join as join_stage
from stages.runtime.installed import check_installed
from stages.runtime.snapshot import fingerprint
from stages.train.fit import fit
from stages.train.launch import STOPPED, hand_over, note_loss, raise_problems
from stages.train.recipe import read_recipe
from stages.training.device.device import choose_device
from stages.training.device.distributed import World
from stages.training.device.out_of_memory import ProcessOutOfMemoryError, write_oom_hint


def main() -> None:
    """Train alone, or join the others, train, leave."""
    keep_printing()
    number, out = int(sys.argv[1]), Path(sys.argv[2])
    checkpoints = Path(sys.argv[3]) if len(sys.argv) > 3 else None
    end_with_the_stage()
    if "RANK" in os.environ:
        train_with_others(number, out, checkpoints)
        # As in `run_stage`: the end is not for collecting garbage.
        gc.freeze()
        return
    # Ctrl-C reaches the stage as well, which ends this process.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with own_errors(""):
            fit(read_recipe(join_stage("train")), out, World(), checkpoints, number)
        check_installed()
    except UserError as error:
        hand_over(error, out, 0)


def train_with_others(number: int, out: Path, checkpoints: Path | None) -> None:
    """Train as one of the processes that torchrun has started."""
    world = join()
    stopped = out / STOPPED
    if world.is_local_main_process:
        stopped.unlink(missing_ok=True)
    try:
        checkpoints = agree(world, out, checkpoints)
    except UserError as error:
        # All have it.
        hand_over(error, out, world.rank)
        return
    try:
        fit(read_recipe(join_stage("train")), out, world, checkpoints, number)
        check_installed()
        dist.barrier()
        dist.destroy_process_group()
    except ProcessOutOfMemoryError as error:
        begin_again(error, out, checkpoints, world)
    except UserError as error:
        end_all(error, out, world)
    except SystemExit:
        if world.is_local_main_process:
            stopped.touch()
        raise
    except Exception as error:
        reason = str(error).split("\n")[0]
        # What came of another process's end passes through the code of a model as well.
        if not may_pass(error) and (mistake := to_user_error(error, "")):
            end_all(mistake, out, world)
        if may_pass(error):
            said = f"process {world.rank} has lost the others: {reason}"
            print(said, file=sys.stderr)
            note_loss(said, checkpoints, world.rank)
            sys.exit(1)
        what = f"process {world.rank} failed with {type(error).__name__}: {reason}"
        hand_over(UserError(f"{what}; see above"), out, world.rank)
        raise


def end_all(error: UserError, out: Path, world: World) -> NoReturn:
    """End with a mistake that would come again.

    Most are met by all. Where one alone meets it the others lose it, and are started again to hear
    of it from its file; on another machine only if this one's torchrun fails too.
    """
    hand_over(error, out, world.rank)
    sys.exit(1 if world.num_nodes > 1 else 0)


def begin_again(
    error: ProcessOutOfMemoryError, out: Path, checkpoints: Path | None, world: World
) -> NoReturn:
    """End, to be started again with the others and take fewer rows at once.

    Where nothing is kept to resume from, or torchrun starts nobody any more, it is a mistake.
    """
    again, most = (
        int(os.environ[f"TORCHELASTIC_{of}"]) for of in ("RESTART_COUNT", "MAX_RESTARTS")
    )
    if checkpoints is None or again >= most:
        end_all(error.as_mistake(), out, world)
    write_oom_hint(checkpoints, error)
    print(error, file=sys.stderr)
    sys.exit(1)


def join() -> World:
    """Meet the other processes that torchrun has started."""
    device = choose_device()
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    num_nodes = int(os.environ["GROUP_WORLD_SIZE"])
    world = World(dist.get_rank(), dist.get_world_size(), num_nodes)
    if not world.is_local_main_process:
        # All print the same; one is enough.
        sys.stdout = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115
    again = int(os.environ["TORCHELASTIC_RESTART_COUNT"])
    if again:
        print(f"started again, {again} of {os.environ['TORCHELASTIC_MAX_RESTARTS']} times")
    return world


def agree(world: World, out: Path, checkpoints: Path | None) -> Path | None:
    """The folder of checkpoints, or None where a machine has none: all of them keep some or none.

    Raises the UserError that a process has left in `out` before all were started again, and one
    for machines that would not train the same.
    """
    left: UserError | None = None
    try:
        raise_problems(out)
    except UserError as error:
        left = error
    recipe = fingerprint("train") if world.num_nodes > 1 else ""
    local_size = int(os.environ["LOCAL_WORLD_SIZE"])
    problems, recipes, sizes, folders = zip(
        *world.gather((left and left.problems, recipe, local_size, checkpoints is not None)),
        strict=True,
    )
    for known in problems:
        if known:
            raise UserError(*known)
    if len(set(sizes)) > 1:
        each = f"PET_NPROC_PER_NODE must be the same on each, not {sorted(set(sizes))}"
        raise UserError(f"the machines start different numbers of processes: {each}")
    if len(set(recipes)) > 1:
        what = "each needs the same commit, params.yaml, data and versions of libraries"
        raise UserError(f"the machines would not train the same: {what}")
    return checkpoints if all(folders) else None


def may_pass(error: Exception) -> bool:
    """Check whether another process or a device failed, not what this process computes."""
    return isinstance(error, dist.DistError | torch.AcceleratorError) or "gloo" in str(error)


def end_with_the_stage() -> None:
    """End this process, and torchrun with it, with the stage that started it: even a killed one."""
    torchrun = os.getppid() if "RANK" in os.environ else None
    Thread(target=_wait_for_the_stage, args=(torchrun,), daemon=True).start()


def _wait_for_the_stage(torchrun: int | None) -> None:
    # The stage holds the other end of this pipe and never writes: it is read when the stage ends.
    os.read(0, 1)
    # It would start this process again. Where it has ended itself, this one has another parent.
    if torchrun is not None and os.getppid() == torchrun:
        os.kill(torchrun, signal.SIGTERM)
    os._exit(1)


if __name__ == "__main__":
    main()
