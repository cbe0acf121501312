"""A dataset of a test's own among those of the zoo."""

import importlib.util
import shutil
import sys
from pathlib import Path

import pytest

from stages.features.schema import write_record
from stages.training import recipe
from stages.training.data import zoo_datasets as datasets
from tests.conftest import ROOT
from tests.support.training.datasets import MINE, SCHEMA, Write
from tests.support.training.prepared import STATISTICS, write_split


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Writes the dataset `mine`, given the end of its `__getitem__`, and loads it by name."""
    zoo = tmp_path / "stages/zoo/datasets"
    zoo.mkdir(parents=True)
    shutil.copytree(ROOT / "stages/zoo/objectives", tmp_path / "stages/zoo/objectives")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(datasets, "DATASETS", zoo)
    prepared = tmp_path / "prepare"
    prepared.mkdir()
    write_split(prepared / "train", 45)
    write_split(prepared / "validation", 70)
    write_record(prepared / "schema.json", SCHEMA)
    write_record(prepared / "statistics.json", STATISTICS)
    monkeypatch.setattr(recipe, "PREPARED", prepared)

    def written(make: str, after: str = "") -> None:
        body = "\n".join(f"        {line}" for line in make.strip().splitlines())
        (zoo / "mine.py").write_text(f"{MINE}{body}\n{after}", encoding="utf-8")
        spec = importlib.util.spec_from_file_location("mine", zoo / "mine.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, "stages.zoo.datasets.mine", module)
        spec.loader.exec_module(module)

    return written
