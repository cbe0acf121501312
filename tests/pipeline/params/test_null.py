"""Paths that may be null, such as `prepare.expectations`, where DVC wants one."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from dvc.repo import Repo

from pipeline.params.paths import check_paths
from stages.common.files import read_csv
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


def test_test_rows_without_a_key_have_their_numbers_in_the_source(tmp_path: Path) -> None:
    table = mixed_table(120).drop("id").rename({"town": "row"}).to_dicts()
    table[5]["y"] = table[60]["y"] = None
    source = pl.DataFrame(table)
    changes = {**NULLS, "prepare.key": None, "prepare.drop_missing_target": True}
    project = small_project(tmp_path, source, {**changes, "train.epochs": 1})
    run_stages(project, "prepare", "build", "tune", "train", "evaluate")
    keys = pl.Series("row", np.load(tmp_path / "data/prepare/test/key.npy"))
    # A row that the model can't be given is named so too.
    rows = pl.read_parquet(tmp_path / "data/prepare/test_rows.parquet")
    number = pl.int_range(pl.len())
    damaged = rows.with_columns(size=pl.when(number == 2).then(1e308).otherwise("size"))
    damaged.write_parquet(tmp_path / "data/prepare/test_rows.parquet")
    run_stages(project, "infer")
    evaluated, predicted = (
        pl.read_parquet(tmp_path / f"data/{stage}/predictions.parquet")
        for stage in ("evaluate", "infer")
    )
    kept = [place for place in range(rows.height) if place != 2]
    assert evaluated["row"].to_list() == keys.to_list() != list(range(rows.height))
    assert predicted["row"].to_list() == keys[kept].to_list()
    assert source[predicted["row"]].drop("y").equals(rows[kept])
    (rejected,) = read_csv(tmp_path / "data/infer/rejected.csv")
    assert (rejected["row"], rejected["column"]) == (str(keys[2]), "size")


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
