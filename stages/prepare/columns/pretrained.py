"""Columns prepared for a model that others have trained (`prepare.pretrained`)."""

from pathlib import Path
from typing import Any

from stages.common.errors import Problem, UserError
from stages.features.model_folder import KEY, TOKENIZER, need_scale
from stages.features.schema import Scale, Schema
from stages.features.words.tokens import find_tokenizer
from stages.prepare.params import PrepareParams

NORMALIZE = "prepare.normalize"


def with_pretrained(schema: Schema, params: PrepareParams) -> Schema:
    """`schema` with the tokenizer of texts and the scale of images, where they are given.

    Raises UserError where the folder has none that these columns need.
    """
    updates: dict[str, dict[str, Any]] = {"text": {}, "image": {}}
    kinds = {feature.kind for feature in schema.features}
    if params.pretrained is not None:
        folder = Path(params.pretrained)
        if not kinds & set(updates):
            message = "there is no text and no image that the model in the folder could be given"
            raise UserError(Problem(message, KEY, params.pretrained, ("null",)))
        if "text" in kinds and ("image" not in kinds or (folder / TOKENIZER).exists()):
            content, number = find_tokenizer(folder)
            updates["text"] = {"tokenizer": content, "num_tokens": number}
    scale = _find_scale(schema, params)
    updates["image"] = {} if scale is None else {"scale": scale}
    features = [f.model_copy(update=updates.get(f.kind, {})) for f in schema.features]
    return schema.model_copy(update={"features": features})


def _find_scale(schema: Schema, params: PrepareParams) -> Scale | None:
    """The scale of the images, if one is given. Raises UserError where it is not theirs."""
    images = schema.of_kind("image")
    if not images and params.normalize is not None:
        message = "there are no images to normalize"
        raise UserError(Problem(message, NORMALIZE, allowed=("null",)))
    if not images or (params.normalize is None and params.pretrained is None):
        return None
    num_channels = (images[0].shape or [1])[0]
    if params.normalize is None:
        return need_scale(Path(str(params.pretrained)), num_channels)
    for name, numbers in params.normalize.model_dump().items():
        if len(numbers) != num_channels:
            message = f"images of {num_channels} channels take as many numbers, not {len(numbers)}"
            raise UserError(Problem(message, f"{NORMALIZE}.{name}", str(numbers)))
    return Scale(**params.normalize.model_dump(), said=True)
