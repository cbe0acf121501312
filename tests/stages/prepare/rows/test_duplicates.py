"""`prepare.duplicates`: rows that are equal in every feature, in one split or left out."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from stages.common.errors import UserError
from stages.common.files import read_csv
from stages.features.schema import load_arrays
from stages.prepare.columns.infer_schema import find_schema
from stages.prepare.rows.duplicates import digest, find_firsts, tie
from stages.prepare.rows.split import Structure
from tests.conftest import Project
from tests.support.samples import mixed_table, prepare_params, run_stages, small_project

SPLITS = ("train", "validation", "test")


def different() -> pl.DataFrame:
    """120 rows, of which no two are equal."""
    return mixed_table().with_columns(size=pl.col("id").sqrt())


def with_copies() -> pl.DataFrame:
    """120 rows; 40 copies of the first, of which every fourth has the other target."""
    table = different()
    other = pl.when(pl.col("y") == "ill").then(pl.lit("well")).otherwise(pl.lit("ill"))
    copies = table.head(40).with_columns(
        id=pl.col("id") + 5000, y=pl.when(pl.col("id") % 4 == 0).then(other).otherwise("y")
    )
    return pl.concat([table, copies])


def prepared(folder: Path, table: pl.DataFrame, **changes: Any) -> Project:
    project = small_project(folder, table, {"prepare.expectations": None, **changes})
    run_stages(project, "prepare")
    return project


def split_of(project: Project) -> dict[int, str]:
    """The split of each key."""
    folder = project.path / "data/prepare"
    return {k: name for name in SPLITS for k in load_arrays(folder / name)["key"].tolist()}


def test_equal_rows_are_in_one_split_and_the_others_stay_where_they_were(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = split_of(prepared(tmp_path / "warn", with_copies()))
    assert "stand in train too" in capsys.readouterr().out
    assert any(plain[key] != plain[key + 5000] for key in range(1000, 1040))
    changes = {"prepare.duplicates": "together"}
    tied = split_of(prepared(tmp_path / "together", with_copies(), **changes))
    said = capsys.readouterr().out
    assert "stand in train too" not in said
    assert "40 of 160 rows are equal to an earlier one in every feature (40 different" in said
    assert all(tied[key] == tied[key + 5000] for key in range(1000, 1040))
    moved = [key for key in plain if plain[key] != tied[key] and 1040 <= key < 1120]
    # What the copies that moved leave free is all that a row without one may move for.
    assert len(moved) < 12
    # Without equal rows nothing moves.
    alone = split_of(prepared(tmp_path / "alone", different()))
    assert split_of(prepared(tmp_path / "one", different(), **changes)) == alone


def test_the_first_of_equal_rows_stays_and_the_others_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    project = prepared(tmp_path / "first", with_copies(), **{"prepare.duplicates": "first"})
    said = capsys.readouterr().out
    assert "30 of 160 rows are equal to an earlier one" in said
    assert "left out, in data/prepare/rejected.csv" in said
    copies = [key + 5000 for key in range(1000, 1040) if key % 4]
    rejected = read_csv(project.path / "data/prepare/rejected.csv")
    assert [int(row["key"]) for row in rejected] == copies
    assert [int(row["row"]) for row in rejected] == [key - 6000 + 120 for key in copies]
    assert rejected[0]["reason"] == "equal in every feature and the target to the row 1001"
    kept = split_of(project)
    assert sorted(kept) == [key for key in with_copies()["id"] if key not in copies]
    # Of another target: it stays, and where it stands in another split that is told.
    apart = [key for key in range(1000, 1040, 4) if kept[key] != kept[key + 5000]]
    assert ("stand in train too" in said) == bool(apart)


def test_rows_are_equal_as_they_are_read() -> None:
    table = pl.DataFrame(
        {
            "a": [0.0, -0.0, float("nan"), None, 1.0, 1.0],
            "b": pl.Series(["x", "x", "y", "y", None, ""], dtype=pl.Categorical),
            "c": pl.Series([[1, 2]] * 5 + [[1, 3]], dtype=pl.Array(pl.UInt8, 2)),
            "id": range(6),
        }
    )
    whole = digest(table, ["a", "b", "c"])
    assert find_firsts(whole).tolist() == [0, 0, 2, 2, 4, 5]
    parts = [digest(table[rows], ["a", "b", "c"]) for rows in ([0, 1, 2], [3, 4, 5])]
    assert np.concatenate(parts).tolist() == whole.tolist()
    assert find_firsts(digest(table, ["id"])).tolist() == list(range(6))


def test_equal_rows_join_the_groups_that_they_are_of() -> None:
    keys, groups = np.arange(7), np.array(["c", "c", "b", "b", "a", "d", "e"])
    # The second is equal to the third, the fourth to the fifth.
    firsts = np.array([0, 1, 1, 3, 3, 5, 6])
    tied = tie(Structure(groups=groups), firsts, keys)
    assert tied.groups is not None
    assert tied.groups.tolist() == ["a", "a", "a", "a", "a", "d", "e"]
    alone = tie(Structure(), firsts, np.array(["k9", "k8", "k7", "k6", "k5", "k4", "k3"]))
    assert alone.groups is not None
    assert alone.groups.tolist() == ["k9", "k7", "k7", "k5", "k5", "k4", "k3"]


def test_what_says_the_split_of_a_row_can_exclude_together() -> None:
    parts = np.array(["train", "train", "test"])
    firsts = np.array([0, 0, 1])
    with pytest.raises(UserError, match=r"1 row is equal .* such as the row 2") as caught:
        tie(Structure(parts=parts), firsts, np.arange(3))
    (problem,) = caught.value.problems
    assert (problem.key, problem.allowed) == ("prepare.duplicates", ("warn", "first"))
    tie(Structure(parts=parts), np.array([0, 0, 2]), np.arange(3))
    params = prepare_params(key="id", duplicates="together", structure={"time": "size"})
    with pytest.raises(UserError, match="equal rows of two times can't be kept together"):
        find_schema(mixed_table(), params)
