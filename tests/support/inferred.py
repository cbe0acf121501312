"""A small project with a column of every kind, of which all stages up to infer have run."""

import json
import shutil
import subprocess
import sys
import tempfile
from atexit import register
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from stages.model.predictor import load_predictor
from tests.conftest import Project, project_environment
from tests.support.samples import mixed_table, run_stages, small_project

IMAGES = np.random.default_rng(3).integers(0, 17, (120, 2, 3), dtype=np.uint8)
TABLE = mixed_table().with_columns(picture=pl.Series(IMAGES, dtype=pl.Array(pl.UInt8, (2, 3))))
UP_TO_INFER = ("prepare", "build", "tune", "train", "infer")


@cache
def inferred() -> Project:
    """One for all tests of this process: they read it, and change nothing in it."""
    folder = Path(tempfile.mkdtemp(prefix="inferred-"))
    register(shutil.rmtree, folder, ignore_errors=True)
    project = small_project(folder / "p", TABLE, {"prepare.key": "id"})
    run_stages(project, *UP_TO_INFER)
    return project


def assert_used_alone(script: str, folder: Path, towns: Callable[[str | None], Any]) -> None:
    """Hold what a process says that has the folder of infer and raw columns to what the stage says.

    Among the rows are gaps, a category that training has not seen, and an infinity; `towns` gives
    what the script's format has for a category or a gap.
    """
    table = TABLE.with_columns(
        town=pl.when(pl.col("id") != 1001).then("town").otherwise(pl.lit("Paris")),
        size=pl.when(pl.col("id") != 1002).then("size").otherwise(float("inf")),
    )
    columns = {
        "size": table["size"].fill_null(float("nan")).to_list(),
        "smoker": table["smoker"].cast(pl.Float64).fill_null(float("nan")).to_list(),
        "town": [towns(town) for town in table["town"]],
        "picture": IMAGES.tolist(),
    }
    data = inferred().path / "data"
    done = subprocess.run(
        [sys.executable, "-c", script, str(data / "infer")],
        input=json.dumps(columns),
        capture_output=True,
        text=True,
        cwd=folder,
        env={**project_environment(), "PYTHONPATH": ""},
    )
    assert done.returncode == 0, done.stderr
    names, chances, sets = json.loads(done.stdout)
    expected = load_predictor(data, coverage=0.9).predict(table)
    assert names == expected["prediction"].to_list()
    np.testing.assert_allclose(chances, expected[:, 2:4].to_numpy(), atol=1e-6)
    assert sets == expected[:, 4:].to_numpy().tolist()
