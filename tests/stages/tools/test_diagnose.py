"""Measurements of a training: each finds what it is for, provoked for real, and nothing else."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from stages.tools.diagnose.__main__ import measure_all, names
from stages.tools.diagnose.learning import Score
from stages.tools.diagnose.measured import Measured
from stages.tools.diagnose.sample import draw_by_class, draw_rows
from stages.tools.diagnose.splits import compare_targets
from stages.training.data.source import TensorSource
from tests.conftest import Project
from tests.support.broken import DATASET, MODEL, own_code
from tests.support.samples import (
    mixed_table,
    ready_to_train,
    run_stages,
    set_params,
)
from tests.support.tables import faint_table, rare_table

pytestmark = pytest.mark.usefixtures("one_thread")
Measure = Callable[[Project, str], list[Measured]]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A small project that has trained: two classes, 400 rows."""
    changes = {"build.model": {"name": "mlp", "width": 32}, "train.optimizer.lr": 1e-2}
    project = ready_to_train(tmp_path_factory.mktemp("built") / "p", changes, mixed_table(400))
    run_stages(project, "train")
    return project


@pytest.fixture
def project(built: Project, tmp_path: Path) -> Project:
    """A copy of it to change."""
    shutil.copytree(built.path, tmp_path / "project")
    return Project(tmp_path / "project")


@pytest.fixture
def measure(monkeypatch: pytest.MonkeyPatch) -> Measure:
    """Measures in a project; what is passing is left out."""

    def run(project: Project, name: str) -> list[Measured]:
        told: list[Measured] = []
        monkeypatch.chdir(project.path)
        monkeypatch.setattr("stages.tools.diagnose.__main__.tell", told.append)
        monkeypatch.setattr("stages.tools.diagnose.memory.tell", lambda _: None)
        measure_all([name])
        return told

    return run


def use_model(
    project: Project, monkeypatch: pytest.MonkeyPatch, made: str, returned: str, **changes: Any
) -> None:
    """Build a model of the test's own."""
    own_code(project, "models", "own", MODEL.format(made=made, returned=returned), monkeypatch)
    set_params(project, {"build.model": {"name": "own"}, **changes})
    run_stages(project, "build")


def test_a_training_that_is_well_has_nothing_wrong(built: Project, measure: Measure) -> None:
    told = [each for name in names() for each in measure(built, name)]
    assert names() == ["labels", "layers", "learning", "memory", "rate", "shapes", "splits"]
    assert {each.level for each in told} == {"ok"}, told
    assert all(each.cause == "" and each.mend == () for each in told)
    assert len(told) == 9


