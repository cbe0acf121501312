"""Trainings as one pack, from files to files: load, train, and write of each what `fit` does."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages.common.errors import UserError
from stages.train.checkpoints.checkpoint import load_checkpoint
from stages.train.checkpoints.checkpointer import Checkpointer
from stages.train.checkpoints.signals import stop_signals
from stages.train.fit import write_training
from stages.train.logs.monitor import Monitor, open_monitor
from stages.train.members.pack_state import load_pack_state, pack_state
from stages.train.members.said_by import said_by
from stages.train.recipe import Recipe, Training
from stages.train.replicas import begin_writing, named, result_of, set_aside
from stages.train.setup import prepare_training
from stages.training.choices import Choices
from stages.training.data.folds import Fold
from stages.training.device.distributed import World
from stages.training.device.environment import choose_threads, compute_deterministically
from stages.training.packed.loop import train_pack
from stages.training.packed.pack import Member, Pack, make_pack
from stages.training.packed.packable import why_no_step, why_not_members
from stages.training.recipe import load_weights
from stages.training.state import Data, Epoch, Result
from stages.training.step.divergence import DivergedError


class CannotPackError(Exception):
    """These trainings can't be a pack, for the reason that it is raised with."""


@dataclass(frozen=True)
class Packed:
    """Trainings as one pack, with their names, by their place in it."""

    pack: Pack
    choices: Choices
    trainings: Sequence[Training]
    names: Sequence[str]


def load_packed(recipe: Recipe, numbers: Sequence[int]) -> Packed:
    """The trainings `numbers` as one pack that has not begun. Raises CannotPackError."""
    trainings = [recipe.training(number) for number in numbers]
    first = trainings[0].recipe.train
    compute_deterministically(deterministic=first.deterministic)
    names = [recipe.trainings.name(number) for number in numbers]
    members: list[Member] = []
    # All replicas have the same rows, and so have the members of an ensemble in a fold.
    of_fold: dict[Fold | None, Data] = {}
    for number, training, name in zip(numbers, trainings, names, strict=True):
        seed = training.seed
        if training.fold in of_fold:
            data, model = of_fold[training.fold], load_weights(training.recipe.model, seed, number)
        else:
            with said_by(name):
                model, data, choices = prepare_training(training, number, World(), 1)
            of_fold[training.fold] = data
        members.append(Member(model, data, training.recipe.train, seed))
    if reason := why_not_members(members):
        raise CannotPackError(reason)
    num_weights = sum(weight.numel() for weight in members[0].model.parameters())
    threads = choose_threads(num_weights * len(members), first.batch_size, World())
    pack = make_pack(members)
    if reason := why_no_step(pack):
        raise CannotPackError(reason)
    print(f"a pack of {len(members)}; {threads}")
    return Packed(pack, choices, trainings, names)


def fit_packed(packed: Packed, homes: Sequence[Path], checkpoints: Path | None) -> None:
    """Train the pack, and write of each member what `fit` writes into its folder of `homes`.

    Those that have their result there are trained again, and left as they are. It resumes from the
    folder `checkpoints`, and keeps its own there. Raises UserError, naming the training, when one
    fails.
    """
    pack, members = packed.pack, packed.pack.members
    if checkpoints is not None:
        checkpoints.mkdir(parents=True, exist_ok=True)
    for home in homes:
        home.mkdir(parents=True, exist_ok=True)
    saved = load_checkpoint(checkpoints)
    with stop_signals() as stop_signal, _open_monitors(packed, homes, saved) as monitors:
        checkpointer = Checkpointer(checkpoints, World(), stop_signal, content_of=pack_state)

        def load_state(pack: Pack) -> None:
            if saved is not None:
                load_pack_state(saved, pack)

        def on_epoch_end(epochs: Mapping[int, Epoch], model_of: Any) -> None:
            for place, epoch in epochs.items():
                with said_by(packed.names[place]):
                    monitors[place](epoch, model_of(place))

        def on_step_end(pack: Pack) -> None:
            if pack.numbers:
                first = pack.numbers[0]
                with said_by(packed.names[first]):
                    monitors[first].progress.after_step(pack.assemblies[first].state)
            checkpointer(pack)

        def on_diverged(place: int, error: DivergedError) -> None:
            raise named(packed.names[place], error)

        try:
            results = train_pack(pack, on_epoch_end, on_diverged, load_state, on_step_end)
        finally:
            checkpointer.finish()
        for place, member in enumerate(members):
            member.model.load_state_dict(results[place].weights)
            target = packed.trainings[place].recipe.schema.target
            monitors[place].write_end(results[place], member.model, member.data, target)
    for place, home in enumerate(homes):
        if not result_of(home).exists():
            _write(packed, place, home, results[place])


def _write(packed: Packed, place: int, home: Path, result: Result) -> None:
    member, training = packed.pack.members[place], packed.trainings[place]
    writing = begin_writing(home)
    parts = training, member.model, member.data, packed.choices, result
    try:
        with said_by(packed.names[place]):
            write_training(writing, *parts, packed=True)
    except UserError as error:
        raise named(packed.names[place], error) from None
    set_aside(home)


@contextmanager
def _open_monitors(
    packed: Packed, homes: Sequence[Path], saved: dict[str, Any] | None
) -> Iterator[list[Monitor]]:
    """The monitor of each member, told of the epochs that it has behind it."""
    monitors: list[Monitor] = []
    with ExitStack() as opened:
        for place, (member, home) in enumerate(zip(packed.pack.members, homes, strict=True)):
            rows = [] if saved is None else saved["members"][place]["history"]
            history = [Epoch(*row) for row in rows]
            recipe = packed.trainings[place].recipe
            parts = recipe.model, recipe.train, member.seed, member.data, history
            with said_by(packed.names[place]):
                monitor = opened.enter_context(open_monitor(*parts, home, World()))
                monitor.tensorboard.write_start(member.model, member.data)
                for epoch in history:
                    monitor(epoch, None)
            opened.callback(monitor.progress.close)
            monitors.append(monitor)
        yield monitors
