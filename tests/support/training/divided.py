"""One of several processes that divide the weights, for `device/test_fsdp.py`."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from stages.common.config import ClassSpec
from stages.model.model import make_model
from stages.tensors.batch import Batch
from stages.train.checkpoints.checkpoint import copied, load_state_dict
from stages.train.checkpoints.checkpointer import Checkpointer
from stages.train.checkpoints.sharded_checkpoint import load_part
from stages.training import recipe
from stages.training.data import source as sources
from stages.training.data.batching import epoch_batches
from stages.training.data.source import TensorSource
from stages.training.device import fsdp as sharded
from stages.training.device.distributed import World
from stages.training.loop import train
from stages.training.recipe import load_data
from stages.training.state import Data, Epoch, Result, State
from stages.training.step.divergence import DivergedError
from tests.stages.training.step.test_buffer_snapshot import (
    BATCH,
    NUM_ROWS,
    POISONED,
    learn,
    poisoned,
)
from tests.support.samples import classification, train_params
from tests.support.training.models import DENSE, SPECS, Model, doubled, figures, pixels
from tests.support.training.prepared import SCHEMA, SPEC, STATISTICS

# Six rows and five of a batch are two micro-batches and one; the last batch is of one row.
RECIPE: dict[str, Any] = {
    "epochs": 2,
    "batch_size": 11,
    "micro_batch_size": 5,
    "augment": {"flip": 0.0, "shift": 0, "noise": 0.1},
    "optimizer": {"name": "AdamW", "lr": 0.01},
    "schedule": {"name": "OneCycleLR"},
    "clip_norm": 0.5,
    "clip_value": 0.1,
    "groups": [
        {"match": "*bias", "lr": None, "frozen": True},
        {"match": "o*", "lr": 0.02, "frozen": False},
    ],
    "ema": 0.9,
}
SEED = 9
# Whole blocks are gathered by themselves, and not all processes have rows in the last round.
BLOCK_WEIGHTS, MAX_ROWS = 10, 10


class Normed(nn.Module):
    """Batch norm, which counts beside its weights, and a weight in two places."""

    def __init__(self) -> None:
        super().__init__()
        first = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 4))
        second = nn.Linear(4, 4)
        self.blocks = nn.ModuleList([first, second, nn.Linear(4, 4)])
        self.output = nn.Linear(4, 3)
        second.weight = self.blocks[2].weight  # type: ignore[assignment]

    def forward(self, batch: Batch) -> Tensor:
        """Scores (rows, 3)."""
        values = batch["numeric"]
        for block in self.blocks:
            values = block(values)
        scores: Tensor = self.output(values)
        return scores


def fit(kind: str, world: World, changes: dict[str, Any], **hooks: Any) -> Result:
    """Train a model of the zoo in float64."""
    params = train_params(**RECIPE | changes)
    model = make_model(SPECS[kind], 4).double()
    return train(model, pixels(kind), params, SEED, world, lambda *_: None, **hooks)


def fit_dataset(folder: Path, world: World, changes: dict[str, Any], **hooks: Any) -> Result:
    """Train on the rows of `folder` as a dataset of one's own makes them, in a worker."""
    recipe.PREPARED = folder
    named = ClassSpec.model_validate({"name": "random_erasing", "num_workers": 1})
    data, _ = load_data(SCHEMA, STATISTICS, torch.device("cpu"), dataset=named)
    params = train_params(**RECIPE | changes)
    return train(make_model(SPEC, 4), data, params, SEED, world, lambda *_: None, **hooks)


def go_on(
    run_training: Callable[..., Result], world: World, folder: Path, numbers: Sequence[int]
) -> list[Result]:
    """The result of a training, then of those that go on from its checkpoints of `numbers`."""
    save, kept = Checkpointer(folder, world, lambda: False, seconds_between=0), []
    folder.mkdir(exist_ok=True)

    def keep(state: State) -> None:
        save.steps_until_asked = 1
        save(state)
        save.finish()
        world.barrier()
        kept.append(load_part(folder, world))
        world.barrier()

    results = [run_training(on_step_end=keep)]
    for number in numbers:
        load_state = partial(load_state_dict, kept[number], world)
        results.append(run_training(load_state=load_state))
    return results


