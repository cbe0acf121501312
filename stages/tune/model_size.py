"""The size of a trial's model: the second thing, beside its value, by which a trial is picked.

It is counted, not measured: the milliseconds of a prediction are others in each run and on each
machine, so that the same search would pick another trial each time.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, final

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from stages.common.config import Overrides
from stages.common.errors import Problem, UserError
from stages.model.model import ModelSpec, arguments_class, make_model
from stages.tensors.batch import Batch
from stages.training.packed.rule import count_products
from stages.training.recipe import override_model
from stages.training.state import Data
from stages.tune.params import ModelSize
from stages.tune.training.batch import Start
from stages.tune.trials import Search, Trial, best_trial, rank

KEY = "tune.model_size.most"
# A batch norm has no mean of one row.
NUM_ROWS = 2


def make_measure(start: Start, data: Data, asked: ModelSize) -> Callable[[Overrides], int]:
    """A function that counts the size of the model that overrides make.

    It raises UserError where they make none.
    """
    known: dict[str, int] = {}
    rows, _ = data.train.take(slice(0, NUM_ROWS))
    batch = {kind: values.cpu() for kind, values in rows.items()}

    def measure(overrides: Overrides) -> int:
        spec = override_model(start.spec, overrides, start.schema)
        name = json.dumps(spec.arguments, sort_keys=True)
        if name not in known:
            known[name] = count(spec, batch, asked.of)
        return known[name]

    return measure


def make_limit(
    measure: Callable[[Overrides], int] | None, most: int | None
) -> Callable[[Overrides], bool]:
    """A function that checks whether overrides make a model of size `most` or less; None: any."""

    def is_small(overrides: Overrides) -> bool:
        if measure is None or most is None:
            return True
        try:
            return measure(overrides) <= most
        except UserError:
            # Values that the model takes one by one, and not together.
            return False

    return is_small


def count(spec: ModelSpec, batch: Batch, of: Literal["weights", "multiply_adds"]) -> int:
    """The weights of a model, or the products that a row of `batch` takes.

    Its tensors have shapes and no numbers, so that a model larger than the memory is counted too;
    only one whose code looks at the numbers is made in full. Raises UserError where it can't be.
    """
    # Tensors that its file makes when it is imported must be real ones.
    arguments_class(spec.name)

    def count_one(rows: Batch) -> int:
        model = make_model(spec, 0)
        if of == "weights":
            return sum(weight.numel() for weight in model.parameters())
        return count_products(model, rows) // NUM_ROWS

    try:
        with torch.device("meta"), _UncountedAttention():
            return count_one({kind: values.to("meta") for kind, values in batch.items()})
    except Exception:  # code of one's own may stop with anything
        return count_one(batch)


def pick(search: Search, sizes: Mapping[int, int], asked: ModelSize | None) -> Trial:
    """The trial that train takes; `sizes` are those of all trials by their numbers.

    Of those that are small enough it is the smallest whose value is near enough to the best one's.
    Raises UserError when none is small enough, or none came to its end.
    """
    if asked is None:
        return best_trial(search)
    best_trial(search)
    small = [t for t in rank(search) if asked.most is None or sizes[t.number] <= asked.most]
    if not small:
        least = min(sizes[trial.number] for trial in rank(search))
        message = (
            f"no trial has at most {asked.most:,} {spell(asked)}; the smallest of those that came "
            f"to their end has {least:,}"
        )
        raise UserError(Problem(message, KEY, str(asked.most)))
    worst = search.sign * value_of(small[0]) + asked.within
    # What is as near but for rounding is near enough.
    near = [t for t in small if search.sign * value_of(t) <= worst + 1e-9 * abs(worst)]
    return min(near, key=lambda trial: sizes[trial.number])


def find_front(search: Search, sizes: Mapping[int, int]) -> list[Trial]:
    """The trials that no other beats in both size and value, the smallest first.

    Of several that are equal in both it is the first.
    """
    front: list[Trial] = []
    by_size = sorted(rank(search), key=lambda trial: sizes[trial.number])
    for trial in by_size:
        if not front or search.sign * (value_of(trial) - value_of(front[-1])) < 0:
            front.append(trial)
    return front


def value_of(trial: Trial) -> float:
    """The value of a trial that came to its end."""
    assert trial.value is not None
    return trial.value


def spell(asked: ModelSize) -> str:
    """The name of what is counted."""
    return "weights" if asked.of == "weights" else "multiply-adds"


def describe(picked: Trial, search: Search, sizes: Mapping[int, int], asked: ModelSize) -> str:
    """The choice in words."""
    best: Sequence[Trial] = rank(search)
    said = f"{sizes[picked.number]:,} {spell(asked)}"
    if picked.number == best[0].number:
        return f"{said}, and no other trial is better"
    other = f"{value_of(best[0]):.5f} of trial {best[0].number} with {sizes[best[0].number]:,}"
    return f"{said}, beside {other}"


@final
class _UncountedAttention(TorchFunctionMode):
    """Attention by its shape alone: a CPU has a kernel of its own for it, which is not counted."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if func is not nn.functional.scaled_dot_product_attention:
            return func(*args, **(kwargs or {}))
        query, _, value = args[:3]
        return query.new_empty(*query.shape[:-1], value.shape[-1])
