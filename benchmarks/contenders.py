"""The trainings that `benchmarks.train` compares: the loop of this project, one by hand, libraries.

Each trains a given model with the same optimizer, clipping, schedule and validation.
"""

import importlib.util
import math
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from stages.model.model import ModelSpec
from stages.train.checkpoints.checkpoint import lock_checkpoints
from stages.train.checkpoints.checkpointer import Checkpointer
from stages.train.checkpoints.signals import stop_signals
from stages.train.fit import call_in_order
from stages.train.logs.progress import follow_steps
from stages.train.logs.tensorboard import open_tensorboard
from stages.training.device.distributed import World
from stages.training.loop import train
from stages.training.params import TrainParams
from stages.training.state import Data, Epoch
from tests.conftest import ROOT

LEARNING_RATE, CLIP = 1e-3, 1.0
# Trains a model in place.
Contender = Callable[[nn.Module, Data, TrainParams], None]


def by_hand(model: nn.Module, data: Data, params: TrainParams) -> None:
    """What an expert would write for this one model: tensors, a permutation, a fused optimizer."""
    ((kind, x),), y = data.train.batch.items(), data.train.target
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, fused=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, params.epochs)
    weights = list(model.parameters())
    loss_of = _loss(data)
    for _ in range(params.epochs):
        model.train()
        total: float | Tensor = 0.0
        for rows in torch.randperm(len(y)).to(y.device).split(params.batch_size):
            optimizer.zero_grad()
            loss = _mean_loss(loss_of, model({kind: x[rows]}), y[rows])
            loss.backward()
            norm = nn.utils.clip_grad_norm_(weights, CLIP)
            if y.is_cuda:
                # As a scaler of gradients does it: the device looks, and nobody waits for it.
                finite = (loss.detach() + norm).isfinite()
                optimizer.found_inf = (~finite).float()  # type: ignore[attr-defined]
                optimizer.step()
                total += torch.where(finite, loss.detach(), 0.0)
                continue
            value = loss.item()
            if math.isfinite(value + norm.item()):
                optimizer.step()
                total += value
        schedule.step()
        _validate(model, data)


def reprise(model: nn.Module, data: Data, params: TrainParams) -> None:
    """The loop with all that the stage does: TensorBoard, checkpoints, early stopping, progress."""
    spec = ModelSpec(name="benchmark", arguments={}, inputs={}, num_outputs=1)
    with _in_new_folder(), lock_checkpoints("benchmark") as folder, stop_signals() as stop_signal:
        save = Checkpointer(folder, World(), stop_signal)
        tell = follow_steps(params, len(data.train), lambda _: math.inf, lambda *_: None)
        with open_tensorboard(spec, params, 0, data.metric) as tensorboard:

            def watch(epoch: Epoch, model: nn.Module) -> None:
                tensorboard.write_epoch(epoch, model)

            train(model, data, params, 0, World(), watch, on_step_end=call_in_order(tell, save))
        save.finish()


def lightning(model: nn.Module, data: Data, params: TrainParams, *, bare: bool) -> None:
    """Lightning's Trainer with its defaults, or with all off that can be off."""
    import lightning as pl

    class Module(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model, self.loss_of = model, _loss(data)

        def training_step(self, batch: list[Tensor], _: int) -> Tensor:
            loss = _mean_loss(self.loss_of, self.model({kind: batch[0]}), batch[1])
            if not bare:
                self.log("train_loss", loss)
            return loss

        def validation_step(self, batch: list[Tensor], _: int) -> None:
            loss = _mean_loss(self.loss_of, self.model({kind: batch[0]}), batch[1])
            self.log("loss", loss)

        def configure_optimizers(self) -> object:
            optimizer = torch.optim.AdamW(self.model.parameters(), lr=LEARNING_RATE, fused=bare)
            schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, params.epochs)
            return [optimizer], [schedule]

    (kind,) = data.train.batch
    off = {"logger": False, "enable_checkpointing": False, "barebones": False}
    with _in_new_folder():
        trainer = pl.Trainer(
            max_epochs=params.epochs,
            accelerator="gpu" if data.train.target.is_cuda else "cpu",
            devices=1,
            gradient_clip_val=CLIP,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            **(off if bare else {}),
        )
        trainer.fit(Module(), *_loaders(data, params))


