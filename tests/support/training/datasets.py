"""Datasets of a test's own: their code, and trainings on them."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from stages.common.config import ClassSpec
from stages.features.schema import Schema, Target
from stages.training.device.distributed import World
from stages.training.loop import train
from stages.training.recipe import load_data
from stages.training.state import Data, Result
from tests.support.samples import train_params
from tests.support.training.prepared import STATISTICS

CPU = torch.device("cpu")
SCHEMA = Schema(key=None, features=[], target=Target(name="y", task="classification"))


# What follows the class is the body of `make`.
MINE = """
import os, random
import numpy as np
import torch
from stages.common.config import Config

class Arguments(Config):
    scale: float = 1.0

class Dataset(torch.utils.data.Dataset):
    def __init__(self, arguments, rows, *, train):
        self.scale, self.rows, self.train = arguments.scale, rows, train
        self.made = []

    def __getitem__(self, row):
        self.made.append(row)
        features, target = self.rows.take(row)
"""


PLAIN = "return features, target"
NOISY = """
if self.train:
    drawn = random.gauss(0, 1) + np.random.normal(size=5) + torch.randn(5).double().numpy()
    features["numeric"] += self.scale * torch.from_numpy(drawn).float()
return features, target
"""
# Rows as people may give them too: arrays and plain numbers.
PLAINEST = """
features["numeric"] = self.rows.arrays["numeric"][row]
return features, int(target)
"""


COLLATE = """
def collate_fn(rows):
    features = {k: torch.stack([f[k] for f, _ in rows]) for k in rows[0][0]}
    return features, torch.stack([t for _, t in rows])
"""


Write = Callable[..., None]


class Drops(nn.Module):
    """Draws from torch's global generator in training, as a model of one's own may."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(77, 8), nn.Dropout(0.2), nn.Linear(8, 3))

    def forward(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        flat = torch.cat([batch["numeric"], batch["image"].flatten(1)], dim=1)
        scores: torch.Tensor = self.layers(flat)
        return scores


def load(num_workers: int = 0, **arguments: Any) -> Data:
    named = ClassSpec.model_validate({"name": "mine", "num_workers": num_workers, **arguments})
    data, said = load_data(SCHEMA, STATISTICS, CPU, dataset=named)
    assert said == ("data by mine" if num_workers == 0 else f"data by mine, {num_workers} workers")
    return data


def run(data: Data, epochs: int = 3, **hooks: Any) -> Result:
    params = train_params(epochs=epochs, batch_size=8, optimizer={"name": "AdamW", "lr": 0.01})
    torch.manual_seed(1)
    return train(Drops(), data, params, 5, World(), lambda *_: None, **hooks)


def assert_same(ours: Result, theirs: Result) -> None:
    assert ours.history == theirs.history
    for name, weight in theirs.weights.items():
        assert torch.equal(ours.weights[name], weight), name
