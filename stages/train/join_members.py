"""The members of an ensemble as one model: its spec, its scores, and how good these are."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch

from stages.features.schema import Array, read_statistics
from stages.model.ensemble import mean_scores
from stages.model.model import ModelSpec, Part
from stages.tensors.target_errors import root_in_units, square_errors
from stages.train.recipe import Recipe
from stages.training.optim.class_weights import weigh_classes
from stages.training.optim.loss import make_loss
from stages.training.params import NUM_CLASSES
from stages.training.recipe import PREPARED
from stages.training.step.loss_of_scores import compute_loss, prepare_scores

# The arrays of the rows that were learned from, by which classes are weighed.
LEARNED = ("target", "weight")


def join_spec(specs: Sequence[ModelSpec], recipe: Recipe) -> ModelSpec:
    """The model that is the weighted mean of those of `specs`; the weights add up to 1."""
    total = math.fsum(recipe.weights)
    parts = [
        Part(arguments=spec.arguments, weight=weight / total)
        for spec, weight in zip(specs, recipe.weights, strict=True)
    ]
    return specs[0].model_copy(update={"parts": parts})


def join_figures(
    arrays: Sequence[Mapping[str, Array]], recipe: Recipe, learned: Mapping[str, Array]
) -> tuple[Array, tuple[float, float]]:
    """The scores (rows, outputs) of the mean on validation rows, then their loss and metric.

    `arrays` are those that each member has written of these rows. The loss is that of
    `params.yaml`, whatever members of their own have learned by.
    """
    each = torch.stack([torch.from_numpy(np.array(rows["scores"])).double() for rows in arrays])
    weights = torch.tensor(recipe.weights, dtype=torch.float64)
    scores = mean_scores(each, weights, math.fsum(recipe.weights))
    target = torch.from_numpy(np.array(arrays[0]["target"]))
    weight = _to_tensor(arrays[0].get("weight"))
    judged = prepare_scores(scores, target if target.is_floating_point() else target.long())
    loss = _loss(judged, target, weight, recipe, learned)
    moments = read_statistics(PREPARED).target
    if moments is not None:
        found = square_errors(judged, target, moments)
    else:
        found = (judged.argmax(dim=1) == target).double()
    value = float((found if weight is None else found * weight).mean())
    if moments is not None:
        value = root_in_units(value, moments)
    return scores.float().numpy(), (loss, value)


def _loss(
    scores: torch.Tensor,
    target: torch.Tensor,
    weight: torch.Tensor | None,
    recipe: Recipe,
    learned: Mapping[str, Array],
) -> float:
    section, known = recipe.train, recipe.schema.target
    classes, class_weights = known.classes or (), None
    if section.class_weights is not None:
        codes = torch.from_numpy(np.array(learned["target"])).long()
        counted = _to_tensor(learned.get("weight"))
        class_weights = weigh_classes(section.class_weights, classes, codes, counted)
    num_classes, by_row = len(classes) or NUM_CLASSES, weight is not None
    loss_fn = make_loss(section, known.task, class_weights, num_classes, by_row=by_row)
    codes = target if target.is_floating_point() else target.long()
    return float(compute_loss(loss_fn, scores, codes, weight))


def _to_tensor(array: Array | None) -> torch.Tensor | None:
    return None if array is None else torch.from_numpy(np.array(array)).double()
