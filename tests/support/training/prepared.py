"""A split with an image and a number, as prepare writes it, and a model of it."""

from pathlib import Path

import numpy as np
import torch

from stages.features.schema import Moments, Schema, Statistics, Target
from stages.model.model import ModelSpec

CPU = torch.device("cpu")
IMAGE = [Moments(mean=120.3, deviation=71.7), Moments(mean=99.1, deviation=53.9)]
STATISTICS = Statistics(numeric={}, image=IMAGE, target=None)
SCHEMA = Schema(key=None, features=[], target=Target(name="y", task="classification"))
SHAPES = {"numeric": (5,), "image": (2, 6, 6)}
SPEC = ModelSpec(
    name="mlp",
    arguments={"width": 16, "layers": 1, "dropout": 0.2},
    inputs={kind: list(shape) for kind, shape in SHAPES.items()},
    num_outputs=3,
)


def write_split(folder: Path, num_rows: int) -> None:
    random = np.random.default_rng(num_rows)
    folder.mkdir()
    arrays = {
        "numeric": random.normal(size=(num_rows, *SHAPES["numeric"])).astype(np.float32),
        "image": random.integers(256, size=(num_rows, *SHAPES["image"]), dtype=np.uint8),
        "target": random.integers(3, size=num_rows),
        "key": np.array([f"row {i}" for i in range(num_rows)]),
    }
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
