"""A batch of trials, trained in turns: each as if it were alone."""

from collections.abc import Mapping

import numpy as np
import pytest
from torch import nn

from stages.common.config import Overrides
from stages.common.params import read_params
from stages.tune.training.batch import make_train_trials, read_start
from stages.tune.trials import TrialResult
from tests.conftest import Project
from tests.stages.tune.conftest import LR, WIDTH
from tests.support.samples import set_params

DROPOUT = "build.model.dropout"
TRIED: list[Overrides] = [
    {LR: 0.05, DROPOUT: 0.5},
    {LR: 0.01, DROPOUT: 0.3, WIDTH: 6},
    {LR: 1e30, "train.optimizer.name": "SGD"},
]
EPOCHS = 3
Reached = dict[int, list[float]]


def run(
    tried: list[Overrides], *, in_step: bool, last: int = EPOCHS
) -> tuple[list[TrialResult], Reached, list[tuple[int, list[int]]]]:
    """Results, values by place, and the calls; the first trial ends after epoch `last`."""
    start = read_start(read_params("tune"), EPOCHS)
    train_trials, direction, _ = make_train_trials(start, in_step=in_step, keep_scores=True)
    assert direction == "minimize"
    reached: Reached = {}
    calls: list[tuple[int, list[int]]] = []

    def on_epoch_end(epoch: int, values: Mapping[int, float]) -> set[int]:
        calls.append((epoch, sorted(values)))
        for place, value in values.items():
            reached.setdefault(place, []).append(value)
        return {0} if epoch == last < EPOCHS and 0 in values else set()

    return train_trials(tried, on_epoch_end), reached, calls


@pytest.fixture(autouse=True)
def _draws_from_the_global_generator(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    # As a model of one's own may.
    monkeypatch.setattr("stages.zoo.models.mlp.Dropout", nn.Dropout)
    monkeypatch.chdir(project.path)
    set_params(project, {"train.clip_norm": None})


def test_to_train_in_turns_by_the_epoch_changes_no_bit() -> None:
    results, reached, calls = run(TRIED, in_step=True)
    assert [result.end for result in results] == ["complete", "complete", "diverged"]
    assert calls == [(1, [0, 1]), (2, [0, 1]), (3, [0, 1])]
    others, alone, _ = run(TRIED, in_step=False)
    assert alone == reached
    for one, other in zip(results, others, strict=True):
        assert (one.end, one.value) == (other.end, other.value)
        assert one.scores is None or np.array_equal(one.scores, np.asarray(other.scores))
    _, single, _ = run(TRIED[1:2], in_step=True)
    assert single[0] == reached[1]


@pytest.mark.parametrize("in_step", [True, False])
def test_a_member_ends_where_it_is_told_to(in_step: bool) -> None:  # noqa: FBT001
    results, reached, _ = run(TRIED[:2], in_step=in_step, last=2)
    assert [result.end for result in results] == ["pruned", "complete"]
    assert [len(reached[place]) for place in (0, 1)] == [2, 3]
    assert results[0].scores is None
    # Of the best epoch.
    assert results[1].value == min(reached[1])


def test_a_member_that_stops_early_by_itself_is_complete(project: Project) -> None:
    set_params(project, {"train.early_stopping": {"metric": "loss", "patience": 1}})
    # Its loss grows from the first epoch on.
    tried = [{LR: 3.0, "train.optimizer.name": "SGD"}, {LR: 0.01}]
    results, reached, calls = run(tried, in_step=True)
    assert [result.end for result in results] == ["complete", "complete"]
    assert len(reached[0]) < len(reached[1]) == EPOCHS
    assert calls[-1] == (EPOCHS, [1])
