"""The parts of a batch side by side, each trained by a copy of this process.

Which train at the same time changes nothing: each comes to the bits that it has here.
"""

import sys
from collections import deque
from collections.abc import Sequence
from multiprocessing.connection import wait

from stages.training.device.device import device_kind
from stages.training.device.distributed import World
from stages.training.device.environment import num_cores, num_threads, read_at_once
from stages.tune.training.copies import Copy, Reached, Results, TrainParts, add_copy, end_all
from stages.tune.training.groups import Part
from stages.tune.trials import OnEpochEnd


def num_at_once(parts: Sequence[Part]) -> int:
    """The number of parts that train side by side; 1: one after the other in this process.

    As many as there are cores, or as `REPRISE_AT_ONCE` says. Where one part takes several threads,
    which are all cores, all train one after the other. Only Linux can copy a process that has
    loaded torch. Raises UserError for a wrong number.
    """
    asked = read_at_once()
    if sys.platform != "linux" or device_kind() != "cpu":
        return 1
    if any(num_threads(part.size, 1, World())[0] > 1 for part in parts):
        return 1
    return min(len(parts), asked or num_cores())


def train_side_by_side(
    parts: Sequence[Part],
    names: Sequence[str],
    train: TrainParts,
    on_epoch_end: OnEpochEnd,
    at_once: int,
    *,
    in_step: bool,
) -> Results:
    """Train all parts with `at_once` copies of this process; the results are by place.

    With `in_step` all get to the end of an epoch before any goes on to the next one. `names` are
    those of the parts, for an error. Raises what a copy has met, and UserError when one was lost or
    can't be made.
    """
    turns = deque(share_out(parts, at_once if in_step else len(parts)))
    results: Results = {}
    copies: list[Copy] = []
    # Of all that have reached the end of an epoch and wait for the others.
    idle: list[Copy] = []
    epoch, values = 0, dict[int, float]()

    def begin_next(copy: Copy) -> None:
        numbers = turns.popleft()
        copy.begin(numbers, "; ".join(names[number] for number in numbers))

    try:
        for _ in range(at_once):
            begin_next(add_copy(copies, train))
        busy = list(copies)
        while busy or idle:
            if not busy:
                ended = on_epoch_end(epoch, values)
                for copy in idle:
                    copy.go_on(ended)
                busy, idle, values = idle, [], {}
            for copy in _wait_for(busy):
                told = copy.hear()
                if isinstance(told, Reached) and in_step:
                    epoch, values = told.epoch, {**values, **told.values}
                    busy.remove(copy)
                    idle.append(copy)
                elif isinstance(told, Reached):
                    copy.go_on(on_epoch_end(told.epoch, told.values))
                else:
                    results |= told
                    if turns:
                        begin_next(copy)
                    else:
                        busy.remove(copy)
    finally:
        end_all(copies)
    return results


def share_out(parts: Sequence[Part], count: int) -> list[list[int]]:
    """The numbers of the parts in `count` shares of about the same size, the largest first."""
    shares: list[list[int]] = [[] for _ in range(count)]
    sizes = [0] * count
    for number in sorted(range(len(parts)), key=lambda n: -parts[n].size):
        least = sizes.index(min(sizes))
        shares[least].append(number)
        sizes[least] += parts[number].size
    return shares


def _wait_for(copies: Sequence[Copy]) -> list[Copy]:
    """Those of `copies` that have something to tell, as soon as there are any."""
    ready = wait([copy.connection for copy in copies])
    return [copy for copy in copies if copy.connection in ready]
