"""The architecture that a folder of `build.pretrained` says, for `model.json`.

A folder of Hugging Face's has it in `config.json`. One with the `model.json` and the weights of a
model trained here is a folder, too: a model that starts from it begins where that one ended.
"""

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from stages.common.config import ClassSpec
from stages.common.errors import Problem, UserError
from stages.features.model_folder import read_object
from stages.model.model import ModelSpec, read_folder_weights

KEY = "build.pretrained"
CONFIG, OWN, WEIGHTS = "config.json", "model.json", "model.safetensors"
INDEX = f"{WEIGHTS}.index.json"
ADAPTER = "adapter_config.json"
NAME = "huggingface"
# Of config.json: what says nothing of the architecture, such as the names of other classes.
UNUSED = (
    *("_name_or_path", "architectures", "finetuning_task", "id2label", "label2id"),
    *("problem_type", "transformers_version"),
)


def fill_arguments(model: ClassSpec, folder: Path) -> ClassSpec:
    """`model` with the arguments that the folder says, those given first.

    Raises UserError for a model that starts from no folder, and for a folder without what it needs.
    """
    if model.name != NAME:
        message = (
            f"{folder} is a folder, and the model '{model.name}' starts from a file of weights"
        )
        raise UserError(Problem(message, KEY, str(folder)))
    if (folder / ADAPTER).exists():
        message = f"{folder} has {ADAPTER}: weights beside those of another model, which it names"
        raise UserError(Problem(f"{message}; save both as one model", KEY, str(folder)))
    said = _read_own(folder) if (folder / OWN).exists() else _read_config(folder)
    given = {name: value for name, value in model.arguments.items() if value is not None}
    return ClassSpec(name=model.name, **{**said, **given})


def read_weights(spec: ModelSpec, folder: Path) -> dict[str, Tensor]:
    """The weights in the folder, by the names that they have in the model."""
    if (folder / OWN).exists():
        try:
            return load((folder / WEIGHTS).read_bytes())
        except (OSError, SafetensorError) as error:
            message = f"{folder / WEIGHTS} can't be read as safetensors: {error}"
            raise UserError(Problem(message, KEY, str(folder))) from None
    return read_folder_weights(spec, folder)


def _read_own(folder: Path) -> dict[str, Any]:
    """The arguments of a model trained here. Raises UserError for another one."""
    tree = read_object(folder / OWN, KEY)
    _list_weights(folder)
    if tree.get("name") != NAME:
        message = f"{folder} holds a model '{tree.get('name')}', and build.model is {NAME}"
        raise UserError(Problem(message, KEY, str(folder)))
    arguments = tree.get("arguments")
    if not isinstance(arguments, dict) or not isinstance(arguments.get("config"), dict):
        message = f"{folder / OWN} has no 'arguments' with the 'config' of the model"
        raise UserError(Problem(message, KEY, str(folder)))
    return {name: arguments.get(name) for name in ("config", "pool")}


def _read_config(folder: Path) -> dict[str, Any]:
    """The architecture, and whether the file has weights for the model's own pooled output."""
    config = read_object(folder / CONFIG, KEY)
    if "auto_map" in config:
        message = f"the model in {folder} is code of its own, which is not run"
        raise UserError(Problem(message, KEY, str(folder)))
    has_own = any("pooler." in name for name in _list_weights(folder))
    used = {key: value for key, value in config.items() if key not in UNUSED}
    return {"config": used, "pool": "own" if has_own else None}


def _list_weights(folder: Path) -> list[str]:
    """The names of all weights. Raises UserError where no file of safetensors has them."""
    if (folder / INDEX).exists():
        found = read_object(folder / INDEX, KEY).get("weight_map")
        if not isinstance(found, dict):
            message = f"{folder / INDEX} has no 'weight_map' of weights and their files"
            raise UserError(Problem(message, KEY, str(folder)))
        return list(found)
    try:
        with (folder / WEIGHTS).open("rb") as file:
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        if not isinstance(header, dict):
            raise ValueError
        return list(header)
    except (OSError, ValueError, OverflowError, MemoryError):
        others = sorted(each.name for each in folder.glob("*.bin"))
        message = f"{folder} has no {WEIGHTS}"
        if (folder / WEIGHTS).exists():
            message = f"{folder / WEIGHTS} can't be read as safetensors"
        elif others:
            message += (
                f": {others[0]} is a pickle, which may run code when it is read. Where you trust "
                f"it: AutoModel.from_pretrained('{folder}').save_pretrained('{folder}')"
            )
        raise UserError(Problem(message, KEY, str(folder))) from None
