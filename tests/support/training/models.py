"""Models, data and runs of the loop that the tests of training share."""

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from stages.model.model import ModelSpec, make_model
from stages.tensors.batch import Batch
from stages.training.data.source import TensorSource
from stages.training.device.distributed import World
from stages.training.loop import train
from stages.training.params import TrainParams
from stages.training.state import Data, Epoch, Result
from tests.support.huggingface import argument


class Model(nn.Module):
    """Two layers and a norm, smooth everywhere; or one layer."""

    def __init__(self, num_outputs: int, *, hidden: bool = True) -> None:
        super().__init__()
        self.body = (
            nn.Sequential(nn.Linear(4, 6), nn.LayerNorm(6), nn.Tanh()) if hidden else nn.Identity()
        )
        self.output = nn.Linear(6 if hidden else 4, num_outputs)

    def forward(self, batch: Batch) -> Tensor:
        scores: Tensor = self.output(self.body(batch["numeric"]))
        return scores


def model(num_outputs: int = 3, *, hidden: bool = True) -> Model:
    torch.manual_seed(7)
    return Model(num_outputs, hidden=hidden)


def run(
    network: nn.Module,
    data: Data,
    params: TrainParams,
    seed: int = 0,
    on_epoch_end: Callable[[Epoch, nn.Module], None] = lambda _epoch, _model: None,
) -> Result:
    return train(network, data, params, seed, World(), on_epoch_end)


def doubled(data: Data) -> Data:
    """The data in float64, in which a loop can be compared to the last digits but two."""

    def wide(split: TensorSource) -> TensorSource:
        target = split.target.double() if split.target.is_floating_point() else split.target
        return TensorSource({kind: t.double() for kind, t in split.batch.items()}, target)

    return Data(wide(data.train), wide(data.validation), data.task, data.deviation)


def order_of(num_rows: int, seed: int, epoch: int) -> Tensor:
    """The order that the loop promises, from seed and epoch alone."""
    mixed = int(np.random.SeedSequence([seed, epoch]).generate_state(1)[0])
    return torch.randperm(num_rows, generator=torch.Generator().manual_seed(mixed))


DROPPED: dict[str, Any] = {"epochs": 4, "batch_size": 22, "optimizer": {"name": "SGD", "lr": 0.1}}
AVERAGED: dict[str, Any] = {"swa": {"start": 3, "lr": 0.05}}
SPECS = {
    "linear": ModelSpec(name="linear", arguments={}, inputs={"numeric": [36]}, num_outputs=3),
    "mlp": ModelSpec(
        name="mlp",
        arguments={"width": 16, "layers": 2, "dropout": 0.3},
        inputs={"numeric": [36]},
        num_outputs=3,
    ),
    "cnn": ModelSpec(
        name="cnn",
        arguments={"channels": [4, 8], "width": 16, "dropout": 0.3},
        inputs={"image": [1, 6, 6]},
        num_outputs=3,
    ),
    "resnet": ModelSpec(
        name="resnet",
        arguments={"channels": [4, 8], "patch": 1, "dropout": 0.3},
        inputs={"image": [1, 6, 6]},
        num_outputs=3,
    ),
    "tabm": ModelSpec(
        name="tabm",
        arguments={
            "members": 3,
            "width": 8,
            "bins": 4,
            "embedding": 2,
            "dropout": 0.3,
            "line": True,
        },
        inputs={"numeric": [36]},
        num_outputs=3,
    ),
    "mixed": ModelSpec(
        name="mixed",
        arguments={"channels": [4, 8], "width": 8, "dropout": 0.3},
        inputs={"image": [1, 6, 6]},
        num_outputs=3,
    ),
    "realmlp": ModelSpec(
        name="realmlp",
        arguments={"width": 8, "layers": 2, "frequencies": 3, "dropout": 0.3},
        inputs={"numeric": [36]},
        num_outputs=3,
    ),
    "ngrams": ModelSpec(
        name="ngrams", arguments={"pairs": 64}, inputs={"text": [36, 9]}, num_outputs=3
    ),
    "transformer": ModelSpec(
        name="transformer",
        arguments={"width": 8, "layers": 1, "heads": 2, "dropout": 0.3},
        inputs={"text": [36, 9]},
        num_outputs=3,
    ),
    "huggingface": ModelSpec(
        name="huggingface",
        arguments={"config": argument("bert", num_hidden_layers=1), "dropout": 0.3},
        inputs={"text": [36, 9]},
        num_outputs=3,
    ),
}

# Those that take numbers or images, to which noise can be added.
DENSE = {kind: spec for kind, spec in SPECS.items() if "text" not in spec.inputs}


def pixels(kind: str, num_rows: int = 45, dtype: torch.dtype = torch.float64) -> Data:
    """Random images of three classes, as a model of `kind` takes them; as many to validate on."""

    def split(seed: int) -> TensorSource:
        random = torch.Generator().manual_seed(seed)
        images = torch.randn(num_rows, 1, 6, 6, generator=random, dtype=dtype)
        target = torch.randint(3, (num_rows,), generator=random)
        if kind in ("cnn", "mixed", "resnet"):
            return TensorSource({"image": images}, target)
        if kind in ("huggingface", "ngrams", "transformer"):
            codes = (images.flatten(1) * 2 + 4).round().long().clamp(0, 8)
            return TensorSource({"text": codes}, target)
        return TensorSource({"numeric": images.flatten(1)}, target)

    return Data(split(1), split(2), "classification")


class Smooth(nn.Module):
    """A model of one's own that has no kink."""

    def __init__(self) -> None:
        super().__init__()
        first, second, last = nn.Linear(36, 16), nn.Linear(16, 8), nn.Linear(8, 3)
        self.layers = nn.Sequential(first, nn.GELU(), nn.LayerNorm(16), second, nn.Tanh(), last)

    def forward(self, batch: Batch) -> Tensor:
        scores: Tensor = self.layers(batch["numeric"])
        return scores


class Draws(nn.Module):
    """A model of one's own that draws from all global generators, and keeps what it drew."""

    def __init__(self) -> None:
        super().__init__()
        self.output = nn.Linear(36, 3)
        self.drawn: list[float] = []

    def forward(self, batch: Batch) -> Tensor:
        values = batch["numeric"]
        if self.training:
            noise = [random.gauss(0, 0.1), float(np.random.normal(0, 0.1))]  # noqa: NPY002
            self.drawn += [*noise, torch.rand(()).item()]
            values = F.dropout(values, 0.2) + sum(noise)
        scores: Tensor = self.output(values)
        return scores


OWN: dict[str, type[nn.Module]] = {"smooth": Smooth, "draws": Draws}


def named(kind: str) -> nn.Module:
    """A model of the zoo or of `OWN`, with the same weights each time."""
    if kind in SPECS:
        return make_model(SPECS[kind], seed=4)
    torch.manual_seed(4)
    return OWN[kind]()


def figures(epoch: Epoch) -> dict[str, float]:
    """All numbers of an epoch by name, with those that the objective logs."""
    return {name: value for name, value in vars(epoch).items() if name != "logged"} | epoch.logged


def weights_of(network: nn.Module) -> dict[str, Tensor]:
    return {name: weight.detach().clone() for name, weight in network.state_dict().items()}


def assert_same(ours: dict[str, Tensor], theirs: dict[str, Tensor], tolerance: float) -> None:
    assert sorted(ours) == sorted(theirs)
    for name, weight in ours.items():
        torch.testing.assert_close(weight, theirs[name], rtol=tolerance, atol=tolerance)
