"""Trainings that are interrupted and resumed: recipes, a model that draws, a run of them."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from stages.model.dropout import Dropout
from stages.train.checkpoints.checkpointer import Checkpointer
from stages.training.device.distributed import World
from stages.training.loop import train
from stages.training.params import TrainParams
from stages.training.state import Result
from tests.support.samples import classification

DATA = classification()
RECIPES = {
    "plateau": {
        "optimizer": {"name": "AdamW", "lr": 0.05},
        "schedule": {"name": "ReduceLROnPlateau", "patience": 1},
        "early_stopping": {"metric": "accuracy", "patience": 3},
    },
    "one cycle": {
        "optimizer": {"name": "SGD", "lr": 0.1, "momentum": 0.9},
        "schedule": {"name": "OneCycleLR", "max_lr": 0.2},
        "clip_norm": 0.5,
    },
    "cosine": {
        "optimizer": {"name": "Adam", "lr": 0.02},
        "schedule": {"name": "CosineAnnealingLR"},
        "ema": 0.9,
        "micro_batch_size": 6,
    },
    "cycles": {
        "optimizer": {"name": "Adam", "lr": 0.02},
        "schedule": {"name": "CyclicLR", "base_lr": 0.001, "step_size_up": 3},
    },
    "line search": {
        "optimizer": {"name": "LBFGS", "lr": 0.5, "max_iter": 3, "line_search_fn": "strong_wolfe"},
        "schedule": {"name": "ExponentialLR", "gamma": 0.9},
        "ema": 0.9,
        "micro_batch_size": 6,
    },
    "half precision": {
        "optimizer": {"name": "SGD", "lr": 0.1, "momentum": 0.9},
        "schedule": {"name": "warmup_cosine"},
        "precision": "fp16",
    },
}


class Drops(nn.Module):
    """Dropout of the zoo, and torch's own, which draws from its global generator.

    And noise from those of Python and NumPy.
    """

    def __init__(self) -> None:
        super().__init__()
        first, last = nn.Linear(4, 16), nn.Linear(16, 3)
        self.layers = nn.Sequential(first, nn.ReLU(), Dropout(0.3), nn.Dropout(0.2), last)

    def forward(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        noise = 0.0
        if self.training:
            # Of an odd number of them each generator keeps one for the next time.
            noise = random.gauss(0, 0.1) + float(np.random.normal(0, 0.1))  # noqa: NPY002
        scores: torch.Tensor = self.layers(batch["numeric"] + noise)
        return scores


def run(params: TrainParams, **hooks: Any) -> Result:
    torch.manual_seed(3)
    return train(Drops(), DATA, params, 7, World(), lambda *_: None, **hooks)


def saver(folder: Path, told: Callable[[], int] = lambda: 0, seconds: float = 0) -> Checkpointer:
    return Checkpointer(folder, World(), told, seconds_between=seconds)
