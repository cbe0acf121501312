"""A project to advise on, and the rows that it is trained on."""

import contextlib

import torch

from stages.features.schema import read_schema
from stages.tools.advise.measure.rows import Pool, read_pool
from stages.training.recipe import PREPARED
from tests.conftest import Project

CHANGES = {
    "build.model": {"name": "mlp", "width": 8},
    "train.epochs": 3,
    "prepare.key": None,
    "prepare.columns": {},
    "evaluate.metrics": ["accuracy"],
}


def pool_of(project: Project) -> Pool:
    with contextlib.chdir(project.path):
        return read_pool(read_schema(PREPARED), 0, torch.device("cpu"))
