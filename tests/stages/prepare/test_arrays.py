"""The arrays that prepare writes of each split: fitted on train alone."""

import datetime
import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from stages.features.schema import read_schema
from stages.prepare.arrays import write_rows
from tests.conftest import Project
from tests.stages.features.encoded import Arrays
from tests.support.samples import mixed_table, run_stages, small_project


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Project:
    project = small_project(tmp_path_factory.mktemp("prepared"), mixed_table(), {})
    run_stages(project, "prepare")
    return project


def arrays_of(project: Project, split: str) -> Arrays:
    folder = project.path / "data/prepare" / split
    return {file.stem: np.load(file) for file in sorted(folder.glob("*.npy"))}


def test_nothing_is_fitted_on_validation_or_test_rows(prepared: Project, tmp_path: Path) -> None:
    table = mixed_table()
    held_out = [int(k) for s in ("validation", "test") for k in arrays_of(prepared, s)["key"]]
    # Extremes, gaps and categories that train does not have; the class stays: it stratifies.
    there = pl.col("id").is_in(held_out)
    changed = table.with_columns(
        size=pl.when(there).then(1e6).otherwise("size"),
        town=pl.when(there).then(pl.lit("Atlantis")).otherwise("town"),
        smoker=pl.when(there).then(None).otherwise("smoker"),
    )
    other = small_project(tmp_path / "changed", changed, {})
    run_stages(other, "prepare")
    ours, theirs = prepared.outputs(), other.outputs()
    assert "data/prepare/train/numeric.npy" in ours
    for name in ours:
        fitted = "/train/" in name or name.endswith(("schema.json", "statistics.json"))
        if fitted:
            assert ours[name] == theirs[name], name
        elif name.endswith(("numeric.npy", "categorical.npy", "boolean.npy")):
            # The test can fail: what was changed did reach the arrays.
            assert ours[name] != theirs[name], name


def test_statistics_are_those_of_the_train_rows(prepared: Project) -> None:
    train = arrays_of(prepared, "train")
    sizes = mixed_table().filter(pl.col("id").is_in(train["key"].tolist()))["size"].drop_nulls()
    statistics = json.loads((prepared.path / "data/prepare/statistics.json").read_text("utf-8"))
    assert statistics["numeric"]["size"] == pytest.approx(
        {"mean": sizes.mean(), "deviation": sizes.std(ddof=0)}, rel=1e-12
    )


def test_the_arrays_of_a_split_are_its_rows_encoded(prepared: Project) -> None:
    table = mixed_table()
    schema = read_schema(prepared.path / "data/prepare")
    assert schema.target.classes == ["ill", "well"]
    for split in ("train", "validation", "test"):
        arrays = arrays_of(prepared, split)
        rows = pl.DataFrame({"id": arrays["key"]}).join(table, on="id", maintain_order="left")
        assert [schema.target.classes[code] for code in arrays["target"]] == rows["y"].to_list()
        assert arrays["target"].dtype == np.int64
        assert (arrays["numeric"][:, 1] == rows["size"].is_null().to_numpy()).all()


def test_pieces_in_any_order_are_the_file_of_the_whole_and_row_0_brings_the_header(
    tmp_path: Path,
) -> None:
    array = np.arange(30, dtype=np.float32).reshape(10, 3)
    np.save(tmp_path / "whole.npy", array)
    for start in (7, 3, 7):
        write_rows(tmp_path, {"pieces": array[start : start + 4]}, start, len(array))
    assert (tmp_path / "pieces.npy").read_bytes()[:128] == bytes(128)
    write_rows(tmp_path, {"pieces": array[:3]}, 0, len(array))
    assert (tmp_path / "pieces.npy").read_bytes() == (tmp_path / "whole.npy").read_bytes()


def test_a_target_in_numbers_is_standardised_on_train(tmp_path: Path) -> None:
    table = mixed_table().with_columns(y=pl.col("id") * 2.0)
    project = small_project(tmp_path / "numbers", table, {})
    run_stages(project, "prepare")
    train, test = arrays_of(project, "train"), arrays_of(project, "test")
    values = train["key"] * 2.0
    assert test["target"].dtype == np.float32
    expected = (test["key"] * 2.0 - values.mean()) / values.std()
    np.testing.assert_allclose(test["target"], expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("target", "classes"),
    [
        (pl.Series([True, False] * 10), [False, True]),
        (pl.Series([3, -1] * 10), [-1, 3]),
        (pl.Series([2.0, 0.5] * 10), ["0.5", "2"]),
        (pl.Series(["b", "a"] * 10, dtype=pl.Enum(["b", "a"])), ["a", "b"]),
        (
            pl.Series([datetime.datetime(2024, 1, d, tzinfo=datetime.UTC) for d in (2, 1)] * 10),
            ["2024-01-01 00:00:00.000000+00:00", "2024-01-02 00:00:00.000000+00:00"],
        ),
    ],
)
def test_classes_of_every_type_are_coded_in_their_order(
    tmp_path: Path, target: pl.Series, classes: list[object]
) -> None:
    table = pl.DataFrame({"id": range(20), "x": range(20), "y": target})
    project = small_project(tmp_path / "classes", table, {"prepare.task": "classification"})
    run_stages(project, "prepare")
    assert read_schema(project.path / "data/prepare").target.classes == classes
    for split in ("train", "validation", "test"):
        arrays = arrays_of(project, split)
        # Of these tables the even rows hold the second class.
        assert arrays["target"].tolist() == (1 - arrays["key"] % 2).tolist()
