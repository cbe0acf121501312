"""Rows that are not independent: groups stay together, later rows test earlier ones."""

from datetime import date, timedelta
from itertools import chain
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from stages.common.errors import UserError
from stages.features.numbers import Rows
from stages.prepare.params import Split
from stages.prepare.rows.split import SPLITS, Structure
from tests.stages.prepare.rows.test_split import split_rows
from tests.support.samples import run_stages, small_project

SHARES = Split(seed=0, validation=0.15, test=0.2)
NUM_ROWS = 1000
KEYS = np.arange(NUM_ROWS)
RANDOM = np.random.default_rng(0)
GROUPS = np.array([f"patient {n}" for n in RANDOM.integers(0, 120, NUM_ROWS)])
TIMES = RANDOM.integers(0, 300, NUM_ROWS).astype(np.float64)


def divide(classes: Rows | None = None, **ties: object) -> dict[str, Rows]:
    rows = split_rows(KEYS, classes, SHARES, Structure(**ties))  # type: ignore[arg-type]
    assert sorted(np.concatenate(list(rows.values())).tolist()) == KEYS.tolist()
    return rows


@pytest.mark.parametrize("times", [None, TIMES])
@pytest.mark.parametrize("classes", [None, (KEYS % 10 == 0).astype(np.int64)])
def test_no_group_is_in_two_splits(classes: Rows | None, times: object) -> None:
    rows = divide(classes, groups=GROUPS, times=times)
    names = [set(GROUPS[rows[name]]) for name in SPLITS]
    assert not names[0] & names[1] | names[0] & names[2] | names[1] & names[2]
    assert len(rows["test"]) == pytest.approx(200, abs=20)
    assert len(rows["validation"]) == pytest.approx(150, abs=20)


def test_groups_are_drawn_by_the_seed() -> None:
    first = divide(groups=GROUPS)["test"].tolist()
    other = split_rows(KEYS, None, SHARES.model_copy(update={"seed": 1}), Structure(GROUPS))
    assert first == divide(groups=GROUPS)["test"].tolist() != other["test"].tolist()


def test_groups_of_few_keep_their_classes_in_each_split() -> None:
    classes = (np.unique(GROUPS, return_inverse=True)[1] % 4 == 0).astype(np.int64)
    for numbers in divide(classes, groups=GROUPS).values():
        assert classes[numbers].mean() == pytest.approx(classes.mean(), abs=0.06)


def test_later_rows_test_earlier_ones() -> None:
    rows = divide(times=TIMES)
    assert TIMES[rows["train"]].max() < TIMES[rows["validation"]].min()
    assert TIMES[rows["validation"]].max() < TIMES[rows["test"]].min()
    assert len(rows["test"]) == pytest.approx(200, abs=10)


def test_a_group_is_as_late_as_its_last_row() -> None:
    rows = divide(groups=GROUPS, times=TIMES)
    last = {name: [TIMES[g == GROUPS].max() for g in set(GROUPS[rows[name]])] for name in SPLITS}
    assert max(last["train"]) <= min(last["validation"])
    assert max(last["validation"]) <= min(last["test"])


def test_a_column_divides_and_leaves_validation_to_the_shares() -> None:
    parts = np.where(KEYS < 700, "train", "test")
    rows = divide(parts=parts)
    assert rows["test"].tolist() == list(range(700, 1000))
    # 15 of the 80 hundredths that are not test rows.
    assert len(rows["validation"]) == round(700 * 0.15 / 0.8)
    rows = divide(parts=np.where(KEYS % 2, parts, "validation"))
    assert rows["validation"].tolist() == KEYS[::2].tolist()


def test_a_split_that_a_column_does_not_name_gets_train_rows() -> None:
    rows = divide(parts=np.where(KEYS < 850, "train", "validation"))
    assert rows["validation"].tolist() == list(range(850, 1000))
    # 20 of the 85 hundredths that are not validation rows.
    assert len(rows["test"]) == round(850 * 0.2 / 0.85)
    assert rows["test"].max() < 850
    rows = divide(parts=np.full(NUM_ROWS, "train"))
    assert [len(rows[name]) for name in SPLITS] == [650, 150, 200]


def test_two_groups_are_too_few() -> None:
    with pytest.raises(UserError, match="the table has only 1000 rows in 2 groups") as caught:
        divide(groups=np.where(KEYS % 2, "a", "b"))
    # It has a line in params.yaml, which 'prepare.split.validation' with its default has not.
    assert caught.value.problems[0].key == "prepare.structure.group"


