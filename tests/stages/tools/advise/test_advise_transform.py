"""Advice on a target of a long tail: its logarithm is learned, and judged in its own units."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from stages.common.yamlfile import read_yaml
from stages.features.schema import read_schema
from stages.model.model import read_spec
from stages.tools.advise.__main__ import ALONE
from stages.tools.advise.changes import TRANSFORM, loss_arms
from stages.tools.advise.measure.arms import INCUMBENT, Arm, Incumbent
from stages.tools.advise.measure.judge import Metric
from stages.tools.advise.measure.rows import read_pool
from stages.tools.advise.measure.study import Asked, At, Study
from stages.tools.advise.measure.trainings import Journal
from stages.training.recipe import BUILT, PREPARED
from tests.conftest import Project
from tests.support.samples import run_stages, set_params, small_project
from tests.support.stages.advised import CHANGES

OF_VALUES = {
    **CHANGES,
    "prepare.target": "price",
    "train.loss": {"name": "MSELoss"},
    "train.optimizer": {"name": "AdamW", "lr": 0.01},
    "train.early_stopping": {"metric": "loss", "patience": None},
    "train.epochs": 8,
    "evaluate.metrics": ["mae"],
}
AT = At(1, 1.0)


def study_of(project: Project, price: np.ndarray | None = None) -> Study:
    """A study of a project's rows, with the target `price` where it is given."""
    if price is not None:
        path = project.path / "data/raw/table.parquet"
        pl.read_parquet(path).with_columns(price=price).write_parquet(path)
    run_stages(project, "prepare", "build")
    tree = read_yaml(Path("params.yaml"))
    pool = read_pool(read_schema(PREPARED), 0, torch.device("cpu"))
    incumbent = Incumbent({**tree["train"], **ALONE}, read_spec(BUILT), pool, "mae")
    return Study(incumbent, Metric("mae", "regression"), Journal(Path("journal")), 60)


def arm_of(study: Study) -> Arm | None:
    return next((a for a in loss_arms(study.incumbent) if a.topic == TRANSFORM), None)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """Prices whose logarithm the columns tell."""
    rows = np.random.default_rng(0).normal(size=(400, 3))
    price = np.exp(8 + 1.5 * rows[:, 0] + rows[:, 1] + 0.3 * rows[:, 2])
    table = pl.DataFrame({"x": rows[:, 0], "y": rows[:, 1], "price": price})
    made = small_project(tmp_path / "project", table, OF_VALUES)
    monkeypatch.chdir(made.path)
    return made


def measure(study: Study, arm: Arm) -> tuple[float, float]:
    """The gain of an arm over the recipe, and the lower end of its interval."""
    study.run([Asked(a, AT, f) for f in study.folds(AT) for a in (INCUMBENT, arm)], 60)
    found = study.estimate(arm, [AT])
    assert found is not None
    return found.gain, found.low


def test_the_logarithm_of_a_long_tail_wins_and_is_written_to_prepare(project: Project) -> None:
    study = study_of(project)
    arm = arm_of(study)
    assert arm is not None
    assert arm.applies == {TRANSFORM: "log1p"}
    gain, low = measure(study, arm)
    assert low > 0
    # The gain is in the units of the price: a good part of the error of the recipe as it is.
    values = [study.value(Asked(INCUMBENT, AT, fold)) for fold in study.folds(AT)]
    before = -np.mean([value for value in values if value is not None])
    assert 0.2 * before < gain < before
    # What it is measured by is what prepare and train then make of it, and the way back loses.
    set_params(project, arm.applies)
    changed = study_of(project)
    back = arm_of(changed)
    assert back is not None
    assert back.applies == {TRANSFORM: None}
    changed.journal.outcomes.clear()
    lost, _ = measure(changed, back)
    assert lost == pytest.approx(-gain, rel=0.2)


def test_it_is_offered_where_there_is_a_tail_and_a_logarithm(project: Project) -> None:
    random = np.random.default_rng(1)
    assert arm_of(study_of(project, random.normal(100, 5, size=400))) is None
    tail = random.exponential(size=400) ** 2
    assert arm_of(study_of(project, tail)) is not None
    assert arm_of(study_of(project, tail - 1.5)) is None