def spoil(folder: Path, world: World) -> dict[str, Any] | None:
    """What is gone on from where a byte of the newest checkpoint's last part is another."""
    if world.rank == world.size - 1:
        newest = sorted(folder.glob(f"*-{world.size}of{world.size}-*"))[-1]
        content = bytearray(newest.read_bytes())
        content[len(content) // 2] ^= 1
        newest.write_bytes(content)
    world.barrier()
    return load_part(folder, world)


def both_ways(
    world: World,
    make: Callable[[], nn.Module],
    data: Data,
    on_epoch_end: Callable[[Epoch, nn.Module], None] = lambda *_: None,
    **changes: Any,
) -> list[Result]:
    """Each with a copy of the model, then each with its part of it."""
    found = []
    for parallel in ("ddp", "fsdp"):
        torch.manual_seed(3)
        params = train_params(**RECIPE | {"parallel": parallel, **changes})
        found.append(train(make(), data, params, SEED, world, on_epoch_end))
    return found


def count(world: World) -> list[dict[str, Tensor]]:
    """What the norms of this process have counted when an epoch's validation has seen them."""
    seen: list[dict[str, Tensor]] = []
    # Batch norm wants more than one row at once.
    large = {"batch_size": 20, "micro_batch_size": None}

    def on_epoch_end(_: Epoch, eval_model: nn.Module) -> None:
        seen.append(copied(dict(eval_model.named_buffers())))

    for average in (None, 0.9):
        both_ways(
            world, Normed, classification(40), on_epoch_end, **large | {"ema": average, "epochs": 1}
        )
    return seen


def skip(world: World) -> list[dict[str, Tensor]]:
    """What each way comes to with a batch that is not applied, and without that batch.

    The row that is no number is the first process's, whose counts are everybody's.
    """
    found = []
    for parallel in ("ddp", "fsdp"):
        changes = {"parallel": parallel, "batch_size": BATCH}
        found.append(learn(poisoned(POISONED), None, world=world, **changes))
        found.append(learn(classification(NUM_ROWS), POISONED, world=world, **changes))
    return found


def end(world: World) -> list[str]:
    """How each way tells of a row of the last process that is no number."""
    data, told = classification(12), []
    row = epoch_batches(12, 12, SEED, 1)[0][world.size - 1]
    data.train.batch["numeric"][row, 2] = torch.nan
    for parallel in ("ddp", "fsdp"):
        params = train_params(batch_size=12, parallel=parallel)
        try:
            train(Normed(), data, params, SEED, world, lambda *_: None)
        except DivergedError as error:
            told.append(str(error))
    return told


def main(rank: int, size: int, folder: Path) -> None:
    """Train, and leave in the folder what came of it."""
    dist.init_process_group("gloo", f"file://{folder / 'store'}", rank=rank, world_size=size)
    world = World(rank, size)
    sharded.BLOCK_WEIGHTS, sources.MAX_ROWS = BLOCK_WEIGHTS, MAX_ROWS
    parts: dict[str, Any] = {"parallel": "fsdp"}
    zoo = {kind: fit(kind, world, parts) for kind in DENSE}
    twice = parts | {"objective": {"name": "consistency"}}
    zoo["mlp, called twice"] = fit("mlp", world, twice)
    checkpoints = folder / "checkpoints"
    # In an epoch, before its validation, and after the last of all.
    resumed = go_on(partial(fit, "mlp", world, parts), world, checkpoints, (2, 4, -1))
    spoilt = spoil(checkpoints, world)
    # Its first look at the weights is a validation, and then it trains on.
    bare = partial(fit, "linear", world, parts | {"ema": None})
    judged = go_on(bare, world, folder / "judged", (4,))
    # In an epoch, and before its validation.
    made = partial(fit_dataset, folder / "prepare", world, parts)
    dataset = go_on(made, world, folder / "dataset", (2, 4))
    # Batch norm wants more than one row at once.
    large = {"batch_size": 20, "micro_batch_size": None, "epochs": 3}
    average = {"ema": None, "swa": {"start": 2, "lr": None}}
    wide = doubled(classification(50))
    normed = both_ways(world, lambda: Normed().double(), wide, **large, **average)
    clean = classification(50)
    numbers = clean.train.batch["numeric"].clone()
    numbers[7] = torch.nan
    data = Data(
        TensorSource({"numeric": numbers}, clean.train.target), clean.validation, clean.task
    )
    lost = both_ways(world, partial(Model, 3), data, precision="fp16")
    found = {
        "zoo": list(zoo.values()),
        "resumed": resumed,
        "judged": judged,
        "dataset": dataset,
        "normed": normed,
        "lost": lost,
    }
    told: dict[str, Any] = {
        what: [([figures(epoch) for epoch in result.history], result.weights) for result in results]
        for what, results in found.items()
    }
    told["counted"] = count(world)
    told["skipped"] = skip(world)
    told["ended"] = end(world)
    told["spoilt"] = None if spoilt is None else len(spoilt["history"])
    torch.save(told, folder / f"{rank}.pt")
    dist.destroy_process_group()
