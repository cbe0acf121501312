"""Columns and classes may have any name: through every stage, and nothing of it is run or shown
as anything else than text.
"""

import io
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from pipeline.serve.bundle import load_bundle
from pipeline.serve.codec.rows import decode
from stages.model.predictor import load_predictor
from tests.conftest import Project
from tests.support.names import NAMES
from tests.support.samples import run_stages, small_project

# An empty text is a gap.
CLASSES = [*NAMES[:4], "target", "prediction", "</td><script>alert(2)</script>", "no"]
NUM_ROWS = 240


def attack(file: Path) -> str:
    """A name that makes `file` where it is taken for code."""
    return f'a"+str(__import__("pathlib").Path("{file}").touch())+"'


def table_of(names: list[str], key: str = "id") -> pl.DataFrame:
    random = np.random.default_rng(0)
    code = random.integers(len(CLASSES), size=NUM_ROWS)
    columns: dict[str, pl.Series] = {key: pl.Series(np.arange(NUM_ROWS))}
    for place, name in enumerate(names):
        values = random.normal(size=NUM_ROWS) + (code == place % len(CLASSES))
        kinds = (values, values > 0, np.array(NAMES)[(values * 2).astype(int) % 5])
        columns[name] = pl.Series(kinds[place % 3])
    return pl.DataFrame({**columns, "y'\"\n": np.array(CLASSES)[code]})


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Project, Path]:
    """A project of all these names after its stages, and the file that an attack would make."""
    folder = tmp_path_factory.mktemp("names")
    names = [*NAMES, attack(folder / "hit"), attack(folder / "hit").replace('"', "'")]
    changes = {
        "prepare.key": "id",
        "prepare.target": "y'\"\n",
        "build.model": {"name": "linear"},
        "train.epochs": 1,
        "evaluate.metrics": ["accuracy", "log_loss"],
        "evaluate.gates": {},
    }
    project = small_project(folder / "p", table_of(names), changes)
    run_stages(project, "prepare", "build", "tune", "train", "evaluate", "infer")
    return project, folder / "hit"


def test_every_stage_takes_them_and_runs_none(made: tuple[Project, Path]) -> None:
    project, hit = made
    infer = project.path / "data/infer"
    program = torch.export.load(io.BytesIO((infer / "model.pt2").read_bytes()))
    program.module()
    bundle = load_bundle(infer)
    assert not hit.exists()
    table = pl.read_parquet(project.path / "data/raw/table.parquet")
    rows = table.head(3).to_dicts()
    answers = decode(bundle.signature, bundle.run(bundle.encode(rows)), rows)
    own = load_predictor(project.path / "data", coverage=0.9).predict(table)
    assert [answer["prediction"] for answer in answers] == own["prediction"].to_list()[:3]
    written = pl.read_parquet(infer / "predictions.parquet")
    assert written.equals(own)
    assert {f"probability_{name}" for name in CLASSES} < set(written.columns)


def test_the_page_of_expectations_has_them_as_text(made: tuple[Project, Path]) -> None:
    project, _ = made
    page = (project.path / "data/prepare/expectations.html").read_text(encoding="utf-8")
    assert "<script" not in page
    assert page.count("<title>") == page.count("</title>") == 1
    assert page.count("&lt;/title&gt;&lt;script&gt;") == 2
