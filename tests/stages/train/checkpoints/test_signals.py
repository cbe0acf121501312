"""A training that is told to stop keeps its step."""

import math
import os
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from stages.train.checkpoints.checkpoint import load_checkpoint, load_state_dict, write_checkpoint
from stages.train.checkpoints.checkpointer import PREEMPTED
from stages.train.checkpoints.signals import stop_signals
from stages.training.device.distributed import World
from stages.training.state import State
from tests.support.samples import train_params
from tests.support.training.resumed import RECIPES, run, saver

# So small a step has one thread in the stage, too.
pytestmark = pytest.mark.usefixtures("one_thread")


def take_long(*numbers: int) -> None:
    """A step in which signals come."""
    for number in numbers:
        os.kill(os.getpid(), number)
    time.sleep(5)


def train_until_told(folder: Path, told: Callable[[], int], number: int) -> None:
    """A training to which a signal comes in its eighth step: the third one of the second epoch."""
    steps, save = iter(range(100)), saver(folder, told, seconds=math.inf)

    def tell(state: State) -> None:
        if next(steps) == 7:
            os.kill(os.getpid(), number)
        save(state)

    run(train_params(epochs=4, **RECIPES["one cycle"]), on_step_end=tell)


def test_told_to_stop_it_keeps_the_step_and_ends(tmp_path: Path) -> None:
    params = train_params(epochs=4, **RECIPES["one cycle"])
    whole = run(params)
    with stop_signals() as told, pytest.raises(SystemExit) as ended:
        train_until_told(tmp_path, told, signal.SIGTERM)
    assert ended.value.code == PREEMPTED
    saved = load_checkpoint(tmp_path)
    assert saved is not None
    assert saved["ranks"][0]["sums"]["num_steps"] == 3
    rest = run(params, load_state=partial(load_state_dict, saved, World()))
    assert rest.history == whole.history


def test_a_checkpoint_is_written_whole_however_long_it_takes_once_a_step_has_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write_slowly(*given: Any) -> None:
        time.sleep(0.8)
        write_checkpoint(*given)

    def give_up(*_: object) -> None:
        raise TimeoutError

    monkeypatch.setattr("stages.train.checkpoints.checkpointer.write_checkpoint", write_slowly)
    monkeypatch.setattr("stages.train.checkpoints.signals.STOP_SECONDS", 0.4)
    before = signal.signal(signal.SIGALRM, give_up)
    try:
        with stop_signals() as told, pytest.raises(SystemExit) as ended:
            train_until_told(tmp_path, told, signal.SIGTERM)
        assert ended.value.code == PREEMPTED
        assert load_checkpoint(tmp_path) is not None
        # A step that does not end is not waited for.
        with pytest.raises(TimeoutError), stop_signals():
            take_long(signal.SIGTERM)
        # A Ctrl-C ends as it does without.
        with pytest.raises(KeyboardInterrupt), stop_signals():
            take_long(signal.SIGINT)
        assert signal.getsignal(signal.SIGALRM) is give_up
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_ctrl_c_waits_for_the_step_and_a_second_one_does_not(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(KeyboardInterrupt), stop_signals() as told:
        train_until_told(tmp_path, told, signal.SIGINT)
    saved = load_checkpoint(tmp_path)
    assert saved is not None
    assert saved["ranks"][0]["sums"]["num_steps"] == 3
    assert "Ctrl-C again" in capfd.readouterr().err
    with pytest.raises(KeyboardInterrupt), stop_signals():
        take_long(signal.SIGINT, signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_ctrl_c_after_the_last_step_is_not_lost() -> None:
    with pytest.raises(KeyboardInterrupt), stop_signals():
        os.kill(os.getpid(), signal.SIGINT)
    # Where a shell or the stage has it ignored, it stays so.
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with stop_signals() as told:
            os.kill(os.getpid(), signal.SIGINT)
            assert told() == 0
    finally:
        signal.signal(signal.SIGINT, before)
