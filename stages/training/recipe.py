"""The start of a training: parameters with tune's best trial on top, the model, the data."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

from stages.common.config import ClassSpec, Overrides, apply_overrides, validate
from stages.features.schema import Moments, Schema, Statistics, load_arrays
from stages.model.model import ModelSpec, make_model, make_spec, read_spec
from stages.tensors.batch import size_on_device
from stages.tensors.rows import open_rows
from stages.training.data.dataloader import load_split
from stages.training.data.memmap import choose_place, open_split, read_split
from stages.training.params import TrainParams
from stages.training.state import Data

PREPARED = Path("data/prepare")
BUILT = Path("data/build")


def override_train(tree: Mapping[str, Any], overrides: Overrides) -> TrainParams:
    """The section `train` with the overrides of `train.*` set. Raises UserError."""
    return validate(TrainParams, apply_overrides(tree, overrides, "train"), at="train")


def override_model(spec: ModelSpec, overrides: Overrides, schema: Schema) -> ModelSpec:
    """`spec` with the overrides of `build.model.*` set. Raises UserError."""
    model = {"name": spec.name, **spec.arguments}
    changed = apply_overrides({"model": model}, overrides, "build")["model"]
    return spec if changed == model else make_spec(ClassSpec(**changed), schema)


def load_data(
    schema: Schema,
    statistics: Statistics,
    device: torch.device,
    num_sharing: int = 1,
    dataset: ClassSpec | None = None,
) -> tuple[Data, str]:
    """The train and validation splits, on the device if they fit; and where they are, in words.

    `num_sharing` processes hold them in the memory of the same device. Where there is a `dataset`
    their rows come from it.
    """
    moments = statistics.target or Moments(mean=0.0, deviation=1.0)
    columns = {
        feature.name: statistics.numeric[feature.name] for feature in schema.of_kind("numeric")
    }
    target_facts = (
        schema.target.task,
        moments.deviation,
        schema.target.classes or (),
        columns,
        moments.mean,
    )
    if dataset is not None:
        learned = load_split(dataset, open_rows(PREPARED / "train"), device, train=True)
        validated = load_split(dataset, open_rows(PREPARED / "validation"), device, train=False)
        data = Data(learned, validated, *target_facts)
        workers = f", {learned.num_workers} workers" if learned.num_workers else ""
        return data, f"data by {dataset.name}{workers}"
    arrays = [load_arrays(PREPARED / name) for name in ("train", "validation")]
    mapped = [open_split(split, statistics, device) for split in arrays]
    size = sum(size_on_device(split.features) + split.target.nbytes for split in mapped)
    place, said = choose_place(size, device, num_sharing)
    train, validation = mapped if place == "mapped" else map(read_split, mapped)
    return Data(train, validation, *target_facts), said


def seed_of(seed: int, replica: int) -> int:
    """The seed of a replica: `seed` itself of the first, 32 bits mixed from both of any other.

    Put into `params.yaml`, it trains the same model as that replica's.
    """
    if replica == 0:
        return seed
    # A spawn key keeps it apart from the seeds that the loop mixes from (seed, epoch).
    return int(np.random.SeedSequence(seed, spawn_key=(replica,)).generate_state(1)[0])


def load_weights(spec: ModelSpec, seed: int, replica: int = 0) -> torch.nn.Module:
    """The model with build's weights; with new ones if tune's best trial is another architecture.

    A replica other than 0 has those that build would draw from its seed.
    """
    model = make_model(spec, seed)
    if replica == 0 and spec == read_spec(BUILT):
        model.load_state_dict(load_file(BUILT / "weights.safetensors"))
    return model
