"""Copies of a process that train: their threads, what they tell, and signals at any moment."""

import errno
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from multiprocessing.context import ForkProcess
from pathlib import Path
from typing import Any

import pytest
import torch

from stages.common.errors import UserError
from stages.training.packed.pack import Member
from stages.tune.training.batch import Trainer, train_parts
from stages.tune.training.copies import HINT, Copy, Results, TrainParts, add_copy
from stages.tune.training.groups import Part
from stages.tune.training.side_by_side import train_side_by_side
from stages.tune.trials import OnEpochEnd, TrialResult
from tests.stages.tune.conftest import CopiesMade
from tests.support.samples import classification, train_params

PARTS = [Part([0], None, 1), Part([1], None, 1)]
MAX_SECONDS = 20


@pytest.fixture(autouse=True)
def _ends(copies: CopiesMade) -> Iterator[None]:
    """Fail where copies wait for ever, and where any is left."""

    def stop(*_: object) -> None:
        raise TimeoutError(f"copies have not ended within {MAX_SECONDS} seconds")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(MAX_SECONDS)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)
    assert copies() == []


def go_on(_epoch: int, _values: Mapping[int, float]) -> set[int]:
    return set()


def run(train: TrainParts) -> Results:
    return train_side_by_side(PARTS, ["a", "b"], train, go_on, 2, in_step=False)


def complete(numbers: Sequence[int], on_epoch_end: OnEpochEnd) -> Results:
    on_epoch_end(1, dict.fromkeys(numbers, 0.5))
    return {number: TrialResult("complete", 0.5) for number in numbers}


def failing(error: Exception) -> TrainParts:
    def train(_numbers: Sequence[int], _on_epoch_end: OnEpochEnd) -> Results:
        raise error

    return train


def sleep(_numbers: Sequence[int], _on_epoch_end: OnEpochEnd) -> Results:
    time.sleep(60)
    return {}


class Wide(torch.nn.Module):
    """Large enough that torch copies its weights by several threads."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = torch.nn.Linear(4, 256), torch.nn.Linear(256, 256)

    def forward(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        scores: torch.Tensor = self.last(self.first(batch["numeric"]))[:, :3]
        return scores


def test_copies_of_a_process_that_has_computed_with_threads_train() -> None:
    first = Wide().state_dict()

    def prepare(_: Mapping[str, Any]) -> Member:
        model = Wide()
        model.load_state_dict(first)
        return Member(model, classification(), train_params(), 0)

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        torch.ones(1_000_000).mul_(1.5)
        results = train_parts(
            Trainer("minimize", classification(), prepare, keep_scores=False),
            PARTS,
            [{}, {}],
            go_on,
            at_once=2,
        )
    finally:
        torch.set_num_threads(before)
    assert [result.end for result in results.values()] == ["complete", "complete"]


def test_what_was_refused_is_told_before_what_a_training_raises(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Refusing:
        def stop_if_refused(self) -> None:
            raise UserError("opens README.md")

    monkeypatch.setattr("stages.tune.training.copies.audit_process", Refusing)
    for error in (ValueError("the library's own"), UserError("another")):
        with pytest.raises(UserError, match=r"opens README\.md"):
            run(failing(error))


def test_a_full_disk_and_full_memory_are_told_as_they_are() -> None:
    with pytest.raises(OSError, match="No space left") as caught:
        run(failing(OSError(errno.ENOSPC, "No space left on device", "data/tune")))
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, "data/tune")
    with pytest.raises(MemoryError):
        run(failing(MemoryError()))


def test_what_a_model_prints_is_not_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def train(numbers: Sequence[int], on_epoch_end: OnEpochEnd) -> Results:
        print(f"part {numbers[0]}")
        return complete(numbers, on_epoch_end)

    monkeypatch.setattr(sys, "stdout", None)
    assert len(run(complete)) == 2
    with (tmp_path / "out").open("w") as file:
        monkeypatch.setattr(sys, "stdout", file)
        run(train)
        monkeypatch.undo()
    assert sorted((tmp_path / "out").read_text().split("\n")) == ["", "part 0", "part 1"]


def test_a_system_that_makes_no_process_is_told_with_what_to_do(
    monkeypatch: pytest.MonkeyPatch,
    copies: CopiesMade,
) -> None:
    made = ForkProcess.start

    def start(process: ForkProcess) -> None:
        if copies():
            raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")
        made(process)

    monkeypatch.setattr(ForkProcess, "start", start)
    with pytest.raises(UserError, match=r"no other process.*Resource temporarily") as caught:
        run(sleep)
    assert HINT in str(caught.value)


def test_sigterm_to_the_group_ends_no_copy_before_the_stage() -> None:
    def train(numbers: Sequence[int], on_epoch_end: OnEpochEnd) -> Results:
        os.kill(os.getpid(), signal.SIGTERM)
        return complete(numbers, on_epoch_end)

    assert len(run(train)) == 2


def test_only_a_copy_that_was_killed_gets_the_hint_of_memory() -> None:
    def train(_numbers: Sequence[int], _on_epoch_end: OnEpochEnd) -> Results:
        os._exit(3)

    with pytest.raises(UserError, match=r"ended \(exit code 3\) that trained [ab]$"):
        run(train)


def interrupt_before(work: Callable[[Any], None]) -> Callable[[Any], None]:
    def interrupted(thing: Any) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        work(thing)

    return interrupted


@pytest.mark.parametrize(
    ("place", "name"), [(ForkProcess, "start"), (Copy, "kill"), (Copy, "join")]
)
def test_ctrl_c_at_any_moment_leaves_no_copy(
    place: type, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(place, name, interrupt_before(getattr(place, name)))

    def interrupt(_epoch: int, _values: Mapping[int, float]) -> set[int]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_side_by_side(PARTS, ["a", "b"], complete, interrupt, 2, in_step=False)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())


def test_a_copy_that_nobody_listens_to_ends_quietly(
    capfd: pytest.CaptureFixture[str], copies: CopiesMade
) -> None:
    copy = add_copy([], complete)
    (process,) = copies()
    copy.connection.close()
    assert process.wait(MAX_SECONDS) == 0
    assert capfd.readouterr().err == ""
