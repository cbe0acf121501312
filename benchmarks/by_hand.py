"""Searches as one writes them without this project: what `benchmarks/tune.py` compares with.

Optuna's study around a loop with a `DataLoader`, and around Lightning's `Trainer`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import optuna
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from stages.model.model import make_model
from stages.training.state import Data
from stages.tune.params import TuneParams
from stages.tune.training.batch import Start

CLIP = 1.0


@dataclass(frozen=True)
class Case:
    """What all contenders search: how each trial begins, the data, and the section `tune`."""

    start: Start
    data: Data
    section: TuneParams

    def make(self, trial: optuna.Trial) -> tuple[nn.Module, float]:
        """A model and a learning rate from the space, as Optuna suggests them."""
        arguments: dict[str, Any] = dict(self.start.spec.arguments)
        lr = trial.suggest_float("lr", 1e-4, 1e-1, log=True)
        for path, values in self.section.space.items():
            name = path.rpartition(".")[2]
            if isinstance(values, list):
                arguments[name] = trial.suggest_categorical(name, values)
            elif name == "dropout":
                arguments[name] = trial.suggest_float(name, 0.0, 0.5)
        return make_model(self.start.spec.model_copy(update={"arguments": arguments}), 0), lr

    def loaders(self) -> tuple[DataLoader[Any], DataLoader[Any]]:
        """Batches to train on and to validate on, as (features, target)."""
        size = int(self.start.train["batch_size"])
        train, validation = (
            DataLoader(TensorDataset(split.batch[self.kind], split.target), rows, shuffle=shuffle)
            for split, rows, shuffle in (
                (self.data.train, size, True),
                (self.data.validation, 256, False),
            )
        )
        return train, validation

    @property
    def kind(self) -> str:
        """The only kind of the features."""
        (kind,) = self.data.train.batch
        return str(kind)


def loss_of(scores: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
    """Cross-entropy of classes, squared errors of values, each of several where a model has so."""
    if not target.is_floating_point():
        return nn.functional.cross_entropy(scores, target, reduction=reduction)
    scores = scores.squeeze(-1)
    target = target if scores.ndim == 1 else target[:, None].expand_as(scores)
    return nn.functional.mse_loss(scores, target, reduction=reduction)


def by_hand(case: Case, threads: int, seed: int) -> float:
    """Optuna's study around a loop with a DataLoader, as their documentation writes it."""
    torch.set_num_threads(threads)
    train, validation = case.loaders()
    num_epochs, kind = case.section.epochs, case.kind

    def objective(trial: optuna.Trial) -> float:
        model, lr = case.make(trial)
        optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.01)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, num_epochs)
        best = float("inf")
        for epoch in range(num_epochs):
            model.train()
            for x, y in train:
                optimizer.zero_grad()
                loss = loss_of(model({kind: x}), y)
                loss.backward()  # type: ignore[no-untyped-call]
                nn.utils.clip_grad_norm_(model.parameters(), CLIP)
                optimizer.step()
            schedule.step()
            model.eval()
            with torch.inference_mode():
                losses = [loss_of(model({kind: x}), y, "sum") for x, y in validation]
            value = float(sum(losses)) / len(case.data.validation)
            trial.report(value, epoch)
            best = min(best, value)
        return best

    return _study(objective, case.section, seed)


def lightning(case: Case, threads: int, seed: int) -> float:
    """Optuna's study around Lightning's Trainer, all off that can be off but for the callback."""
    import lightning as pl

    torch.set_num_threads(threads)
    kind = case.kind

    class Module(pl.LightningModule):
        def __init__(self, model: nn.Module, lr: float) -> None:
            super().__init__()
            self.model, self.lr = model, lr

        def training_step(self, batch: list[Tensor], _: int) -> Tensor:
            return loss_of(self.model({kind: batch[0]}), batch[1])

        def validation_step(self, batch: list[Tensor], _: int) -> None:
            self.log("loss", loss_of(self.model({kind: batch[0]}), batch[1]))

        def configure_optimizers(self) -> object:
            optimizer = torch.optim.AdamW(self.model.parameters(), lr=self.lr, weight_decay=0.01)
            rounds = case.section.epochs
            schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, rounds)
            return [optimizer], [schedule]

    class Pruning(pl.Callback):
        """What `PyTorchLightningPruningCallback` of optuna-integration does in one process."""

        def __init__(self, trial: optuna.Trial) -> None:
            self.trial, self.best = trial, float("inf")

        def on_validation_end(self, trainer: Any, _: Any) -> None:
            value = float(trainer.callback_metrics["loss"])
            self.best = min(self.best, value)
            self.trial.report(value, trainer.current_epoch)
            if self.trial.should_prune():
                raise optuna.TrialPruned

    loaders = case.loaders()

    def objective(trial: optuna.Trial) -> float:
        pruning = Pruning(trial)
        trainer = pl.Trainer(
            max_epochs=case.section.epochs,
            accelerator="cpu",
            devices=1,
            gradient_clip_val=CLIP,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            logger=False,
            enable_checkpointing=False,
            callbacks=[pruning],
        )
        trainer.fit(Module(*case.make(trial)), *loaders)
        return pruning.best

    return _study(objective, case.section, seed)


def _study(objective: Callable[[optuna.Trial], float], section: TuneParams, seed: int) -> float:
    sampler, pruner = optuna.samplers.TPESampler(seed=seed), optuna.pruners.NopPruner()
    study = optuna.create_study(sampler=sampler, pruner=pruner)
    study.optimize(objective, n_trials=section.trials)
    return float(study.best_value)
