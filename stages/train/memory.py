"""How many rows at once: half as many from where the memory does not hold a batch, and of those
that are only judged as many as a rule allows.

The batch stays the same and its gradient is summed up in more parts. The order of the sums is
another, and so are the last bits: the size that was used stands in `recipe.json`.
"""

from torch import OutOfMemoryError, cuda

from stages.common.errors import Problem, UserError
from stages.train.machine import World
from stages.train.sources import Source

KEY = "train.micro_batch_size"
# What torch's allocator on a CPU says; it has no error of its own.
_CPU_SAYS = ("can't allocate memory", "not enough memory")

# Of rows that no step learns from, so many go through the model at once at most. It is as many
# for all rows of up to 8192 numbers; of images of 3 x 224 x 224 it is 222.
MAX_ROWS, MAX_NUMBERS = 4096, 2**25


def rows_at_once(source: Source) -> int:
    """How many rows of `source` are judged at once, by the size of one: the same on any machine.

    Neither more than `MAX_ROWS` nor more than have `MAX_NUMBERS` numbers in all; one at least.
    """
    batch, _ = source.take(slice(0, 1))
    numbers = sum(values.numel() for values in batch.values())
    return max(1, min(MAX_ROWS, MAX_NUMBERS // max(1, numbers)))


def is_out_of_memory(error: BaseException) -> bool:
    """Whether this is what torch or Python raises when the memory is full."""
    if isinstance(error, OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _CPU_SAYS)


def halve(size: int | None, num_rows: int, world: World) -> int:
    """Half of the rows that a process took at once: `size` of its `num_rows`; said once.

    Raises UserError where that can't help: for one row, and for several processes, of which the
    others are already waiting for this one's gradient.
    """
    tried = num_rows if size is None else min(size, num_rows)
    if tried <= 1:
        message = "the memory does not hold a single row of the batch; try a smaller model"
        raise UserError(Problem(message, KEY, str(size)))
    half = (tried + 1) // 2
    if world.size > 1:
        message = f"process {world.rank} is out of memory with {tried} rows at once; try {half}"
        raise UserError(Problem(message, KEY, "null" if size is None else str(size)))
    if cuda.is_available():
        cuda.empty_cache()
    print(
        f"out of memory with {tried} rows at once: {half} from here on, the same batch in more "
        f"parts ({KEY}: {half} has them from the start)",
        flush=True,
    )
    return half
