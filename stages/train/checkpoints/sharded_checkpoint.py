"""A checkpoint in parts, where the processes divide the weights: each writes what it holds.

The name of a part tells which of how many it is, beside the mark of its checkpoint and its own
checksum. A checkpoint counts when every process has its part, each of which has been written
whole; the mark keeps those apart that two runs have written after the same step. The last two
that count are kept, and one more from when it is written to when it counts. Each machine has the
parts of its own processes: all of them are needed to resume.
"""

from collections import Counter
from pathlib import Path
from typing import Any
from uuid import uuid4

from stages.train.checkpoints.checkpoint import (
    NUM_KEPT,
    WRITING,
    checkpoint_stem,
    reached,
    read_checkpoint,
    write_file,
)
from stages.training.device.distributed import World
from stages.training.device.environment import num_nodes

SUFFIX = ".part"


def find_whole(folder: Path | None, world: World) -> list[tuple[str, Path]]:
    """The checkpoints that all processes have their part of, the oldest first: name, own part."""
    own = _own_parts(folder, world)
    names = world.gather(list(own))
    return [(name, own[name]) for name in sorted(set(own).intersection(*names))]


def _own_parts(folder: Path | None, world: World) -> dict[str, Path]:
    paths = folder.glob(f"*-{_which(world)}-*{SUFFIX}") if folder is not None else ()
    return {path.stem.rsplit("-", 2)[0]: path for path in paths}


def _which(world: World) -> str:
    return f"{world.rank + 1}of{world.size}"


def has_whole(folder: Path | None) -> bool:
    """Check that all processes of this machine have their part of a checkpoint."""
    paths = folder.glob(f"*{SUFFIX}") if folder is not None else ()
    found: Counter[tuple[str, int]] = Counter()
    for path in paths:
        name, which, _ = path.stem.rsplit("-", 2)
        found[name, int(which.partition("of")[2])] += 1
    return any(number * num_nodes() == size for (_, size), number in found.items())


def load_part(folder: Path | None, world: World) -> dict[str, Any] | None:
    """This process's part of the newest checkpoint that all of them can read."""
    for name, path in reversed(find_whole(folder, world)):
        saved = read_checkpoint(path)
        if world.all_reduce_max([int(saved is None)])[0]:
            if saved is not None:
                print(f"a part of {name} can't be read; trying the one before it")
            continue
        assert saved is not None
        print(f"resumes from {name}, in {world.size} parts, {reached(saved)}")
        return saved
    return None


def make_mark() -> str:
    """A random mark for the parts of one checkpoint."""
    return uuid4().hex[:8]


def write_part(
    folder: Path, position: tuple[int, int], content: dict[str, Any], mark: str, world: World
) -> None:
    """Write this process's part of the checkpoint `mark`. Raises OSError."""
    write_file(folder, f"{checkpoint_stem(position)}-{mark}-{_which(world)}", SUFFIX, content)


def drop_older(folder: Path, world: World) -> None:
    """Drop this process's parts of what is older than the last two that all have written."""
    kept = find_whole(folder, world)[-NUM_KEPT:]
    if len(kept) < NUM_KEPT:
        return
    # What a killed process has left half written as well.
    for path in [*_own_parts(folder, world).values(), *folder.glob(f"*-{_which(world)}{WRITING}")]:
        if path.name < kept[0][0]:
            path.unlink()
