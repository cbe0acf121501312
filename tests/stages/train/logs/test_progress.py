"""What a person sees of a training as it goes."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from stages.train.logs.progress import (
    NUM_LINES,
    SECONDS_BETWEEN_LINES,
    Progress,
    show_progress,
    spell_seconds,
)
from stages.training.state import Epoch, State
from tests.support.samples import train_params

Advance = Callable[[float], None]


@pytest.fixture
def advance(monkeypatch: pytest.MonkeyPatch) -> Advance:
    """A clock that goes on by so many seconds when it is called."""
    now = 100.0

    def go(seconds: float) -> None:
        nonlocal now
        now += seconds

    monkeypatch.setattr("stages.train.logs.progress.time.monotonic", lambda: now)
    return go


def epoch_of(number: int) -> Epoch:
    return Epoch(number, 0.1, 1.0, 0.5, 0.25, 7.0)


def state_of(epochs_done: int = 0) -> State:
    """A training that has so many epochs behind it, at the beginning of the next one."""
    model = nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters())
    state = State(model, optimizer, torch.optim.lr_scheduler.ConstantLR(optimizer))
    state.result.history = [epoch_of(number) for number in range(1, epochs_done + 1)]
    return state


def end_epoch(progress: Progress, state: State) -> None:
    """As the loop does: told, added up, and handed over once more."""
    done = epoch_of(len(state.result.history) + 1)
    state.result.history.append(done)
    progress.after_epoch(done)
    state.totals.num_steps = 0
    progress.after_step(state)


def take_epoch(progress: Progress, state: State, advance: Advance, seconds: float) -> None:
    """What is left of 1,000 steps, each of so many seconds; then 40 s of validation."""
    while state.totals.num_steps < 1000:
        advance(seconds)
        state.totals.num_steps += 1
        progress.after_step(state)
    advance(40.0)
    end_epoch(progress, state)


def test_away_from_a_terminal_progress_is_about_twenty_lines(
    capsys: pytest.CaptureFixture[str],
) -> None:
    progress = show_progress(train_params(epochs=1000), 50, "rmse")
    state = state_of()
    for _ in range(1000):
        end_epoch(progress, state)
    progress.close()
    lines = capsys.readouterr().out.splitlines()
    assert NUM_LINES <= len(lines) <= NUM_LINES + 2
    assert lines[0].startswith("epoch    1/1000  train loss 0.5000  validation loss 0.2500  rmse 7")
    assert lines[-1].startswith("epoch 1000/1000")


@pytest.mark.parametrize(
    ("num_done", "seconds", "pace"),
    [
        (0, 0.5, {1: None, 2: "2.0 epochs/s, 4 s left", 10: "2.0 epochs/s, 0 s left"}),
        (4, 0.5, {1: None, 4: None, 5: "2.0 epochs/s, 2 s left", 10: "2.0 epochs/s, 0 s left"}),
        (0, 3.0, {1: None, 5: "3.0 s/epoch, 15 s left"}),
        (0, 3000.0, {1: None, 2: "3000.0 s/epoch, 6 h 40 min left"}),
    ],
)
def test_progress_tells_the_rate_and_the_time_left_but_not_of_epochs_of_an_earlier_run(
    num_done: int,
    seconds: float,
    pace: dict[int, str | None],
    advance: Advance,
    capsys: pytest.CaptureFixture[str],
) -> None:
    progress = show_progress(train_params(epochs=10), 50, "rmse", num_done)
    for number in range(1, 11):
        advance(seconds if number > num_done else 0.0)
        progress.after_epoch(epoch_of(number))
    progress.close()
    lines = capsys.readouterr().out.splitlines()
    for number, said in pace.items():
        assert lines[number - 1].endswith("rmse 7.0000" if said is None else f"rmse 7.0000  {said}")


def test_an_epoch_that_takes_long_tells_its_rate_and_the_time_left(
    advance: Advance, capsys: pytest.CaptureFixture[str]
) -> None:
    # 1,000 steps, of which the last has 30 rows.
    params = train_params(epochs=3, batch_size=64)
    progress, state = show_progress(params, 999 * 64 + 30, "rmse"), state_of()
    # Whatever comes before the end of the first step is no part of the rate.
    advance(500.0)
    for seconds in (0.1, 0.1, 0.2):
        take_epoch(progress, state, advance, seconds)
    told = capsys.readouterr().out.splitlines()
    first, second, third = (
        [line for line in told if line.startswith(f"epoch {number}/3")] for number in (1, 2, 3)
    )
    # Of 30 s, 300 steps each.
    assert first[0] == "epoch 1/3   30%  640 rows/s, 70 s left of it, 4 min of all"
    # The first look is at the end of the first step, 500 s after the start: and so 30 s are as
    # many as there have to be between two lines, for the first 100 s of the epoch.
    assert [line.split()[2] for line in first[:-1]] == ["30%", "60%", "90%"]
    # Validation is in no rate: it began anew after it.
    assert all("640 rows/s" in line for line in [*first[:-1], *second[:-1]])
    assert all(" 320 rows/s" in line for line in third[:-1])
    # Of the last epoch all that is left is its own.
    assert third[0] == "epoch 3/3   20%  320 rows/s, 3 min left"
    assert all(lines[-1].split()[2:4] == ["train", "loss"] for lines in (first, second, third))


def test_short_epochs_are_told_by_their_ends_alone(
    advance: Advance, capsys: pytest.CaptureFixture[str]
) -> None:
    progress, state = show_progress(train_params(epochs=20, batch_size=1), 1000, "rmse"), state_of()
    for _ in range(20):
        take_epoch(progress, state, advance, (SECONDS_BETWEEN_LINES - 1) / 1000)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 20
    assert all("train loss" in line for line in lines)


def test_the_lines_of_a_long_epoch_grow_rarer(
    advance: Advance, capsys: pytest.CaptureFixture[str]
) -> None:
    progress, state = show_progress(train_params(epochs=1, batch_size=1), 1000, "rmse"), state_of()
    # Ten hours.
    take_epoch(progress, state, advance, 36.0)
    lines = capsys.readouterr().out.splitlines()
    assert 60 <= len(lines) <= 120
    assert lines[0].endswith("  0%  0.0 rows/s, 9 h 59 min left")


def test_after_a_resume_within_an_epoch_only_new_steps_count(
    advance: Advance, capsys: pytest.CaptureFixture[str]
) -> None:
    progress = show_progress(train_params(epochs=5, batch_size=10), 10_000, "rmse", num_done=2)
    state = state_of(2)
    for done in state.result.history:
        progress.after_epoch(done)
    # To load took long, and 600 steps were taken by an earlier run.
    advance(200.0)
    state.totals.num_steps = 600
    for _ in range(350):
        advance(0.1)
        state.totals.num_steps += 1
        progress.after_step(state)
    line = capsys.readouterr().out.splitlines()[-1]
    assert line == "epoch 3/5   90%  100 rows/s, 10 s left of it, 3 min of all"


def test_replicas_have_fewer_lines_each(
    advance: Advance, capsys: pytest.CaptureFixture[str]
) -> None:
    params = train_params(epochs=2, batch_size=1, replicas=4)
    progress, state = show_progress(params, 1000, "rmse"), state_of()
    take_epoch(progress, state, advance, 0.3)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[2] for line in lines] == ["40%", "80%", "train"]


def test_a_step_takes_one_look_at_the_clock(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    progress, state = show_progress(train_params(epochs=1, batch_size=1), 1000, "rmse"), state_of()
    looks = 0

    def look() -> float:
        nonlocal looks
        looks += 1
        return 100.0

    monkeypatch.setattr("stages.train.logs.progress.time.monotonic", look)
    # A device is never asked: what it has summed up is no number that Python could read.
    state.totals.loss = state.totals.rows = state.totals.steps_applied = torch.empty(
        (), device="meta"
    )
    for number in range(1, 101):
        state.totals.num_steps = number
        progress.after_step(state)
    assert looks == 100
    assert capsys.readouterr().out == ""


def test_on_a_terminal_the_bar_starts_after_the_epochs_of_an_earlier_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    progress = show_progress(train_params(epochs=10), 50, "rmse", num_done=9)
    for number in range(1, 11):
        progress.after_epoch(epoch_of(number))
    progress.close()
    last = capsys.readouterr().err.split("\r")[-1]
    assert "10/10" in last
    assert "epoch/s" in last or "s/epoch" in last
    assert "rmse 7.0000" in last


def test_on_a_terminal_the_line_is_rewritten_once_a_second_at_most(
    advance: Advance, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    progress = show_progress(train_params(epochs=3, batch_size=1), 1000, "rmse")
    state = state_of()
    capsys.readouterr()
    take_epoch(progress, state, advance, 0.01)
    written = capsys.readouterr().err.split("\r")
    within = [text for text in written if "rows/s" in text]
    # Ten seconds, of which the first second is no rate yet.
    assert 8 <= len(within) <= 10
    assert "epoch 1: 20%  100 rows/s, 8 s left of it, 28 s of all" in within[1]
    take_epoch(progress, state, advance, 0.01)
    assert any(
        "epoch 2" in text and "; train loss" in text for text in capsys.readouterr().err.split("\r")
    )
    progress.close()


@pytest.mark.parametrize(
    ("seconds", "spelt"),
    [(0.4, "0 s"), (99.0, "99 s"), (100.0, "2 min"), (5900.0, "98 min"), (9000.0, "2 h 30 min")],
)
def test_long_times_are_told_in_larger_units(seconds: float, spelt: str) -> None:
    assert spell_seconds(seconds) == spelt
