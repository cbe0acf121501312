"""The start of a training: parameters with tune's best trial on top, the model, the data."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

from stages.common.config import ClassSpec, Overrides, apply_overrides, validate
from stages.common.errors import Problem, UserError, shorten
from stages.features.schema import Moments, Schema, Statistics, load_arrays
from stages.model.model import (
    PRETRAINED,
    PRETRAINED_FILE,
    ModelSpec,
    make_model,
    make_spec,
    read_spec,
    take_pretrained,
)
from stages.tensors.batch import size_on_device
from stages.tensors.rows import open_rows
from stages.training.data.dataloader import load_split
from stages.training.data.folds import Fold, divide, find_groups, join_splits
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
    fold: Fold | None = None,
) -> tuple[Data, str]:
    """The train and validation splits, on the device if they fit; and where they are, in words.

    `num_sharing` processes hold them in the memory of the same device. Where there is a `dataset`
    their rows come from it. With a `fold` both splits are divided anew: it is what is validated on.
    Raises UserError where that can't be done.
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
        [feature.words or [] for feature in schema.of_kind("text")],
        moments.transform,
    )
    if dataset is not None:
        loaded = load_split(dataset, open_rows(PREPARED / "train"), device, train=True)
        judged = load_split(dataset, open_rows(PREPARED / "validation"), device, train=False)
        data = Data(loaded, judged, *target_facts)
        workers = f", {loaded.num_workers} workers" if loaded.num_workers else ""
        return data, f"data by {dataset.name}{workers}"
    arrays = [load_arrays(PREPARED / name) for name in ("train", "validation")]
    mapped = [open_split(split, statistics, device) for split in arrays]
    size = sum(size_on_device(split.features) + split.target.nbytes for split in mapped)
    place, said = choose_place(size, device, num_sharing)
    if fold is not None:
        if place == "mapped":
            message = f"folds hold all rows in memory, and these are too many ({said})"
            raise UserError(Problem(message, "train.folds", str(fold.count), ("null",)))
        weights = [np.array(split["weight"]) for split in arrays if "weight" in split]
        weight = np.concatenate(weights) if weights else None
        rows = join_splits([read_split(split) for split in mapped], weight)
        learned, validated = divide(rows, find_groups(arrays), fold)
        return Data(learned, validated, *target_facts), said
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


def seed_of_member(seed: int, place: int) -> int:
    """The seed of a member of an ensemble: `seed`, the replica's, of the first one.

    Members with the same recipe are then others, as replicas are.
    """
    if place == 0:
        return seed
    return int(np.random.SeedSequence(seed, spawn_key=(place, 2)).generate_state(1)[0])


def seed_of_fold(seed: int, place: int) -> int:
    """The seed of the training of a fold: `seed`, the replica's, of the first one.

    It is the seed of no replica, whose first weights and order would be those of this fold.
    """
    if place == 0:
        return seed
    return int(np.random.SeedSequence(seed, spawn_key=(place, 1)).generate_state(1)[0])


def load_weights(spec: ModelSpec, seed: int, number: int = 0) -> torch.nn.Module:
    """The model with build's weights; with new ones if tune's best trial is another architecture.

    A training other than number 0 has those that build would draw from its seed. Into new ones too
    goes what `build.pretrained` has for this model, by name and form.
    """
    model = make_model(spec, seed)
    if number == 0 and spec == read_spec(BUILT):
        model.load_state_dict(load_file(BUILT / "weights.safetensors"))
    take_pretrained(model, load_file(BUILT / PRETRAINED_FILE))
    return model


def describe_pretrained(model: torch.nn.Module) -> Iterator[str]:
    """Yield how many weights of `model` are pretrained, and which others are drawn, if any is."""
    named = dict(model.named_parameters())
    drawn = [name for name, weight in named.items() if not hasattr(weight, PRETRAINED)]
    if len(drawn) < len(named):
        anew = shorten(", ".join(drawn)) or "none"
        yield f"{len(named) - len(drawn)} of {len(named)} weights are pretrained; anew: {anew}"
