"""Files of a folder of Hugging Face's that say how rows are prepared for its model.

    data/raw/bert/tokenizer.json               how texts are cut into tokens
    data/raw/vit/preprocessor_config.json      mean and deviation of images

Prepare reads both (`prepare.pretrained`); they travel in `schema.json` from then on.
"""

import json
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from stages.common.config import validate
from stages.common.errors import Problem, UserError
from stages.features.schema import Scale

KEY = "prepare.pretrained"
TOKENIZER = "tokenizer.json"
# The second one holds the first under a key, beside what other kinds of data need.
PREPROCESSORS = ("preprocessor_config.json", "processor_config.json")
INSIDE = "image_processor"
BYTE = 255.0


def find_preprocessor(folder: Path) -> Path | None:
    """The file that says the scale of images; None: the model takes none, or the file lacks."""
    return next((folder / name for name in PREPROCESSORS if (folder / name).exists()), None)


def need_scale(folder: Path, num_channels: int) -> Scale:
    """The scale that `read_scale` finds. Raises UserError where it finds none."""
    scale = read_scale(folder, num_channels)
    if scale is None:
        file = find_preprocessor(folder)
        message = f"{folder} has no {PREPROCESSORS[0]}, which says the scale of the model's images"
        if file is not None:
            message = f"{file} has no image_mean and image_std"
        raise UserError(Problem(f"{message}; say it in prepare.normalize", KEY, str(folder)))
    return scale


def read_scale(folder: Path, num_channels: int) -> Scale | None:
    """The scale of images of a model in a folder, as shares of the largest value.

    None: no file there says it. Raises UserError for what is not done here, and for other images.
    """
    file = find_preprocessor(folder)
    if file is None:
        return None
    tree = read_object(file)
    at = INSIDE if INSIDE in tree else ""
    said = validate(Preprocessor, tree[INSIDE] if at else tree, at, str(file))
    for name in ("do_flip_channel_order", "rescale_offset"):
        if getattr(said, name):
            message = f"{file} says '{name}: true', and images are not prepared so here"
            raise UserError(Problem(message, KEY, str(folder)))
    mean, std = said.image_mean, said.image_std
    if not said.do_normalize:
        mean, std = [0.0] * num_channels, [1.0] * num_channels
    if mean is None or std is None:
        return None
    if not len(mean) == len(std) == num_channels:
        message = (
            f"the model in {folder} takes images of {len(mean)} channels, not {num_channels}"
            if len(mean) == len(std)
            else f"{file} has {len(mean)} numbers in image_mean and {len(std)} in image_std"
        )
        raise UserError(Problem(message, KEY, str(folder)))
    # What the pixels of a file are multiplied by first; without it the numbers are in pixels.
    unit = (said.rescale_factor if said.do_rescale else 1.0) * BYTE
    return Scale(mean=[m / unit for m in mean], std=[s / unit for s in std])


def read_object(file: Path, key: str = KEY) -> dict[str, Any]:
    """An object of JSON. Raises UserError where the file holds none."""
    text = read_text(file, key)
    try:
        tree = json.loads(text)
    except ValueError as error:
        raise UserError(Problem(f"{file} is no JSON: {error}", key, str(file.parent))) from None
    if not isinstance(tree, dict):
        raise UserError(Problem(f"{file} holds no object of JSON", key, str(file.parent)))
    return tree


def read_text(file: Path, key: str = KEY) -> str:
    """A file's text. Raises UserError where there is none."""
    try:
        return file.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        lacks = f"{file.parent} has no {file.name}"
        if not file.parent.is_dir():
            lacks = f"{file.parent} is no folder"
        hint = ""
        if file.name == TOKENIZER:
            hint = (
                ", which is the whole tokenizer; of an older model transformers makes it: "
                f"AutoTokenizer.from_pretrained('{file.parent}').save_pretrained(…)"
            )
        raise UserError(Problem(f"{lacks}{hint}", key, str(file.parent))) from None
    except UnicodeDecodeError:
        raise UserError(Problem(f"{file} is no text", key, str(file.parent))) from None


class Preprocessor(BaseModel):
    """The scale that a model's images are brought to, in the keys that transformers writes."""

    model_config = ConfigDict(extra="ignore", strict=True, frozen=True, allow_inf_nan=False)

    do_normalize: bool = True
    image_mean: Annotated[list[float], Field(min_length=1)] | None = None
    image_std: Annotated[list[Annotated[float, Field(gt=0)]], Field(min_length=1)] | None = None
    do_rescale: bool = True
    rescale_factor: Annotated[float, Field(gt=0)] = 1 / BYTE
    do_flip_channel_order: bool | None = None
    rescale_offset: bool | None = None