@pytest.fixture
def table() -> pl.DataFrame:
    days = pl.Series("day", [f"{1 + n % 28}/{1 + n // 28}/2024" for n in range(120)])
    part = ["train"] * 80 + ["val"] * 20 + ["test"] * 20
    y = [None if n in (5, 7) else n * 0.5 for n in range(120)]
    return pl.DataFrame({"x": range(120), "day": days, "part": part, "y": y})


DROP = {"prepare.key": None, "prepare.drop_missing_target": True, "prepare.task": "regression"}


@pytest.mark.parametrize(
    ("ties", "test_rows"),
    [
        ({"prepare.structure": {"time": "day"}}, list(range(96, 120))),
        ({"prepare.split.column": "part"}, list(range(100, 120))),
    ],
)
def test_prepare_divides_by_a_column_and_learns_nothing_from_it(
    tmp_path: Path, table: pl.DataFrame, ties: dict[str, object], test_rows: list[int]
) -> None:
    table = table.drop("part" if "prepare.structure" in ties else "day")
    project = small_project(tmp_path / "p", table, DROP | ties)
    run_stages(project, "prepare")
    out = project.path / "data/prepare"
    keys = {name: np.load(out / name / "key.npy").tolist() for name in SPLITS}
    assert keys["test"] == test_rows
    # The rows without a target are left out, and the others keep their numbers in the file.
    assert sorted(chain(*keys.values())) == [n for n in range(120) if n not in (5, 7)]
    assert np.load(out / "train/numeric.npy").shape[1] == 1


@pytest.mark.parametrize(
    ("change", "key", "said"),
    [
        ({"prepare.structure": {"group": "paitent"}}, "prepare.structure.group", "no column"),
        (
            {"prepare.structure": {"time": "part"}},
            "prepare.columns.part",
            "'train'",
        ),
        ({"prepare.split.column": "day"}, "prepare.split.column", "says no split in 118 rows"),
        ({"prepare.split.column": "y"}, "prepare.split.column", "the target can't divide"),
        (
            {"prepare.drop_missing_target": False},
            "prepare.drop_missing_target",
            r"empty in 2 rows \(the first: \[5, 7\]\)",
        ),
    ],
)
def test_what_can_not_divide_the_rows_is_told(
    tmp_path: Path, table: pl.DataFrame, change: dict[str, object], key: str, said: str
) -> None:
    project = small_project(tmp_path / "p", table, DROP | change)
    with pytest.raises(UserError, match=said) as raised:
        run_stages(project, "prepare")
    assert raised.value.problems[0].key == key


def stores(last: list[int]) -> pl.DataFrame:
    """Rows of each day, from one store each: store 0 has those until day last[0], and so on."""
    rows = [(f"store {n}", day) for n, end in enumerate(last) for day in range(end + 1)]
    start = date(2023, 1, 1)
    days = [start + timedelta(day) for _, day in rows]
    y = [float(n % 7) for n in range(len(rows))]
    return pl.DataFrame({"x": range(len(rows)), "store": [s for s, _ in rows], "day": days, "y": y})


BOTH = {"prepare.structure": {"group": "store", "time": "day"}}


def test_groups_that_end_together_are_not_divided_by_the_time(tmp_path: Path) -> None:
    project = small_project(tmp_path / "p", stores([40] * 5), DROP | BOTH)
    with pytest.raises(UserError) as raised:
        run_stages(project, "prepare")
    (problem,) = raised.value.problems
    assert problem.key == "prepare.structure"
    assert problem.message.startswith("5 groups end together, at 2023-02-10, the latest time of ")
    assert "(test rows would begin at 2023-01-01, and no group of theirs " in problem.message
    assert "structure: {time: day}\n" in problem.message
    assert problem.message.endswith("structure: {group: store}")


def test_groups_that_overlap_in_time_are_said_with_dates(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    project = small_project(tmp_path / "p", stores([20, 25, 30, 35, 40]), DROP | BOTH)
    run_stages(project, "prepare")
    said = capfd.readouterr().out
    assert "warning  31 of 41 test rows are no later than the latest train row: training" in said
    assert "ends at 2023-01-31, and the earliest test row is of 2023-01-01" in said
    # A group whose first row is later than all others overlaps none.
    table = stores([40] * 5).with_columns(store="m" + pl.col("day").dt.day().floordiv(4).cast(str))
    table = table.filter(pl.col("day") < date(2023, 2, 1))
    run_stages(small_project(tmp_path / "q", table, DROP | BOTH), "prepare")
    assert "no later than" not in capfd.readouterr().out
