"""Paths that may be null, such as `prepare.expectations`, where DVC wants one."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from dvc.repo import Repo

from pipeline.params.paths import check_paths
from stages.common.params import declared_deps
from stages.common.yamlfile import read_yaml
from tests.conftest import ROOT
from tests.support.samples import mixed_table, run_stages, set_params, small_project

KEYS = ("prepare.expectations", "prepare.pretrained", "build.pretrained", "infer.input")
NULLS = dict.fromkeys(KEYS)


def test_null_expects_nothing_and_predicts_the_test_rows(tmp_path: Path) -> None:
    project = small_project(tmp_path, mixed_table(120), {**NULLS, "train.epochs": 1})
    run_stages(project, "prepare", "build", "tune", "train", "infer")
    rows = pl.read_parquet(tmp_path / "data/prepare/test_rows.parquet")
    # As they came, gaps and all, but the target.
    source = mixed_table(120).drop("y")
    assert rows.equals(source.filter(pl.col("id").is_in(rows["id"].implode())))
    keys = np.load(tmp_path / "data/prepare/test/key.npy")
    predicted = pl.read_parquet(tmp_path / "data/infer/predictions.parquet")
    assert predicted["id"].to_list() == rows["id"].to_list() == keys.tolist()
    assert read_yaml(tmp_path / "data/prepare/expectations.json")["expectations"] == 0


def test_dvc_takes_a_null_for_a_file_that_never_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = small_project(tmp_path, mixed_table(20), NULLS)
    monkeypatch.chdir(tmp_path)
    Repo.init(no_scm=True)

    def deps_of(stage: str) -> set[str]:
        with Repo() as repo:
            (found,) = repo.stage.collect(stage)
            return {dep.def_path for dep in found.deps if "params.yaml" not in str(dep)}

    for stage in ("prepare", "build", "infer"):
        assert "None" in deps_of(stage)
        # The stage's own reading of dvc.yaml is DVC's.
        assert Path("None") in declared_deps(stage)
    assert (ROOT / "None").is_file()
    tree = read_yaml(Path("params.yaml"))
    assert {p.key for p in check_paths(tree)} == {*NULLS}, "the file that stands for null is gone"
    Path("None").touch()
    assert check_paths(tree) == []
    # Written out, it would be one dependency twice, which DVC refuses.
    tree["infer"]["input"] = "data/prepare/test_rows.parquet"
    (problem,) = check_paths(tree)
    assert "write null" in problem.message
    set_params(project, {"infer.input": "data/raw/table.parquet"})
    assert "None" not in deps_of("infer")
    assert "data/raw/table.parquet" in deps_of("infer")
