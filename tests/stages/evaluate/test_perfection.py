"""A perfect metric on test rows: when it is one, and what is asked."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from stages.evaluate.measure.perfection import is_perfect
from stages.features.schema import Array
from tests.support.samples import run_stages, small_project

CODES = np.arange(60) % 3
VALUES = np.linspace(0, 100, 60)
# One row of a second class, or far from all others.
RARE = np.arange(60) // 59
FAR = np.append(VALUES, 1e9)


@pytest.mark.parametrize(
    ("name", "value", "target", "expected"),
    [
        ("accuracy", 1.0, CODES, True),
        ("accuracy", 0.9999, CODES, False),
        ("accuracy", 1.0, CODES[:49], False),
        ("accuracy", 1.0, CODES * 0, False),
        ("log_loss", 0.00001, CODES, True),
        ("log_loss", 0.001, CODES, False),
        # Of a model that always says the shares of the classes.
        ("ece", 0.0, CODES, False),
        ("r2", 1.0, VALUES, True),
        ("r2", 0.99, VALUES, False),
        ("rmse", 0.1, VALUES, True),
        ("rmse", 1.0, VALUES, False),
        # Always to say the frequent one is right 59 times.
        ("accuracy", 1.0, RARE, False),
        ("log_loss", 0.0, RARE, False),
        ("accuracy", 1.0, np.arange(60) // 55, True),
        # A row far off makes the deviation, and is all that R² looks at.
        ("rmse", 5.0, FAR, False),
        ("rmse", 0.1, FAR, True),
        ("r2", 1.0 - 1e-12, FAR, False),
        ("r2", 1.0, FAR, True),
        # A metric of one's own: nobody knows what is its best.
        ("ks", 1.0, CODES, False),
    ],
)
def test_a_metric_is_perfect(name: str, value: float, target: Array, *, expected: bool) -> None:
    task = "regression" if target.dtype == np.float64 else "classification"
    assert is_perfect(name, value, task, target) == expected


def test_evaluate_asks_at_a_perfect_metric(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    y = random.random(400) < 0.5
    columns = {"x": random.normal(size=400), "paid": np.where(y, 3.0, -3.0), "y": y.astype(int)}
    changes = {
        "evaluate.metrics": ["accuracy"],
        "train.optimizer": {"name": "Adam", "lr": 0.05},
        "train.epochs": 15,
        "prepare.key": None,
        "prepare.task": "classification",
    }
    project = small_project(tmp_path / "project", pl.DataFrame(columns), changes)
    run_stages(project, "prepare", "build", "tune", "train")
    (said,) = [
        line
        for line in project.run("python", "-m", "stages.evaluate").stdout.splitlines()
        if line.startswith("warning")
    ]
    assert said.startswith("warning  accuracy is perfect on all 80 test rows, which is rare")
    assert "first of all 'paid'" in said
    assert "is perfect" in (project.path / "data/evaluate/card.md").read_text()
