"""Parts of a batch side by side: the bits of one after the other, and copies that always end."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stages.common.config import Overrides
from stages.common.errors import Problem, UserError
from stages.common.params import read_params
from stages.training.device.environment import num_cores
from stages.tune.training.batch import make_train_trials, read_start
from stages.tune.training.groups import Part
from stages.tune.training.side_by_side import num_at_once, share_out
from stages.tune.trials import TrialResult
from tests.conftest import Project
from tests.stages.tune.conftest import LR, WIDTH, CopiesMade

DROPOUT = "build.model.dropout"
# A pack of three, one that trains alone, and one that diverges.
TRIED: list[Overrides] = [
    {LR: 0.05, DROPOUT: 0.5},
    {LR: 0.01, DROPOUT: 0.3, WIDTH: 6},
    {LR: 0.02, DROPOUT: 0.1},
    {LR: 0.03, DROPOUT: 0.0},
    {LR: 1e30, "train.optimizer.name": "SGD"},
]
EPOCHS = 3


@pytest.fixture(autouse=True)
def _in_project(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project.path)
    monkeypatch.setattr("stages.training.packed.rule.PACK_STEP", 0.0)
    monkeypatch.setenv("REPRISE_AT_ONCE", "3")


def run(
    copies: CopiesMade, *, in_step: bool
) -> tuple[list[TrialResult], Mapping[int, list[float]], int]:
    """Results, values by place, and the most copies that were there; trial 2 ends after epoch 2."""
    start = read_start(read_params("tune"), EPOCHS)
    train_trials, _, _ = make_train_trials(start, in_step=in_step, keep_scores=True)
    reached: dict[int, list[float]] = {}
    most = 0

    def on_epoch_end(epoch: int, values: Mapping[int, float]) -> set[int]:
        nonlocal most
        most = max(most, len(copies()))
        for place, value in values.items():
            reached.setdefault(place, []).append(value)
        return {2} & values.keys() if epoch == 2 else set()

    return train_trials(TRIED, on_epoch_end), reached, most


@pytest.mark.parametrize("in_step", [True, False])
def test_side_by_side_changes_no_bit(
    in_step: bool,  # noqa: FBT001
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    copies: CopiesMade,
) -> None:
    ours, reached, most = run(copies, in_step=in_step)
    said = capsys.readouterr().out
    assert "3 trials: packed" in said
    assert "3 at once, each in a process" in said
    assert most == 3
    assert copies() == []
    monkeypatch.setenv("REPRISE_AT_ONCE", "1")
    others, in_turn, most = run(copies, in_step=in_step)
    assert most == 0
    assert [each.end for each in ours] == ["complete", "complete", "pruned", "complete", "diverged"]
    assert reached == in_turn
    for one, other in zip(ours, others, strict=True):
        assert (one.end, one.value) == (other.end, other.value)
        assert (one.scores is None) == (other.scores is None)
        assert one.scores is None or np.array_equal(one.scores, np.asarray(other.scores))


def test_whatever_ends_a_batch_ends_its_copies(
    monkeypatch: pytest.MonkeyPatch, copies: CopiesMade
) -> None:
    start = read_start(read_params("tune"), EPOCHS)
    train_trials, _, _ = make_train_trials(start, in_step=False, keep_scores=False)

    def interrupt(*_: object) -> set[int]:
        raise KeyboardInterrupt

    def lose_one(*_: object) -> set[int]:
        copies()[0].kill()
        return set()

    with pytest.raises(KeyboardInterrupt):
        train_trials(TRIED, interrupt)
    assert copies() == []
    with pytest.raises(UserError, match=r"ended \(SIGKILL.* the trial with .*lr 0\.") as lost:
        train_trials(TRIED, lose_one)
    assert "REPRISE_AT_ONCE=1 trains one after the other" in str(lost.value)
    assert copies() == []

    def fail(error: Exception) -> Any:
        raise error

    problem = Problem("too wide", WIDTH, "6", ("3",))
    for raised, expected in ((UserError(problem), UserError), (ValueError("no"), RuntimeError)):
        monkeypatch.setattr(
            "stages.tune.training.batch.train_alone", lambda *_, error=raised: fail(error)
        )
        with pytest.raises(expected) as caught:
            train_trials(TRIED, lambda *_: set())
        assert copies() == []
        if isinstance(caught.value, UserError):
            assert caught.value.problems == [problem]
        else:
            assert "ValueError: no" in str(caught.value)
            assert "in fail" in caught.value.__notes__[0]


def parts(*sizes: int) -> Sequence[Part]:
    return [Part([place], None, size) for place, size in enumerate(sizes)]


def test_shares_are_about_as_large_and_the_largest_part_comes_first() -> None:
    assert share_out(parts(1, 5, 2, 4), 2) == [[1, 0], [3, 2]]
    assert share_out(parts(1, 5, 2), 3) == [[1], [2], [0]]


def test_how_many_at_once_follows_from_cores_threads_and_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert num_at_once(parts(1, 1)) == 2
    assert num_at_once(parts(1)) == 1
    # It takes all cores, or those that it is told to.
    monkeypatch.setattr("os.cpu_count", lambda: 4)
    assert num_at_once(parts(1, 10**9)) == 1
    monkeypatch.setenv("REPRISE_THREADS", "1")
    assert num_at_once(parts(1, 10**9)) == 2
    monkeypatch.delenv("REPRISE_AT_ONCE")
    monkeypatch.setattr("stages.tune.training.side_by_side.num_cores", lambda: 3)
    assert num_at_once(parts(*[1] * 9)) == 3
    monkeypatch.setenv("REPRISE_AT_ONCE", "none")
    with pytest.raises(UserError, match="REPRISE_AT_ONCE is 'none'"):
        num_at_once(parts(1, 1))
    monkeypatch.setenv("REPRISE_AT_ONCE", "3")
    monkeypatch.setattr("sys.platform", "darwin")
    assert num_at_once(parts(1, 1)) == 1


@pytest.mark.parametrize(("quota", "cores"), [("max", 8), ("250000", 2), ("50000", 1)])
def test_the_quota_of_a_container_bounds_the_cores(
    quota: str, cores: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)))
    for file, text in (("proc/self/cgroup", "0::/ours"), ("sys/fs/cgroup/ours/cpu.max", quota)):
        (tmp_path / file).parent.mkdir(parents=True)
        (tmp_path / file).write_text(f"{text} 100000\n".replace("ours 100000", "ours"))
    assert num_cores(tmp_path) == cores
