"""A module with its weights from `model.json`: the one place that loads a model of the zoo.

model = load_model(Path("data/train"))
"""

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel
from safetensors.torch import load_file, save
from torch import Tensor, nn

from stages.common.config import ClassSpec, validate
from stages.common.errors import Problem, UserError, shorten, wrong_name
from stages.common.extras import check_extra
from stages.common.files import read_json, write_json
from stages.common.user_code import own_errors, require
from stages.features.schema import Record, Schema
from stages.model.ensemble import Ensemble

ZOO = Path("stages/zoo/models")
# The attribute of a weight that says that it comes from a file.
PRETRAINED = "is_pretrained"
# In the folder of build: all tensors of the file of `build.pretrained`; without one, none.
PRETRAINED_FILE = "pretrained.safetensors"


class Part(Record):
    """A model among those of which another is the mean; `weight` says how much it counts."""

    arguments: dict[str, Any]
    weight: float


class ModelSpec(Record):
    """The content of `model.json`: enough to make the module.

    `inputs`: the shape of each kind of tensor in a batch, without rows (see Schema.inputs).
    `parts`: the architectures of which it is the weighted mean, those of an ensemble; `arguments`
    are then those of the first. `members`: it is the mean of so many such models, those of folds.
    """

    name: str
    arguments: dict[str, Any]
    inputs: dict[str, list[int]]
    num_outputs: int
    parts: Sequence[Part] = ()
    members: int = 1


def make_spec(model: ClassSpec, schema: Schema) -> ModelSpec:
    """The spec of a named model for the data that `schema` describes, all arguments spelt out.

    Raises UserError for a name without a file in the zoo and for arguments that it doesn't take.
    """
    names = sorted(path.stem for path in ZOO.glob("[!_]*.py"))
    if model.name not in names:
        message = f"there is no model '{model.name}' in {ZOO}"
        raise UserError(wrong_name(message, model.name, names, "build.model.name"))
    arguments = validate(arguments_class(model.name), model.arguments, at="build.model")
    return ModelSpec(
        name=model.name,
        arguments=arguments.model_dump(),
        inputs=schema.inputs(),
        num_outputs=schema.num_outputs(),
    )


def read_folder_weights(spec: ModelSpec, folder: Path) -> dict[str, Tensor]:
    """The weights in the folder of `build.pretrained`, by the names that they have in the model.

    Raises UserError where they can't be read.
    """
    module = _zoo_module(spec.name)
    arguments = module.Arguments.model_validate(spec.arguments)
    with own_errors(f"the weights in {folder} can't be read"):
        weights: dict[str, Tensor] = module.read_weights(folder, arguments)
    return weights


def check_said(model: ClassSpec) -> None:
    """Raise UserError for an architecture of `params.yaml` that its model does not know."""
    config = model.arguments.get("config")
    if isinstance(config, dict) and (check := getattr(_zoo_module(model.name), "check_said", None)):
        _check_libraries(model.name)
        try:
            check(config)
        except UserError as error:
            at = "build.model.config"
            found = (p if str(p.key).startswith(at) else replace(p, key=at) for p in error.problems)
            raise UserError(*found) from None


def _check_libraries(name: str) -> None:
    libraries = getattr(_zoo_module(name), "LIBRARIES", {})
    check_extra(f"the model '{name}'", libraries, "build.model.name")


def arguments_class(name: str) -> type[BaseModel]:
    """The typed arguments of a model of the zoo."""
    arguments: type[BaseModel] = _zoo_module(name).Arguments
    return arguments


def make_model(spec: ModelSpec, seed: int) -> nn.Module:
    """The module, its weights drawn from `seed`. Raises UserError when data and model don't fit.

    It takes a batch, a dict of tensors by kind with rows first, and returns scores
    (rows, num_outputs).
    """
    module = _zoo_module(spec.name)
    _check_libraries(spec.name)
    parts = [part.arguments for part in spec.parts] or [spec.arguments]
    arguments = [module.Arguments.model_validate(each) for each in parts]

    def draw() -> nn.Module:
        models: list[nn.Module] = [
            module.Model(each, spec.inputs, spec.num_outputs) for each in arguments
        ]
        if not spec.parts:
            return models[0]
        return Ensemble(models, spec.num_outputs, [part.weight for part in spec.parts])

    shown = shorten(", ".join(f"{name} {value}" for name, value in spec.arguments.items()))
    what = f"the model '{spec.name}' can't be made" + (f" with {shown}" if shown else "")
    try:
        with torch.random.fork_rng(devices=[]), own_errors(what, module.Model.__init__):
            # `torch.manual_seed` takes as long as all weights where there is no GPU: it notes each
            # call for one that may come.
            torch.default_generator.manual_seed(seed)
            if torch.accelerator.is_available():
                torch.manual_seed(seed)
            models = [draw() for _ in range(spec.members)]
    except (MemoryError, RuntimeError) as error:
        message = f"{what}: {error or 'memory is full'}"
        raise UserError(Problem(message, key="build.model", value=spec.name)) from error
    return models[0] if spec.members == 1 else Ensemble(models, spec.num_outputs)


def _zoo_module(name: str) -> Any:
    with own_errors(f"the model '{name}' can't be loaded"):
        module = importlib.import_module(f"stages.zoo.models.{name}")
    require(module, f"the model '{name}'", Arguments=BaseModel, Model=nn.Module)
    return module


@torch.no_grad()
def take_pretrained(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Put each of `tensors` in the place of the weight or buffer that has its name and its form.

    A weight so taken is marked: what a model computes from rows before the first step
    (`fit_model`) leaves it as it is.
    """
    for name, own in model.state_dict(keep_vars=True).items():
        if name in tensors and fits(tensors[name], own):
            own.copy_(tensors[name])
            setattr(own, PRETRAINED, True)


def fits(tensor: Tensor, own: Tensor) -> bool:
    """Check whether `tensor` can stand for `own`: the same shape, and both of fractions or not."""
    same_kind = tensor.is_floating_point() == own.is_floating_point()
    return tensor.shape == own.shape and same_kind


def save_model(folder: Path, spec: ModelSpec, weights: dict[str, Tensor], file: str) -> None:
    """Write `model.json` and the weights as safetensors, without metadata: stable bytes."""
    write_json(folder / "model.json", spec.model_dump(exclude_defaults=True))
    flat = {name: weight.detach().cpu().contiguous() for name, weight in weights.items()}
    (folder / file).write_bytes(save(flat))


def read_spec(folder: Path) -> ModelSpec:
    """`model.json` in `folder`."""
    return ModelSpec.model_validate(read_json(folder / "model.json"))


def load_model(folder: Path, file: str = "model.safetensors") -> nn.Module:
    """The module saved in `folder` with its weights, in evaluation mode, on the CPU."""
    model = make_model(read_spec(folder), seed=0)
    model.load_state_dict(load_file(folder / file))
    return model.eval()
