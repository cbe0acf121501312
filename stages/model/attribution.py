"""Which columns moved a prediction: integrated gradients, by column.

M. Sundararajan, A. Taly, Q. Yan, 'Axiomatic Attribution for Deep Networks', ICML 2017, equation 1:
the gradient along the straight line from a baseline row to the row, times their difference. The
baseline is the mean of training for numbers and images, false for truths, and a category that
training has not seen. Of a class, the score is explained that its probability is made from.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from stages.features.schema import CODES, WORDS, Array, Feature, Moments, Schema
from stages.model.layers import ByColumn
from stages.model.predictor import Predictor
from stages.tensors.batch import Batch, take, to_batch

CODED = (*CODES, *WORDS)
# The line is walked in parts, since behind a norm most may happen near the baseline, where the norm
# has nothing to divide by: 48 gradients in such parts miss a sixtieth of what 50 in one part do.
ENDS = (0.0, 1e-4, 1e-3, 1e-2, 0.1, 0.3, 0.5, 0.75, 1.0)
# The steps of a part; the second where a first walk misses too much.
STEPS, MORE_STEPS = 6, 24
# What a row's sum lacks, as a share of its columns' sizes together: above the first it is walked
# once more, above the second it is not believed.
MUCH_MISSED, MOST_MISSED = 0.03, 0.1
# Of the scores that the sum is compared with.
ROUNDING = 1e-4
# Of numbers that are computed at a time: rows, by steps, by the numbers of a row.
MAX_NUMBERS = 1 << 23
# Of float32: beyond it, exp is not finite.
MAX_EXPONENT = 80.0
_AREAS = (
    ("top left", "top", "top right"),
    ("left", "centre", "right"),
    ("bottom left", "bottom", "bottom right"),
)
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Attribution:
    """The contribution of each column to each row's prediction, from the baseline's.

    `values` (rows, columns): in units of the target, or of the score of the class. `columns` are
    those of the schema, less `left_out`, which this model does not let be told apart; an image is
    nine of them, by thirds of its height and width, such as `image top left`.
    `errors` (rows,): what the sum of a row lacks of the difference between row and baseline;
    `believed` (rows,): whether that is little beside what the columns move.
    """

    columns: list[str]
    values: Floats
    errors: Floats
    left_out: list[str]
    believed: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class _Codes:
    """Numbers that a model makes of codes of some columns: of rows, and of one without any."""

    kind: str
    columns: list[int]
    values: Tensor
    nothing: Tensor


def attribute(predictor: Predictor, arrays: dict[str, Array], codes: Array) -> Attribution:
    """Explain output `codes` (rows,) of the model for encoded rows: the class, 0 of a value.

    Categories and words are codes, along which no line leads: they are explained where the model
    turns them into numbers, if it passes these through a layer `ByColumn`, as `Flatten` does. What
    passes none has the row's own in the baseline, and is left out.
    """
    model, schema = predictor.model, predictor.schema
    batch = to_batch(arrays, predictor.statistics)
    kinds = [kind for kind in batch if kind not in CODED]
    names = [name for kind in kinds for name in _names(schema, kind)]
    names += [
        name for each in _find_codes(model, take(batch, slice(1))) for name in _of(each, schema)
    ]
    places_of: dict[str, list[int]] = {}
    for place, name in enumerate(names):
        places_of.setdefault(name, []).append(place)
    columns = [c for f in schema.features for c in _columns(f) if c in places_of]
    places = [places_of[column] for column in columns]
    left_out = [f.name for f in schema.features if _columns(f)[0] not in places_of]
    if not names:
        # Of codes alone that pass no layer.
        return Attribution(
            [],
            np.zeros((len(codes), 0)),
            np.zeros(len(codes)),
            left_out,
            np.ones(len(codes), np.bool_),
        )

    scale = predictor.statistics.target

    def explain(batch: Batch, wanted: Tensor, steps: int) -> tuple[Floats, Floats]:
        flat, error = _integrate(model, batch, kinds, wanted, steps, scale)
        return np.stack([flat[:, place].sum(axis=1) for place in places], axis=1), error

    totals, errors = [], []
    at_a_time = max(1, MAX_NUMBERS // (len(names) * MORE_STEPS))
    for start in range(0, len(codes), at_a_time):
        rows = slice(start, start + at_a_time)
        wanted = torch.from_numpy(np.array(codes[rows], np.int64))
        total, error = explain(take(batch, rows), wanted, STEPS)
        (far,) = np.nonzero(error > MUCH_MISSED * np.abs(total).sum(axis=1) + ROUNDING)
        if len(far):
            some = torch.from_numpy(far)
            again = take(take(batch, rows), some)
            total[far], error[far] = explain(again, wanted[some], MORE_STEPS)
        totals.append(total)
        errors.append(error)
    values, lacking = np.concatenate(totals), np.concatenate(errors)
    believed = lacking <= MOST_MISSED * np.abs(values).sum(axis=1) + ROUNDING
    unit = _unit(scale)
    return Attribution(columns, values * unit, lacking * unit, left_out, believed)


def _unit(scale: Moments | None) -> float:
    """The units of the target that 1 of what is explained is."""
    if scale is None:
        return 1.0
    return scale.deviation if scale.transform is None else math.exp(scale.mean)


def _as_value(scores: Tensor, scale: Moments | None) -> Tensor:
    """The scores; where the target is transformed, the value plus 1, in `_unit`.

    Their differences are those of predictions.
    """
    if scale is None or scale.transform is None:
        return scores
    return (scores * scale.deviation).clamp(max=MAX_EXPONENT).exp()


def say_doubts(rows: int, doubted: int, left_out: list[str], without: str) -> list[str]:
    """Say which rows and columns have no explanation; `without` begins the line of the rows."""
    lines = []
    if doubted:
        lines.append(
            f"{without} {doubted:,} of {rows:,} rows: what their columns add up to misses the "
            f"whole by more than {MOST_MISSED:.0%} of what they move, and is not to be believed"
        )
    if left_out:
        names = ", ".join(f"'{name}'" for name in left_out)
        lines.append(f"not explained, since the model has no layer ByColumn for them: {names}")
    return lines


def _integrate(
    model: nn.Module,
    batch: Batch,
    kinds: list[str],
    wanted: Tensor,
    steps: int,
    scale: Moments | None,
) -> tuple[Floats, Floats]:
    """Attributions (rows, numbers), of `kinds` and then of codes, and what their sums lack (rows,).

    The line is walked from each of `ENDS`, shares of its length, to the next by itself, each part
    in `steps`.
    """
    # It imports matplotlib: only who explains waits for that.
    from captum.attr import IntegratedGradients

    coded = [kind for kind in batch if kind not in kinds]
    found = _find_codes(model, batch)

    def score(*tensors: Tensor) -> Tensor:
        numbers, rest = tensors[: len(kinds)], tensors[len(kinds) :]
        values = iter(rest[: len(found)])
        by_kind = dict(zip([*kinds, *coded], [*numbers, *rest[len(found) :]], strict=True))

        def replace(_: nn.Module, given: tuple[object, ...], __: Tensor) -> Tensor | None:
            # What a hook returns stands for what the layer returns.
            return next(values) if given[1] in CODED else None

        with _hooked(model, replace):
            scores = _as_value(model({kind: by_kind[kind] for kind in batch}), scale)
        # Of what a model does not look at there is a gradient, too: none is as good as 0.
        return scores + sum(0 * t.flatten(1).sum(1, keepdim=True) for t in tensors[:num_inputs])

    inputs = [*(batch[kind] for kind in kinds), *(each.values for each in found)]
    nothing = [*(torch.zeros_like(batch[kind]) for kind in kinds), *(e.nothing for e in found)]
    num_inputs = len(inputs)
    flat, lacking = torch.zeros(()), torch.zeros(())
    for start, end in pairwise(ENDS):
        line = [
            [torch.lerp(first, last, share) for first, last in zip(nothing, inputs, strict=True)]
            for share in (end, start)
        ]
        with torch.enable_grad():
            parts, missed = IntegratedGradients(score).attribute(
                tuple(line[0]),
                tuple(line[1]),
                target=wanted,
                additional_forward_args=tuple(batch[kind] for kind in coded) or None,
                n_steps=steps,
                return_convergence_delta=True,
            )
        flat = flat + torch.cat([part.detach().flatten(1) for part in parts], dim=1).double()
        lacking = lacking + missed.detach().double()
    return flat.numpy(), lacking.abs().numpy()


def _find_codes(model: nn.Module, batch: Batch) -> list[_Codes]:
    """The numbers that pass the layers `ByColumn` of a model for a batch, in their order."""
    none = {kind: torch.zeros_like(tensor) for kind, tensor in batch.items()}
    of_both: list[list[tuple[str, list[int], Tensor]]] = []
    for each in (batch, none):
        passed: list[tuple[str, list[int], Tensor]] = []

        def note(_: nn.Module, given: tuple[Any, ...], values: Tensor) -> None:
            if given[1] in CODED:
                passed.append((given[1], given[2], values))  # noqa: B023

        with torch.no_grad(), _hooked(model, note):
            model(each)
        of_both.append(passed)
    return [
        _Codes(kind, columns, values, nothing)
        for (kind, columns, values), (_, _, nothing) in zip(*of_both, strict=True)
    ]


@contextmanager
def _hooked(model: nn.Module, hook: Callable[..., Tensor | None]) -> Iterator[None]:
    layers = [module for module in model.modules() if isinstance(module, ByColumn)]
    hooks = [layer.register_forward_hook(hook) for layer in layers]
    try:
        yield
    finally:
        for each in hooks:
            each.remove()


def _of(codes: _Codes, schema: Schema) -> list[str]:
    """The column of each number that a model makes of codes."""
    features: list[Feature] = schema.of_kind(codes.kind)  # type: ignore[arg-type]
    share = codes.values[0].numel() // len(codes.columns)
    return [features[column].name for column in codes.columns for _ in range(share)]


def _columns(feature: Feature) -> list[str]:
    """The names of a feature where predictions are explained: of an image, one for each area."""
    if not feature.is_array:
        return [feature.name]
    return [f"{feature.name} {area}" for row in _AREAS for area in row]


def _names(schema: Schema, kind: str) -> list[str]:
    """The column of each number of a kind, as `encode` lays them out."""
    features: list[Feature] = schema.of_kind(kind)  # type: ignore[arg-type]
    if features[0].is_array:
        return [name for feature in features for name in _pixel_names(feature)]
    values = [f.name for f in features for _ in range(f.width)]
    return values + [f.name for f in features if f.missing]


def _pixel_names(feature: Feature) -> list[str]:
    channels, height, width = feature.shape or []
    return channels * [
        f"{feature.name} {_AREAS[3 * row // height][3 * column // width]}"
        for row in range(height)
        for column in range(width)
    ]
