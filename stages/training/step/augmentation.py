"""Rows that are varied anew whenever they are learned from: `train.augment`.

What is drawn for a row follows from seed, epoch, step and its place in the whole batch, as for
dropout; the number of processes and the steps before change nothing.
"""

from collections.abc import Callable

from stages.common.errors import Problem, UserError
from stages.model.dropout import DropoutRng
from stages.tensors.batch import Batch
from stages.training.compatibility import check_images
from stages.training.params import Augment
from stages.training.step.image_variation import colour, crop_and_turn, cutout, flip, shift

AT = "train.augment"
NOISY = ("numeric", "image")


def make_augment(
    params: Augment | None, sample: Batch, dropout_rng: DropoutRng
) -> Callable[[Batch], Batch] | None:
    """A function that varies a batch; None: nothing does. `sample` is any batch of the features.

    Raises UserError for what the features can't have done to them.
    """
    if params is None:
        return None
    image = sample.get("image")
    problems = check_images("auto", params) if image is None else []
    if image is not None and params.shift >= min(image.shape[-2:]):
        sides = " x ".join(map(str, image.shape[-2:]))
        message = f"the images have {sides} pixels: a shift must be smaller"
        problems.append(Problem(message, f"{AT}.shift", str(params.shift)))
    if params.noise and not any(kind in sample for kind in NOISY):
        message = "there are no numeric columns and no images to add noise to"
        problems.append(Problem(message, f"{AT}.noise", f"{params.noise:g}", ("0",)))
    if problems:
        raise UserError(*problems)

    def augment(batch: Batch) -> Batch:
        varied = dict(batch)
        if params.flip:
            varied["image"] = flip(varied["image"], params.flip, dropout_rng)
        if params.crop or params.turn:
            varied["image"] = crop_and_turn(varied["image"], params.crop, params.turn, dropout_rng)
        if params.shift:
            varied["image"] = shift(varied["image"], params.shift, dropout_rng)
        if params.colour:
            varied["image"] = colour(varied["image"], params.colour, dropout_rng)
        if params.cutout:
            varied["image"] = cutout(varied["image"], params.cutout, dropout_rng)
        if params.noise:
            for kind in NOISY:
                if kind in varied:
                    noise = dropout_rng.draw_normal(varied[kind], *varied[kind].shape[1:])
                    varied[kind] = varied[kind] + params.noise * noise
        return varied

    return augment
