"""The validation of a pack: all members at once, each on its own rows."""

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor

from stages.tensors.target_errors import root_in_units, square_errors
from stages.training.data.source import TensorSource, rows_at_once
from stages.training.packed.layout import Stacked
from stages.training.packed.pack import Pack
from stages.training.state import Data
from stages.training.step.loss_of_scores import prepare_scores

# Fewer rows at once would be many small operations again.
MIN_ROWS = 64


def evaluated_weights(pack: Pack) -> Stacked:
    """The weights that are validated and kept: the average of a member that asks for one."""
    if pack.average is None:
        return pack.weights
    asked = [pack.members[number].params.ema is not None for number in pack.numbers]
    chosen = torch.tensor(asked)[:, None]
    pairs = zip(pack.average, pack.weights, strict=True)
    return [torch.where(chosen, mean, matrix) for mean, matrix in pairs]


@torch.no_grad()
def validate_pack(pack: Pack, weights: Stacked) -> list[tuple[float, float]]:
    """Mean loss and metric of each member that still trains, as `loop.validate` gives them."""
    members = [pack.members[number] for number in pack.numbers]
    sources = [cast(TensorSource, member.data.validation) for member in members]
    of_size: dict[int, list[int]] = {}
    for place, source in enumerate(sources):
        of_size.setdefault(len(source), []).append(place)
    found: dict[int, tuple[float, float]] = {}
    pack.template.eval()
    for places in of_size.values():
        own = [source for place, source in enumerate(sources) if place in places]
        found |= dict(zip(places, _evaluate(pack, weights, places, own), strict=True))
    pack.template.train()
    return [found[place] for place in range(len(sources))]


def _evaluate(
    pack: Pack, weights: Stacked, places: list[int], sources: Sequence[TensorSource]
) -> list[tuple[float, float]]:
    """The same of members with equally many rows, `sources` (rows) each."""
    at, datas = torch.tensor(places), [pack.members[pack.numbers[p]].data for p in places]
    data = datas[0]
    named = pack.layout.name([matrix[at] for matrix in weights])
    constants, losses = pack.constants.take(at), pack.losses.take(places)
    num_rows = len(sources[0])
    totals = torch.zeros(2, len(places), dtype=torch.float64)
    size = max(MIN_ROWS, rows_at_once(sources[0]) // len(places))
    for start in range(0, num_rows, size):
        rows = slice(start, start + size)
        taken = [source.take(rows) for source in sources]
        batch = {kind: torch.stack([own[kind] for own, _ in taken]) for kind in taken[0][0]}
        target = torch.stack([own for _, own in taken])
        weight = _weights_of(sources, rows)
        scores = prepare_scores(pack.score(named, constants, batch, ()), target)
        totals[0] += losses(scores, target, weight) * target.shape[1]
        if data.task == "classification":
            found = (scores.argmax(2) == target).double()
        else:
            found = _square_errors(scores, target, datas)
        totals[1] += (found if weight is None else found * weight).sum(dim=1)
    means = (totals / num_rows).tolist()
    if data.task == "classification":
        return list(zip(*means, strict=True))
    return [
        (loss, root_in_units(square, each.scale))
        for loss, square, each in zip(*means, datas, strict=True)
    ]


def _square_errors(scores: Tensor, target: Tensor, datas: Sequence[Data]) -> Tensor:
    """The squares of all members' errors (members, rows), each in the scale of its own target."""
    if all(data.transform is None for data in datas):
        return (scores - target).square()
    members = zip(scores, target, datas, strict=True)
    return torch.stack([square_errors(s, t, data.scale).double() for s, t, data in members])


def _weights_of(sources: Sequence[TensorSource], rows: slice) -> Tensor | None:
    found = [source.weight[rows] for source in sources if source.weight is not None]
    return torch.stack(found) if found else None
