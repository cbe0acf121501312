"""Measurements of what a training learns: rates, labels, splits."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from stages.tools.diagnose.sample import draw_by_class, draw_rows
from stages.training.data.source import TensorSource
from tests.conftest import Project
from tests.stages.tools.diagnose.conftest import Measure
from tests.support.samples import mixed_table, ready_to_train, set_params

pytestmark = pytest.mark.usefixtures("one_thread")


def test_a_rate_that_is_too_low_is_told_with_a_better_one(
    project: Project, measure: Measure
) -> None:
    set_params(project, {"train.optimizer.lr": 1e-5})
    (found,) = measure(project, "learning")
    assert found.cause == "a rate that is too low", found
    assert found.mend in (("train.optimizer.lr: 1.0e-03",), ("train.optimizer.lr: 1.0e-02",))


def test_labels_of_other_rows_are_learned_by_heart_alone(tmp_path: Path, measure: Measure) -> None:
    draw = np.random.default_rng(1)
    table = pl.DataFrame(
        {
            "id": np.arange(300),
            **{f"x{i}": draw.normal(size=300) for i in range(20)},
            "y": draw.choice(["ill", "well"], 300),
        }
    )
    changes = {"build.model": {"name": "mlp", "width": 64}, "train.optimizer.lr": 1e-2}
    project = ready_to_train(tmp_path / "p", changes, table)
    told = measure(project, "learning")
    assert [each.level for each in told] == ["ok", "wrong"], told
    assert told[1].cause == "labels that do not belong to their rows"


def test_validation_rows_unlike_the_train_rows_are_told_by_their_column(
    tmp_path: Path, measure: Measure
) -> None:
    table = mixed_table(400)
    part = np.random.default_rng(2).choice(["train", "validation", "test"], 400, p=[0.5, 0.3, 0.2])
    later = pl.Series(part) == "validation"
    table = table.with_columns(
        part=pl.Series(part),
        size=pl.when(later).then(pl.col("size") + 8).otherwise("size"),
        y=pl.when(later).then(pl.lit("ill")).otherwise("y"),
    )
    split = {"seed": 0, "validation": 0.3, "test": 0.2, "column": "part"}
    project = ready_to_train(tmp_path / "p", {"prepare.split": split}, table)
    told = measure(project, "splits")
    assert {each.cause for each in told} == {"validation rows unlike the train rows"}
    assert "by 'size' (" in told[0].what
    assert "class 'ill' is" in told[1].what


def test_rows_that_are_sorted_by_class_are_nothing_wrong(
    tmp_path: Path, measure: Measure, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stages.tools.diagnose.learning.FOREST_ROWS", 120)
    monkeypatch.setattr("stages.tools.diagnose.splits.MAX_ROWS", 60)
    changes = {"build.model": {"name": "mlp", "width": 32}, "train.optimizer.lr": 1e-2}
    # As folders of images are.
    project = ready_to_train(tmp_path / "p", changes, mixed_table(500).sort("y"))
    target = np.load(project.path / "data/prepare/train/target.npy")
    assert len(set(target[:100])) == 1
    told = [each for name in ("learning", "splits", "layers") for each in measure(project, name)]
    assert [each.level for each in told] == ["ok"] * len(told), told


def test_rows_are_drawn_from_all_over_within_a_number_of_bytes() -> None:
    rows = draw_rows(10_000, 3 * 224 * 224, 2000)
    assert len(rows) == 111
    assert rows.tolist() == sorted(set(rows.tolist()))
    assert rows[0] < 1000
    assert rows[-1] > 9000
    assert len(draw_rows(10_000, 20, 2000)) == 2000
    target = torch.arange(7).repeat_interleave(torch.tensor([500, 3, 100, 100, 100, 100, 100]))
    source = TensorSource({"numeric": torch.zeros(len(target), 2)}, target)
    drawn = target[draw_by_class(source, 23)].tolist()
    assert [drawn.count(code) for code in range(7)] == [4, 3, 4, 3, 3, 3, 3]
    assert sorted(drawn[:7]) == list(range(7))
