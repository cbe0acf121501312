"""Datasets of one's own, by name: the one place that loads a file of `stages/zoo/datasets`."""

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, Field, create_model
from torch.utils.data import Dataset, default_collate

from stages.common.config import ClassSpec, validate
from stages.common.errors import Problem, UserError, wrong_name
from stages.common.user_code import own_errors, problem_of, require
from stages.tensors.rows import Rows

DATASETS = Path("stages/zoo/datasets")
AT = "train.dataset"

NumWorkers = Annotated[int, Field(ge=0, le=1024)]
Collate = Callable[[list[Any]], Any]


def dataset_names() -> list[str]:
    """The names that `train.dataset` may have."""
    return sorted(path.stem for path in DATASETS.glob("[!_]*.py"))


def dataset_arguments(name: str) -> type[BaseModel]:
    """The arguments of a dataset: those of its file, and the number of processes that read it.

    With no workers rows are read between the steps, by the process that trains.
    """
    own: type[BaseModel] = _zoo_module(name).Arguments
    return create_model(name, __base__=own, __doc__=own.__doc__, num_workers=(NumWorkers, 0))


def check_dataset(named: ClassSpec) -> BaseModel:
    """The arguments of a dataset, all spelt out. Raises UserError with what is wrong."""
    names = dataset_names()
    if named.name not in names:
        message = f"there is no dataset '{named.name}' in {DATASETS}"
        raise UserError(wrong_name(message, named.name, names, f"{AT}.name"))
    return validate(dataset_arguments(named.name), named.arguments, at=AT)


def make_dataset(named: ClassSpec, rows: Rows, *, train: bool) -> tuple[Dataset[Any], Collate]:
    """The dataset of a split, and what makes a batch of its rows.

    Raises UserError where it can't be made of these rows.
    """
    module, arguments = _zoo_module(named.name), check_dataset(named)
    with own_errors(f"the dataset '{named.name}' can't be made", module.Dataset.__init__):
        made: Dataset[Any] = module.Dataset(arguments, rows, train=train)
    size = len(made) if hasattr(made, "__len__") else len(rows)
    if size != len(rows):
        message = f"the dataset '{named.name}' has {size:,} rows of a split of {len(rows):,}"
        message += ": it must give one for each"
        raise problem_of(message, module.Dataset, Problem(message, AT, named.name))
    return made, getattr(module, "collate_fn", default_collate)


def _zoo_module(name: str) -> Any:
    with own_errors(f"the dataset '{name}' can't be loaded"):
        module = importlib.import_module(f"stages.zoo.datasets.{name}")
    require(module, f"the dataset '{name}'", Arguments=BaseModel, Dataset=object)
    return module
