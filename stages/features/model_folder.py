"""Files of a folder of Hugging Face's that say how rows are prepared for its model.

    data/raw/bert/tokenizer.json               how texts are cut into tokens
    data/raw/vit/preprocessor_config.json      mean and deviation of images

Prepare reads both (`prepare.pretrained`); they travel in `schema.json` from then on.
"""

import json
from pathlib import Path
from typing import Any

from stages.common.errors import Problem, UserError
from stages.features.schema import Scale

KEY = "prepare.pretrained"
TOKENIZER = "tokenizer.json"
# The second one holds the first under a key, beside what other kinds of data need.
PREPROCESSORS = ("preprocessor_config.json", "processor_config.json")
BYTE = 255.0


def find_preprocessor(folder: Path) -> Path | None:
    """The file that says the scale of images; None: the model takes none, or the file lacks."""
    return next((folder / name for name in PREPROCESSORS if (folder / name).exists()), None)


def read_scale(folder: Path, num_channels: int) -> Scale:
    """The scale of images of a model in a folder, as shares of the largest value.

    Raises UserError where no file there says it, or for other images.
    """
    file = find_preprocessor(folder)
    if file is None:
        message = f"{folder} has no {PREPROCESSORS[0]}, which says the scale of the model's images"
        raise UserError(Problem(f"{message}; or say it in prepare.normalize", KEY, str(folder)))
    tree = read_object(file)
    tree = tree.get("image_processor", tree)
    mean, std = tree.get("image_mean"), tree.get("image_std")
    if not tree.get("do_normalize", True):
        mean, std = [0.0] * num_channels, [1.0] * num_channels
    if not isinstance(mean, list) or not isinstance(std, list) or not mean or len(mean) != len(std):
        message = f"{file} has no image_mean and image_std, lists of a number for each channel"
        raise UserError(Problem(f"{message}; or say them in prepare.normalize", KEY, str(folder)))
    if len(mean) != num_channels:
        message = f"the model in {folder} takes images of {len(mean)} channels, not {num_channels}"
        raise UserError(Problem(message, KEY, str(folder)))
    # What the pixels of a file are multiplied by first; without it the numbers are in pixels.
    factor = tree.get("rescale_factor", 1 / BYTE) if tree.get("do_rescale", True) else 1.0
    unit = factor * BYTE
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
