"""Measurements of trainings that are well though they look otherwise, and of what can not be."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from stages.tools.diagnose.__main__ import names
from stages.tools.diagnose.learning import Score
from stages.tools.diagnose.splits import compare_targets
from tests.conftest import Project
from tests.stages.tools.diagnose.conftest import Measure
from tests.support.samples import mixed_table, ready_to_train
from tests.support.tables import faint_table, rare_table

pytestmark = pytest.mark.usefixtures("one_thread")


def test_a_training_that_is_well_has_nothing_wrong(built: Project, measure: Measure) -> None:
    told = [each for name in names() for each in measure(built, name)]
    assert names() == ["labels", "layers", "learning", "memory", "rate", "shapes", "splits"]
    assert {each.level for each in told} == {"ok"}, told
    assert all(each.cause == "" and each.mend == () for each in told)
    assert len(told) == 9


# Nothing is wrong with any of these, though the loss or a score hardly moves.
HARD = {
    "rare": {},
    "faint": {"train.loss": {"name": "MSELoss"}},
    "smoothed": {"train.loss": {"name": "CrossEntropyLoss", "label_smoothing": 0.3}},
    "mixed up": {
        "train.objective": {"name": "mixup"},
        "build.model": {"name": "mlp", "width": 32, "dropout": 0.8},
        "prepare.columns": {"town": "exclude"},
    },
    "one column of three words": {"prepare.columns": dict.fromkeys(("size", "smoker"), "exclude")},
    "linear": {"build.model": {"name": "linear"}, "train.loss": {"name": "MSELoss"}},
}


@pytest.mark.parametrize("kind", HARD)
def test_a_healthy_training_that_is_hard_has_nothing_wrong(
    kind: str, tmp_path: Path, measure: Measure
) -> None:
    faint = faint_table(3000)
    tables = {"rare": rare_table(3000), "faint": faint, "linear": faint}
    changes = {"build.model": {"name": "mlp", "width": 64}, "train.optimizer.lr": 1e-2}
    table = tables.get(kind, mixed_table(400))
    project = ready_to_train(tmp_path / "p", {**changes, **HARD[kind]}, table)
    told = [each for name in ("learning", "splits") for each in measure(project, name)]
    assert [each.level for each in told] == ["ok"] * len(told), told


def test_later_rows_differ_from_earlier_ones_by_design(tmp_path: Path, measure: Measure) -> None:
    day = pl.int_range(400, eager=True)
    table = mixed_table(400).with_columns(day=day, size=pl.col("size").fill_null(10) + day / 40)
    changes = {"prepare.structure": {"time": "day"}}
    told = measure(ready_to_train(tmp_path / "p", changes, table), "splits")
    assert {each.level for each in told} <= {"ok", "note"}, told
    assert told[0].level == "note"
    assert "they are the later ones (prepare.structure.time)" in told[0].what


def test_groups_that_stay_together_are_not_told_by_what_their_rows_share(
    tmp_path: Path, measure: Measure
) -> None:
    draw = np.random.default_rng(4)
    patient = np.repeat(np.arange(40), 20)
    shared = draw.normal(size=(40, 3))[patient]
    table = pl.DataFrame(
        {
            "id": np.arange(800),
            "patient": patient,
            **{f"x{i}": shared[:, i] for i in range(3)},
            "y": np.where(shared[:, 0] + draw.normal(size=800) > 0, "ill", "well"),
        }
    )
    changes = {"prepare.structure": {"group": "patient"}}
    told = measure(ready_to_train(tmp_path / "p", changes, table), "splits")
    assert [each.level for each in told] == ["ok"], told


def test_what_luck_makes_of_many_classes_and_few_rows_is_no_difference() -> None:
    draw = np.random.default_rng(0)
    train, validation = (draw.integers(100, size=size) for size in (800, 150))
    assert list(compare_targets(train, validation, (800, 150))) == []
    values = draw.normal(size=40) + np.repeat([0.0, 0.6], [35, 5])
    assert list(compare_targets(values[:35], values[35:], (35, 5))) == []
    moved = values[35:] + 3.0
    assert len(list(compare_targets(values[:35], moved, (35, 5)))) == 1


def test_a_forest_that_finds_nothing_in_images_proves_nothing(
    built: Project, measure: Measure, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw = np.random.default_rng(0)
    split = {"image": draw.integers(256, size=(300, 1, 5, 5)), "target": draw.integers(2, size=300)}
    monkeypatch.setattr("stages.tools.diagnose.learning.load_arrays", lambda _: split)
    seen = Score(forest=0.5, guess=0.5, errors=0.1)
    monkeypatch.setattr("stages.tools.diagnose.learning.forest_score", lambda *_, **__: seen)
    assert [each.level for each in measure(built, "learning")] == ["ok", "note"]


def test_what_can_not_be_measured_is_no_end_of_the_others(
    built: Project, project: Project, measure: Measure
) -> None:
    (project.path / "data/build/model.json").unlink()
    (found,) = measure(project, "layers")
    assert found.level == "note"
    assert "run 'dvc repro build' first" in found.what
    (found,) = measure(built, "nonsense")
    assert "there is no measurement 'nonsense'" in found.what
