"""The first steps of every recipe, beside what they came to when their golden file was written.

`python -m tests.end_to_end.test_golden` writes golden/<recipe>.csv anew: after a change that
is meant to alter what a recipe learns, and only then. Each has the losses of the first ten steps.
"""

import contextlib
import math
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch

from pipeline.params.template import apply_recipe
from stages.common.files import read_csv, write_csv
from stages.common.params import read_params
from stages.common.yamlfile import read_yaml
from stages.train import fit as fitting
from stages.train.recipe import read_recipe
from stages.training.device.distributed import World
from stages.training.loop import train
from stages.training.state import Result, State
from tests.conftest import ROOT, Project
from tests.support.samples import mixed_table, run_stages, set_params, small_project

RECIPES = sorted((ROOT / "docs/recipes").glob("*.yaml"))
GOLDEN = ROOT / "tests/end_to_end/golden"
NUM_LOSSES, NUM_EPOCHS = 10, 2
# Processors differ in the last digits of a sum in float32, and the steps carry that on.
TOLERANCE = 1e-4


class Enough(Exception):  # noqa: N818
    """Ends a training of which enough has been seen."""


class Recorder:
    """Called by the loop after every step and epoch: keeps the mean loss of each step.

    After two epochs, and ten steps at least, it ends the training by raising `Enough`.
    """

    def __init__(self) -> None:
        self.losses: list[float] = []
        self._loss, self._rows = 0.0, 0.0

    def __call__(self, state: State) -> None:
        loss, rows = float(state.totals.loss), float(state.totals.rows)
        if state.totals.num_steps > 0:
            self.losses.append((loss - self._loss) / (rows - self._rows))
        elif len(state.result.history) >= NUM_EPOCHS and len(self.losses) >= NUM_LOSSES:
            raise Enough
        self._loss, self._rows = loss, rows


def prepared(recipe: Path, folder: Path) -> Path:
    """A project of that recipe, on the data that it names, of which all before train has run."""
    project = small_project(folder, mixed_table(), {})
    (folder / "params.yaml").write_text(apply_recipe(recipe), encoding="utf-8")
    named = read_yaml(recipe)["prepare"]
    for name in (named["source"], named["expectations"]):
        shutil.copy2(ROOT / name, folder / name)
    run_stages(project, "prepare", "build", "tune")
    return folder


@contextlib.contextmanager
def own_settings() -> Iterator[None]:
    """What a training sets for its whole process is put back after it."""
    threads, strict = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(strict)


def step_losses(project: Path) -> list[float]:
    """Train in this process as a worker of the stage does; the loss of each step."""
    recorder = Recorder()

    def recorded(*given: Any, on_epoch_end: Any, **_: Any) -> Result:
        # Not the hooks of the stage for checkpoints: here there are none.
        return train(*given, on_epoch_end=on_epoch_end, on_step_end=recorder)

    out = project / "out"
    with (
        own_settings(),
        contextlib.chdir(project),
        mock.patch.dict(os.environ, {"REPRISE_DEVICE": "cpu"}),
        mock.patch.object(fitting, "train", recorded),
        contextlib.suppress(Enough),
    ):
        fitting.fit(read_recipe(read_params("train")), out, World(), None)
    assert not out.exists(), "the training ended of itself"
    return recorder.losses


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_begins_as_it_did(recipe: Path, tmp_path: Path) -> None:
    project = prepared(recipe, tmp_path / "project")
    losses = step_losses(project)
    rows = read_csv(GOLDEN / f"{recipe.stem}.csv")
    assert [int(row["step"]) for row in rows] == list(range(1, NUM_LOSSES + 1))
    golden = [float(row["loss"]) for row in rows]
    assert losses[:NUM_LOSSES] == pytest.approx(golden, rel=TOLERANCE, abs=0)
    # To the last bit.
    assert step_losses(project) == losses
    assert all(map(math.isfinite, losses))


def test_the_order_of_a_sum_hardly_shows_where_every_step_takes_all_rows(tmp_path: Path) -> None:
    # All rows around a mean of 0: the first gradient of the bias is nothing but rounding, of which
    # Adam would make a step of full length, but for the `eps` of the recipe.
    (recipe,) = (path for path in RECIPES if path.stem == "linear_regression")
    project, losses = prepared(recipe, tmp_path / "project"), []
    for seed in (0, 1):
        # Of a model that begins with zeros, it moves the order of rows alone.
        set_params(Project(project), {"seed": seed})
        losses.append(step_losses(project)[:NUM_LOSSES])
    assert losses[0] != losses[1]
    assert losses[0] == pytest.approx(losses[1], rel=TOLERANCE / 10, abs=0)


def test_every_golden_file_is_that_of_a_recipe() -> None:
    assert [path.stem for path in sorted(GOLDEN.iterdir())] == [path.stem for path in RECIPES]


def main() -> None:
    """Write all golden files anew."""
    for recipe in RECIPES:
        with tempfile.TemporaryDirectory() as folder:
            losses = step_losses(prepared(recipe, Path(folder) / "project"))
        rows = [(step, repr(loss)) for step, loss in enumerate(losses[:NUM_LOSSES], start=1)]
        write_csv(GOLDEN / f"{recipe.stem}.csv", ("step", "loss"), rows)


if __name__ == "__main__":
    main()