def accelerate(model: nn.Module, data: Data, params: TrainParams) -> None:
    """Accelerate's loop as its documentation writes it."""
    from accelerate import Accelerator

    accelerator = Accelerator(cpu=not data.train.target.is_cuda)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, fused=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, params.epochs)
    loader, _ = _loaders(data, params)
    model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
    (kind,), loss_of = data.train.batch, _loss(data)
    for _ in range(params.epochs):
        model.train()
        for x, y in loader:
            optimizer.zero_grad()
            loss = _mean_loss(loss_of, model({kind: x}), y)
            accelerator.backward(loss)
            accelerator.clip_grad_norm_(model.parameters(), CLIP)
            optimizer.step()
        schedule.step()
        _validate(model, data)


def ignite(model: nn.Module, data: Data, params: TrainParams) -> None:
    """Ignite's engine around a step by hand."""
    from ignite.engine import Engine, Events

    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, fused=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, params.epochs)
    (kind,), loss_of = data.train.batch, _loss(data)

    def step(_: Engine, batch: list[Tensor]) -> float:
        model.train()
        optimizer.zero_grad()
        x, y = (part.to(data.train.target.device) for part in batch)
        loss = _mean_loss(loss_of, model({kind: x}), y)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        return loss.item()

    def end(_: Engine) -> None:
        schedule.step()
        _validate(model, data)

    engine = Engine(step)
    engine.add_event_handler(Events.EPOCH_COMPLETED, end)
    engine.run(_loaders(data, params)[0], max_epochs=params.epochs)


def _loaders(data: Data, params: TrainParams) -> list[DataLoader[tuple[Tensor, ...]]]:
    splits = (data.train, data.validation)
    # On a GPU they too take the rows there batch by batch, as their documentation has it.
    tensors = [[*split.batch.values(), split.target] for split in splits]
    sets = [TensorDataset(*(values.cpu() for values in split)) for split in tensors]
    return [
        DataLoader(sets[0], batch_size=params.batch_size, shuffle=True),
        DataLoader(sets[1], batch_size=4096),
    ]


def _loss(data: Data) -> nn.Module:
    return nn.MSELoss() if data.task == "regression" else nn.CrossEntropyLoss()


def _mean_loss(loss_of: nn.Module, scores: Tensor, target: Tensor) -> Tensor:
    """The mean loss; of scores by member (rows, members, outputs) that of all members."""
    if scores.ndim == 3:
        target = target.repeat_interleave(scores.shape[1])
        scores = scores.flatten(0, 1)
    loss: Tensor = loss_of(scores.squeeze(1) if target.is_floating_point() else scores, target)
    return loss


@torch.inference_mode()
def _validate(model: nn.Module, data: Data) -> float:
    model.eval()
    y = data.validation.target
    return _mean_loss(_loss(data), model(data.validation.batch), y).item()


@contextmanager
def _in_new_folder() -> Iterator[None]:
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        # Names of the zoo are looked up from here.
        (Path(folder) / "stages").symlink_to(ROOT / "stages")
        os.chdir(folder)
        try:
            yield
        finally:
            os.chdir(before)


def contenders() -> dict[str, Contender]:
    """All that are installed, by name."""
    found: dict[str, Contender] = {"by hand": by_hand, "reprise": reprise}
    if importlib.util.find_spec("lightning"):
        found["lightning"] = lambda *given: lightning(*given, bare=False)
        found["lightning, all off"] = lambda *given: lightning(*given, bare=True)
    peers = {"accelerate": accelerate, "ignite": ignite}
    return found | {name: peer for name, peer in peers.items() if importlib.util.find_spec(name)}
