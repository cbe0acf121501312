"""Which columns moved a prediction: integrated gradients, by column.

M. Sundararajan, A. Taly, Q. Yan, 'Axiomatic Attribution for Deep Networks', ICML 2017, equation 1:
the gradient along the straight line from a baseline row to the row, times their difference. The
baseline is the mean of training for numbers and images, false for truths, and a category that
training has not seen. Of a class, the score is explained that its probability is made from.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from stages.features.schema import CODES, WORDS, Array, Feature, Schema
from stages.model.layers import Flatten
from stages.model.predictor import Predictor
from stages.tensors.batch import Batch, take, to_batch

STEPS = 50
# Of numbers that are computed at a time: rows, by steps, by the numbers of a row.
MAX_NUMBERS = 1 << 23
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
    `errors` (rows,): what the sum of a row lacks of the difference between row and baseline.
    """

    columns: list[str]
    values: Floats
    errors: Floats
    left_out: list[str]


def attribute(predictor: Predictor, arrays: dict[str, Array], codes: Array) -> Attribution:
    """Explain output `codes` (rows,) of the model for encoded rows: the class, 0 of a value.

    Categories and words are codes, along which no line leads: they are explained where the model
    turns them into numbers with a `Flatten` layer. What passes none has the row's own in the
    baseline, and is left out.
    """
    batch = to_batch(arrays, predictor.statistics)
    codes_kinds = [kind for kind in (*CODES, *WORDS) if kind in batch]
    layer = _find_flatten(predictor.model) if codes_kinds else None
    kinds = [kind for kind in batch if kind not in codes_kinds]
    if layer is not None:
        # It lays the codes last.
        kinds = [*layer.dense, *layer.num_codes, *layer.words]
    width = 0 if layer is None else layer.text_width
    names = [name for kind in kinds for name in _names(predictor.schema, kind, width)]
    places_of: dict[str, list[int]] = {}
    for place, name in enumerate(names):
        places_of.setdefault(name, []).append(place)
    columns = [c for f in predictor.schema.features for c in _columns(f) if c in places_of]
    places = [places_of[column] for column in columns]
    left_out = [f.name for f in predictor.schema.features if _columns(f)[0] not in places_of]
    if not names:
        # Of words alone that no `Flatten` takes.
        return Attribution([], np.zeros((len(codes), 0)), np.zeros(len(codes)), left_out)
    totals, errors = [], []
    at_a_time = max(1, MAX_NUMBERS // (len(names) * STEPS))
    for start in range(0, len(codes), at_a_time):
        rows = slice(start, start + at_a_time)
        wanted = torch.from_numpy(np.array(codes[rows], np.int64))
        flat, error = _integrate(predictor.model, take(batch, rows), kinds, layer, wanted)
        totals.append(np.stack([flat[:, place].sum(axis=1) for place in places], axis=1))
        errors.append(error)
    moments = predictor.statistics.target
    unit = 1.0 if moments is None else moments.deviation
    return Attribution(
        columns, np.concatenate(totals) * unit, np.concatenate(errors) * unit, left_out
    )


def _integrate(
    model: nn.Module, batch: Batch, kinds: list[str], layer: Flatten | None, wanted: Tensor
) -> tuple[Floats, Floats]:
    """Attributions (rows, numbers) in the order of `kinds`, and what their sums lack (rows,)."""
    # It imports matplotlib: only who explains waits for that.
    from captum.attr import IntegratedGradients

    def score(*tensors: Tensor) -> Tensor:
        if layer is None:
            by_kind = dict(zip([*kinds, *others], tensors, strict=True))
            scores: Tensor = model({kind: by_kind[kind] for kind in batch})
            return scores
        flat, *rest = tensors
        # What a hook returns stands for what the layer returns.
        hook = layer.register_forward_hook(lambda *_: flat)
        try:
            scores = model(dict(zip(others, rest, strict=True)))
        finally:
            hook.remove()
        return scores

    with torch.enable_grad():
        if layer is None:
            others = [kind for kind in batch if kind not in kinds]
            inputs = [batch[kind] for kind in kinds]
            baselines = [torch.zeros_like(tensor) for tensor in inputs]
        else:
            others = list(batch)
            nothing = {kind: torch.zeros_like(tensor) for kind, tensor in batch.items()}
            inputs, baselines = [layer(batch)], [layer(nothing)]
        found, lacking = IntegratedGradients(score).attribute(
            tuple(inputs),
            tuple(baselines),
            target=wanted,
            additional_forward_args=tuple(batch[kind] for kind in others) or None,
            n_steps=STEPS,
            return_convergence_delta=True,
        )
    flat = torch.cat([part.detach().flatten(1) for part in found], dim=1)
    return flat.double().numpy(), lacking.detach().double().abs().numpy()


def _find_flatten(model: nn.Module) -> Flatten | None:
    return next((module for module in model.modules() if isinstance(module, Flatten)), None)


def _columns(feature: Feature) -> list[str]:
    """The names of a feature where predictions are explained: of an image, one for each area."""
    if not feature.is_array:
        return [feature.name]
    return [f"{feature.name} {area}" for row in _AREAS for area in row]


def _names(schema: Schema, kind: str, text_width: int) -> list[str]:
    """The column of each number of a kind, as `encode` and `Flatten` lay them out."""
    features: list[Feature] = schema.of_kind(kind)  # type: ignore[arg-type]
    if features[0].is_array:
        return [name for feature in features for name in _pixel_names(feature)]
    if kind in CODES:
        return [f.name for f in features for _ in range(len(f.categories or []) + f.missing)]
    if kind in WORDS:
        return [f.name for f in features for _ in range(text_width)]
    values = [f.name for f in features for _ in range(f.width)]
    return values + [f.name for f in features if f.missing]


def _pixel_names(feature: Feature) -> list[str]:
    channels, height, width = feature.shape or []
    return channels * [
        f"{feature.name} {_AREAS[3 * row // height][3 * column // width]}"
        for row in range(height)
        for column in range(width)
    ]
