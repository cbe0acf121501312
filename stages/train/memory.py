"""When the memory does not hold a batch: half as many rows at once, from there on.

The batch stays the same and its gradient is summed up in more parts. The order of the sums is
another, and so are the last bits: the size that was used stands in `recipe.json`.
"""

from torch import OutOfMemoryError, cuda

from stages.common.errors import Problem, UserError
from stages.train.machine import World

KEY = "train.micro_batch_size"
# What torch's allocator on a CPU says; it has no error of its own.
_CPU_SAYS = ("can't allocate memory", "not enough memory")


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
