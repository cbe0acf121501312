"""Labels that are no class, on the CPU: a GPU says so too late, and not in which row."""

from collections.abc import Iterator

import torch

from stages.common.counts import counted, either
from stages.model.model import read_spec
from stages.tools.diagnose.measured import Measured, training_of
from stages.training.data.source import Source, rows_at_once
from stages.training.recipe import BUILT

CAUSE = "a label out of range"


def measure() -> Iterator[Measured]:
    """Look at the target of every train row, as the training would take it."""
    training = training_of(torch.device("cpu"))
    if training.data.task != "classification":
        return
    num_classes = read_spec(BUILT).num_outputs
    found = find_outside(training.data.train, num_classes)
    if found is None:
        yield Measured("ok", f"every label is one of 0 to {num_classes - 1}")
        return
    row, key, label, count = found
    others = f"{either(count - 1, 'has', 'have')} {counted(count - 1, 'other')}"
    more = f", and so {others}" if count > 1 else ""
    what = f"the train row with the key {key} (row {row}) has the label {label}{more}"
    yield Measured("wrong", f"{what}; the model gives the classes 0 to {num_classes - 1}", CAUSE)


def find_outside(source: Source, num_classes: int) -> tuple[int, object, int, int] | None:
    """The first row with a label out of range: its number, key and label, and how many have one."""
    first: tuple[int, object, int] | None = None
    count, size = 0, rows_at_once(source)
    for begin in range(0, len(source), size):
        _, target = source.take(slice(begin, begin + size))
        outside = (target < 0) | (target >= num_classes)
        count += int(outside.sum())
        if first is None and outside.any():
            place = int(outside.int().argmax())
            row = begin + place
            key = row if source.keys is None else source.keys[row]
            first = (row, key, int(target[place]))
    return None if first is None else (*first, count)