def test_the_row_with_a_label_out_of_range_is_named(
    project: Project, measure: Measure, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = DATASET.format(returned="return features, target + 2 * (row in (3, 8))")
    own_code(project, "datasets", "own", code, monkeypatch)
    set_params(project, {"train.dataset": {"name": "own"}})
    (found,) = measure(project, "labels")
    keys = np.load(project.path / "data/prepare/train/key.npy", mmap_mode="r")
    targets = np.load(project.path / "data/prepare/train/target.npy")
    assert f"the train row with the key {keys[3]} (row 3) has the label {targets[3] + 2}" in (
        found.what
    )
    assert "and so has 1 other; the model gives the classes 0 to 1" in found.what
    assert (found.level, found.cause) == ("wrong", "a label out of range")


def test_the_layer_at_which_shapes_stop_is_named(
    project: Project, measure: Measure, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = ("self.a = nn.Linear(width, 6); self.b = nn.Linear(5, num_outputs)", "{}(self.a(x))")
    for call, cause in (
        ("return self.b", "shapes that don't fit"),
        ("return self.a.double()", "numbers of the wrong type"),
    ):
        code = MODEL.format(made=parts[0], returned=parts[1].format(call))
        own_code(project, "models", "own", code, monkeypatch)
        set_params(project, {"build.model": {"name": "own"}})
        (found,) = measure(project, "shapes")
        assert found.cause == cause, found
        assert "fails here" in found.what
    code = MODEL.format(made=parts[0], returned="return self.b(self.a(x))")
    own_code(project, "models", "own", code, monkeypatch)
    said = measure(project, "shapes")[0].what
    assert "a (Linear): (2, 2) float32 -> (2, 6) float32\n" in said
    assert "b (Linear): (2, 6) float32 -> fails here; it has weight (2, 5), bias (2,)" in said


def test_the_rows_that_fit_are_measured(
    project: Project, measure: Measure, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What it asks torch for is refused by the system, from 17 rows on.
    big = "torch.ones(2**45 if len(x) > 16 and self.training else 1).sum() * 0"
    made = "self.last = nn.Linear(width, num_outputs)"
    returned = f"return self.last(x) + {big}"
    use_model(project, monkeypatch, made, returned, **{"train.batch_size": 60})
    (found,) = measure(project, "memory")
    assert found.what == "16 rows at once fit, 32 do not"
    assert found.mend[0].startswith("train.micro_batch_size: 16 ")
    # Where the next step would take more than there is, the system is not put to the test.
    monkeypatch.setattr("stages.tools.diagnose.memory.free_bytes", lambda: -1)
    monkeypatch.setattr("stages.tools.diagnose.memory.peak_bytes", iter(range(99)).__next__)
    (found,) = measure(project, "memory")
    assert found.what.startswith("2 rows at once fit; 4 would take")


def test_a_rate_above_all_that_work_is_told_with_one_that_does(
    project: Project, measure: Measure
) -> None:
    set_params(project, {"train.optimizer": {"name": "SGD", "lr": 1e6}, "train.clip_norm": None})
    (found,) = measure(project, "rate")
    assert found.level == "note", found
    rate = float(found.mend[0].removeprefix("train.optimizer.lr: "))
    assert 1e-5 < rate < 10


def test_where_it_is_not_the_rate_it_says_so(
    project: Project, measure: Measure, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = DATASET.format(
        returned="features['numeric'] += float('nan')\n        return features, target"
    )
    own_code(project, "datasets", "own", code, monkeypatch)
    set_params(project, {"train.dataset": {"name": "own"}})
    (found,) = measure(project, "rate")
    assert "the rate is not the reason" in found.what


DEEP = "self.all = nn.Sequential(nn.Linear(width, 9), *[{layer} for _ in range(12)])"
LAST = "; self.last = nn.Linear(9, num_outputs)"
THROUGH = "return self.last(self.all(x))"
LAYERS = {
    "a dead ReLU network": (
        "self.first = nn.Linear(width, 9); self.last = nn.Linear(9, num_outputs)",
        "return self.last(torch.relu(self.first(x) - 50))",
    ),
    "gradients that vanish": (
        DEEP.format(layer="nn.Sequential(nn.Linear(9, 9), nn.Sigmoid())") + LAST,
        THROUGH,
    ),
    "gradients that explode": (
        DEEP.format(layer="nn.Linear(9, 9)")
        + LAST
        + "\n        with torch.no_grad(): [w.mul_(9) for w in self.all.parameters()]",
        THROUGH,
    ),
}


@pytest.mark.parametrize("cause", LAYERS)
def test_layers_that_pass_nothing_or_too_much(
    project: Project, measure: Measure, monkeypatch: pytest.MonkeyPatch, cause: str
) -> None:
    use_model(project, monkeypatch, *LAYERS[cause])
    told = measure(project, "layers")
    assert [each.cause for each in told] == [cause], told
    assert "with the first weights" in told[0].what


def test_a_step_that_was_far_too_long_has_ended_the_network(
    project: Project, measure: Measure
) -> None:
    set_params(
        project,
        {
            "train.optimizer": {"name": "SGD", "lr": 1e3},
            "build.model": {"name": "mlp", "width": 32, "layers": 3},
            "train.epochs": 3,
            "train.clip_norm": 1.0,
            "train.early_stopping": None,
        },
    )
    run_stages(project, "build", "train")
    told = measure(project, "layers")
    assert [each.cause for each in told] == ["", "a dead ReLU network"], told
    assert "with the weights trained last" in told[1].what


def test_a_rate_that_is_too_low_is_told_with_a_better_one(
    project: Project, measure: Measure
) -> None:
    set_params(project, {"train.optimizer.lr": 1e-5})
    (found,) = measure(project, "learning")
    assert found.cause == "a rate that is too low", found
    assert found.mend in (("train.optimizer.lr: 1.0e-03",), ("train.optimizer.lr: 1.0e-02",))


def test_a_model_that_can_not_learn_is_not_blamed_on_the_rate(
    project: Project, measure: Measure, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Its output depends on no row.
    use_model(
        project, monkeypatch, "self.last = nn.Linear(width, num_outputs)", "return self.last(x * 0)"
    )
    monkeypatch.setattr("stages.tools.diagnose.by_heart.NUM_STEPS", 60)
    (found,) = measure(project, "learning")
    assert found.cause == "the model predicts the same for every row"
    assert "no better at other rates" in found.what


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
