"""The rows that a step takes at once: half as many where the memory does not hold them.

The batch stays the same and its gradient is summed up in more parts. The order of the sums is
another, and so are the last bits: the size that was used stands in `recipe.json`.

Of several processes the others are waiting for the gradient of one whose memory is full. It leaves
a note beside the checkpoints and ends; torchrun starts all of them again, and they read it.
"""

from pathlib import Path

from torch import OutOfMemoryError, cuda

from stages.common.errors import Problem, UserError
from stages.common.files import read_json, write_json
from stages.training.device.distributed import World

KEY = "train.micro_batch_size"
# What a process leaves: the rows that it tried at once, and how many to try.
NOTES = "rows-at-once-*.json"
# What torch's allocator on a CPU says; it has no error of its own.
_CPU_SAYS = ("can't allocate memory", "not enough memory")


def is_out_of_memory(error: BaseException) -> bool:
    """Check whether this is what torch or Python raises when the memory is full."""
    if isinstance(error, OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _CPU_SAYS)


class ProcessOutOfMemoryError(Exception):
    """One of several processes can't take `tried` rows at once; all may begin again with `half`.

    `micro_batch_size` is what was asked for.
    """

    def __init__(self, rank: int, tried: int, half: int, micro_batch_size: int | None) -> None:
        super().__init__(f"process {rank} is out of memory with {tried} rows at once; try {half}")
        self.rank, self.tried, self.half = rank, tried, half
        self.micro_batch_size = micro_batch_size

    def as_mistake(self) -> UserError:
        """The user's mistake that it is where no process can be started again."""
        value = "null" if self.micro_batch_size is None else str(self.micro_batch_size)
        return UserError(Problem(str(self), KEY, value))


def write_oom_hint(folder: Path, error: ProcessOutOfMemoryError) -> None:
    """Let those that are started again know. The note is there as a whole or not at all."""
    path = folder / NOTES.replace("*", f"{error.rank:05}")
    writing = path.with_suffix(".writing")
    write_json(writing, [error.tried, error.half])
    writing.replace(path)


def read_oom_hints(folder: Path | None, size: int | None, world: World) -> int | None:
    """The number of rows to take at once: `size` as before, or fewer by the notes, which is said.

    The fewest of any process are those of all.
    """
    notes = [read_json(path) for path in folder.glob(NOTES)] if folder is not None else []
    notes = [note for others in world.gather(notes) for note in others]
    if not notes:
        return size
    tried, half = min(notes, key=lambda note: (note[1], note[0]))
    if size is not None and size <= half:
        return size
    print(f"a process was out of memory with {tried} rows at once: {_advice(half)}", flush=True)
    return int(half)


def halve_micro_batch(size: int | None, num_rows: int, world: World) -> int:
    """Half of the rows that a process took at once: `size` of its `num_rows`; said once.

    Raises UserError for one row, which that can't help; ProcessOutOfMemoryError for one of several
    processes.
    """
    tried = num_rows if size is None else min(size, num_rows)
    if tried <= 1:
        message = "the memory does not hold a single row of the batch; try a smaller model"
        raise UserError(Problem(message, KEY, str(size)))
    half = (tried + 1) // 2
    if world.size > 1:
        raise ProcessOutOfMemoryError(world.rank, tried, half, size)
    if cuda.is_available():
        cuda.empty_cache()
    print(f"out of memory with {tried} rows at once: {_advice(half)}", flush=True)
    return half


def _advice(half: int) -> str:
    more = f"{half} from here on, the same batch in more parts"
    return f"{more} ({KEY}: {half} has them from the start)"
