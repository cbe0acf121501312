"""Training side by side with a loop by hand and with other libraries: `python -m benchmarks.train`.

All contenders train the same model from the same weights with the same optimizer, clipping,
schedule, finite check and validation; round by round in turn, in one process with one thread. What
counts are the ratios inside a round. Peers are measured where they are installed
(`pip install -e '.[bench]'`). `--cases`, `--batch` and `--rounds` shorten it; `--processor` counts
what the process used, on a machine with other work the steadier clock. Memory and the time to the
first step: `benchmarks.process`; a GPU: `benchmarks.gpu`.
"""

import argparse
import copy
import importlib.util
import logging
import math
import os
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from stages.model.model import ModelSpec, make_model
from stages.tensors.batch import Batch
from stages.train.checkpoints.checkpoint import lock_checkpoints
from stages.train.checkpoints.checkpointer import Checkpointer
from stages.train.checkpoints.signals import stop_signals
from stages.train.fit import call_in_order
from stages.train.logs.progress import follow_steps
from stages.train.logs.tensorboard import open_tensorboard
from stages.training.data.source import TensorSource
from stages.training.device.distributed import World
from stages.training.loop import train
from stages.training.params import TrainParams
from stages.training.state import Data, Epoch
from tests.conftest import ROOT
from tests.support.samples import train_params

STEPS_PER_EPOCH = 200
EPOCHS = 3
LEARNING_RATE, CLIP = 1e-3, 1.0
BATCH_SIZES = (256, 32)
# Per case and contender, tried and measured once a round.
Contender = Callable[[nn.Module, Data, TrainParams], None]


class Transformer(nn.Module):
    """Two encoder layers of width 64 over sixteen steps of a sequence."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(64, 4, 128, 0.0, batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.output = nn.Linear(64, 10)

    def forward(self, batch: Batch) -> Tensor:
        """Scores (rows, 10) of `numeric` (rows, 16 x 64)."""
        sequence = batch["numeric"].unflatten(1, (16, 64))
        scores: Tensor = self.output(self.encoder(sequence).mean(dim=1))
        return scores


@dataclass(frozen=True)
class Case:
    """A model, what goes in, and how many classes come out (1: a value)."""

    name: str
    make: Callable[[], nn.Module]
    kind: str
    shape: tuple[int, ...]
    num_outputs: int


def of_zoo(name: str, arguments: dict[str, object], case: tuple[str, tuple[int, ...], int]) -> Case:
    """A case whose model is one of the zoo's."""
    kind, shape, num_outputs = case
    title = f"{name} {'×'.join(map(str, shape))} → {num_outputs}"
    spec = ModelSpec(
        name=name, arguments=arguments, inputs={kind: list(shape)}, num_outputs=num_outputs
    )
    return Case(title, lambda: make_model(spec, 0), kind, shape, num_outputs)


def cases() -> list[Case]:
    """From a step of a quarter of a millisecond to some milliseconds."""
    wide: dict[str, object] = {"width": 263, "layers": 1, "dropout": 0.0}
    return [
        of_zoo("linear", {}, ("numeric", (8,), 1)),
        of_zoo("mlp", {"width": 64, "layers": 2, "dropout": 0.0}, ("numeric", (8,), 1)),
        of_zoo("mlp", wide, ("numeric", (510,), 363)),
        of_zoo(
            "cnn",
            {"channels": [16, 32], "width": 64, "dropout": 0.0},
            ("image", (1, 8, 8), 10),
        ),
        of_zoo("tabm", {}, ("numeric", (8,), 1)),
        Case("transformer 16×64 → 10", Transformer, "numeric", (16 * 64,), 10),
    ]


def make_data(case: Case, batch_size: int, device: str = "cpu") -> Data:
    """Random rows, as many as make an epoch of `STEPS_PER_EPOCH` steps; a tenth to validate on."""

    def split(num_rows: int, seed: int) -> TensorSource:
        random = torch.Generator().manual_seed(seed)
        features = torch.randn(num_rows, *case.shape, generator=random)
        if case.num_outputs == 1:
            target = torch.randn(num_rows, generator=random)
        else:
            target = torch.randint(case.num_outputs, (num_rows,), generator=random)
        return TensorSource({case.kind: features.to(device)}, target.to(device))

    num_rows = STEPS_PER_EPOCH * batch_size
    task = "regression" if case.num_outputs == 1 else "classification"
    return Data(split(num_rows, 0), split(num_rows // 10, 1), task)


def make_params(data: Data, batch_size: int) -> TrainParams:
    """The recipe of all contenders."""
    loss = "MSELoss" if data.task == "regression" else "CrossEntropyLoss"
    return train_params(
        epochs=EPOCHS,
        batch_size=batch_size,
        loss={"name": loss},
        optimizer={"name": "AdamW", "lr": LEARNING_RATE},
        schedule={"name": "CosineAnnealingLR"},
        clip_norm=CLIP,
        precision="fp32",
    )


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


def main() -> None:
    """Measure and print a row for each case and batch size."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cases", default="", help="only those whose name holds it")
    parser.add_argument("--batch", type=int, choices=BATCH_SIZES, help="only this one")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--processor", action="store_true", help="its time, not the clock's")
    options = parser.parse_args()
    now = time.process_time if options.processor else time.perf_counter
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    found = contenders()
    table = Table("case", "batch", "by hand, ms a step", *[f"{n} ÷ by hand" for n in found][1:])
    for case in cases():
        sizes = [options.batch] if options.batch else BATCH_SIZES
        for batch_size in sizes if options.cases in case.name else ():
            data = make_data(case, batch_size, options.device)
            params = make_params(data, batch_size)
            start = case.make().to(options.device)
            seconds: dict[str, list[float]] = {name: [] for name in found}
            for number in range(options.rounds + 1):
                for name, contender in found.items():
                    model = copy.deepcopy(start)
                    if name != "reprise" and hasattr(model, "fit"):
                        model.fit(data.train.batch, data.train.target)
                    began = now()
                    contender(model, data, params)
                    if options.device.startswith("cuda"):
                        torch.cuda.synchronize()
                    # The first round warms up.
                    if number:
                        seconds[name].append(now() - began)
            hand = seconds["by hand"]
            milliseconds = 1000 * statistics.median(hand) / (EPOCHS * STEPS_PER_EPOCH)
            ratios = [_ratio(seconds[name], hand) for name in list(found)[1:]]
            table.add_row(case.name, str(batch_size), f"{milliseconds:.2f}", *ratios)
    Console(width=160).print(table)


def _ratio(these: list[float], hand: list[float]) -> str:
    """The median over rounds, and the smallest and largest."""
    ratios = sorted(a / b for a, b in zip(these, hand, strict=True))
    return f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"


if __name__ == "__main__":
    main()
