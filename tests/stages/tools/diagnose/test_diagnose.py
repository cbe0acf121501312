"""Measurements of a training: each finds what it is for, provoked for real."""

from typing import Any

import numpy as np
import pytest

from tests.conftest import Project
from tests.stages.tools.diagnose.conftest import Measure
from tests.support.broken import DATASET, MODEL, own_code
from tests.support.samples import run_stages, set_params

pytestmark = pytest.mark.usefixtures("one_thread")


def use_model(
    project: Project, monkeypatch: pytest.MonkeyPatch, made: str, returned: str, **changes: Any
) -> None:
    """Build a model of the test's own."""
    own_code(project, "models", "own", MODEL.format(made=made, returned=returned), monkeypatch)
    set_params(project, {"build.model": {"name": "own"}, **changes})
    run_stages(project, "build")


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
