"""Which row goes where: by its key and the seed alone, class by class."""

import tempfile
from datetime import date
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl
import pytest

from stages.common.errors import UserError
from stages.features.numbers import Rows
from stages.features.schema import Feature, Schema, Target
from stages.prepare.params import Split
from stages.prepare.rows.keys import hash_names
from stages.prepare.rows.split import SPLITS, Structure
from stages.prepare.rows.split import split_rows as find_codes
from stages.prepare.rows.twins import Twins, find_twins, say_remedy, write_twins
from tests.support.samples import prepare_params, run_stages, small_project

Keys = npt.NDArray[np.generic]

NUM_ROWS = 1000
KEYS = np.arange(5000, 5000 + NUM_ROWS)
# Four classes of very different sizes.
CLASSES = np.repeat([0, 1, 2, 3], [600, 300, 90, 10])
SHARES = Split(seed=0, validation=0.15, test=0.2)


def split(
    keys: Keys = KEYS, classes: Keys | None = CLASSES, shares: Split = SHARES
) -> dict[str, set[int | str]]:
    """The keys in each split."""
    rows = split_rows(keys, classes, shares)
    return {name: set(keys[numbers].tolist()) for name, numbers in rows.items()}


def split_rows(
    keys: Keys, classes: Keys | None, shares: Split, structure: Structure | None = None
) -> dict[str, Rows]:
    """The numbers of the rows of each split, ascending."""
    codes = find_codes(hash_names(shares.seed, keys), classes, shares, structure)
    return {name: np.flatnonzero(codes == code) for code, name in enumerate(SPLITS)}


def place_of(parts: dict[str, set[int | str]]) -> dict[int | str, str]:
    return {key: name for name, keys in parts.items() for key in keys}


@pytest.mark.parametrize("classes", [CLASSES, None])
def test_every_row_is_in_one_split(classes: Keys | None) -> None:
    rows = split_rows(KEYS, classes, SHARES)
    assert tuple(rows) == SPLITS
    everything = np.concatenate(list(rows.values()))
    assert sorted(everything.tolist()) == list(range(NUM_ROWS))


def test_the_same_seed_and_keys_give_the_same_split() -> None:
    assert split() == split(KEYS.copy(), CLASSES.copy())


def test_the_split_of_today_is_that_of_tomorrow() -> None:
    # Another hash, or another way to cut, would move the test rows of every project.
    rows = split_rows(np.arange(10), None, Split(seed=0, validation=0.2, test=0.3))
    assert {name: numbers.tolist() for name, numbers in rows.items()} == {
        "train": [0, 1, 2, 4, 6],
        "validation": [5, 8],
        "test": [3, 7, 9],
    }


@pytest.mark.parametrize("keys", [KEYS, np.array([f"patient {key}" for key in KEYS])])
def test_the_order_of_the_rows_does_not_matter(keys: Keys) -> None:
    order = np.random.default_rng(1).permutation(NUM_ROWS)
    assert split(keys[order], CLASSES[order]) == split(keys, CLASSES)


def test_splits_have_their_sizes() -> None:
    rows = split_rows(KEYS, None, SHARES)
    assert {name: len(numbers) for name, numbers in rows.items()} == {
        "train": 650,
        "validation": 150,
        "test": 200,
    }


def test_every_class_has_its_share_in_every_split_within_a_row() -> None:
    shares = {"test": SHARES.test, "validation": SHARES.validation}
    shares["train"] = 1 - sum(shares.values())
    for name, numbers in split_rows(KEYS, CLASSES, SHARES).items():
        for code, size in enumerate(np.bincount(CLASSES)):
            assert abs((CLASSES[numbers] == code).sum() - shares[name] * size) <= 1, (name, code)


@pytest.mark.parametrize("size", [3, 4, 5, 6, 10])
@pytest.mark.parametrize(("validation", "test"), [(0.01, 0.01), (0.15, 0.2), (0.45, 0.5)])
def test_a_rare_class_is_in_every_split(size: int, validation: float, test: float) -> None:
    classes = np.repeat([0, 1], [NUM_ROWS - size, size])
    shares = Split(seed=0, validation=validation, test=test)
    for numbers in split_rows(KEYS, classes, shares).values():
        assert (classes[numbers] == 1).any()


def test_another_seed_splits_anew() -> None:
    first, second = (split(shares=SHARES.model_copy(update={"seed": s})) for s in (0, 1))
    assert {n: len(keys) for n, keys in first.items()} == {n: len(k) for n, k in second.items()}
    # By chance a fifth of the test rows is shared; the standard deviation is 5 of 200 rows.
    assert 20 <= len(first["test"] & second["test"]) <= 60


def test_a_row_that_is_added_moves_hardly_any_other() -> None:
    # Each border between splits moves by a row, so at most three rows change sides.
    before = place_of(split(KEYS[:900], None))
    for number in range(900, NUM_ROWS):
        after = place_of(split(KEYS[: number + 1], None))
        assert sum(after[key] != place for key, place in before.items()) <= 3
        before = after


def test_a_table_that_grows_by_a_tenth_keeps_most_test_rows() -> None:
    order = np.random.default_rng(2).permutation(NUM_ROWS)
    keys, classes = KEYS[order], CLASSES[order]
    before, after = split(keys[:900], classes[:900])["test"], split(keys, classes)["test"]
    assert len(before & after) >= 0.9 * len(before)


def test_removed_rows_move_hardly_any_other() -> None:
    before = place_of(split())
    kept = np.arange(NUM_ROWS) % 50 != 7
    after = place_of(split(KEYS[kept], CLASSES[kept]))
    assert sum(before[key] != place for key, place in after.items()) <= 3 * (~kept).sum()


@pytest.mark.parametrize("num_rows", [1, 2])
def test_a_table_too_small_for_three_splits_is_an_error(num_rows: int) -> None:
    with pytest.raises(UserError, match=f"the table has only {num_rows} rows") as caught:
        split_rows(KEYS[:num_rows], None, SHARES)
    assert caught.value.problems[0].key == "prepare.split"


def test_three_rows_are_enough() -> None:
    assert [len(rows) for rows in split_rows(KEYS[:3], None, SHARES).values()] == [1, 1, 1]


def twins(
    folder: Path,
    arrays: dict[str, dict[str, list[object]]],
    *,
    calendar: bool = False,
    has_key: bool = True,
) -> list[Twins]:
    schema = Schema(
        key=None,
        features=[Feature(name="x", kind="datetime" if calendar else "numeric", calendar=calendar)],
        target=Target(name="y", task="regression"),
    )
    folder = Path(tempfile.mkdtemp(dir=folder))
    for split, part in arrays.items():
        (folder / split).mkdir()
        np.save(folder / split / "key.npy", part["key"])
        for start, half in ((1, slice(1, None)), (0, slice(1))):
            own = {kind: np.array(values[half]) for kind, values in part.items()}
            table = pl.DataFrame({"x": own.get("x", own["target"]), "y": own["target"]})
            encoded = {kind: array for kind, array in own.items() if kind != "x"}
            write_twins(folder, split, encoded, table, schema, start)
    return list(find_twins(folder, folder, tuple(arrays), has_key=has_key))


def said(folder: Path, arrays: dict[str, dict[str, list[object]]]) -> list[str]:
    return [found.line for found in twins(folder, arrays)]


def test_rows_that_stand_in_two_splits_are_counted(tmp_path: Path) -> None:
    train = {"numeric": [[1.0], [2.0], [3.0], [3.0]], "boolean": [[0], [0], [1], [1]]}
    train |= {"target": [0, 1, 1, 0], "key": [10, 11, 12, 13]}
    validation = {
        "numeric": [[5.0], [2.0]],
        "boolean": [[0], [1]],
        "target": [0, 1],
        "key": [20, 21],
    }
    test = {"numeric": [[1.0], [5.0], [3.0], [3.0], [9.0]], "boolean": [[0], [0], [1], [1], [1]]}
    test |= {"target": [0, 1, 0, 1, 1], "key": [30, 31, 32, 33, 34]}
    (line,) = said(tmp_path, {"train": train, "validation": validation, "test": test})
    assert line.startswith(
        "4 of 5 test rows (3 groups of equal rows) stand in train or validation too, in every "
        "feature, 3 of them with the same target: the first have the keys 30, 31, 32; "
    )
    (line,) = said(tmp_path, {"train": train, "validation": train})
    assert line.startswith("4 of 4 validation rows (3 groups of equal rows) stand in train too")
    assert said(tmp_path, {"train": train, "validation": validation}) == []
    images = {"image": [[[[1, 2]]], [[[3, 4]]], [[[1, 2]]]], "target": [0, 1, 1], "key": [1, 2, 3]}
    (line,) = said(
        tmp_path, {"train": images, "test": {name: part[1:] for name, part in images.items()}}
    )
    assert line.startswith("2 of 2 test rows (2 groups of equal rows) stand in train too")


TOGETHER, FIRST = "together keeps copies in one split", "first keeps one of each"


@pytest.mark.parametrize(
    ("changes", "offered"),
    [
        ({}, f": prepare.duplicates: {TOGETHER}, {FIRST}"),
        ({"structure": {"group": "g"}}, f": prepare.duplicates: {TOGETHER}, {FIRST}"),
        ({"structure": {"time": "day"}}, f": prepare.duplicates: {FIRST}"),
        ({"split": {**SHARES.model_dump(), "column": "part"}}, f": prepare.duplicates: {FIRST}"),
        ({"duplicates": "first"}, f": prepare.duplicates: {TOGETHER}"),
        ({"duplicates": "first", "structure": {"time": "day"}}, ""),
        ({"duplicates": "together"}, ""),
    ],
)
def test_of_rows_in_two_splits_that_is_offered_which_works(
    changes: dict[str, object], offered: str
) -> None:
    copies = Twins("", are_equal=True, are_copies=True)
    assert say_remedy(prepare_params(**changes), copies) == offered


def test_rows_that_are_equal_to_a_model_alone_are_no_copies(tmp_path: Path) -> None:
    # Two values that training has not seen have one code.
    arrays = {"categorical": [[0], [1]], "x": ["Ann", "Bo"], "target": [1, 0], "key": [0, 1]}
    others = arrays | {"x": ["Cy", "Di"], "key": [2, 3]}
    (found,) = twins(tmp_path, {"train": arrays, "test": others}, has_key=False)
    assert found.line == (
        "2 of 2 test rows (2 groups of equal rows) stand in train too, in all that is learned "
        "from, 2 of them with the same target: the first are the rows 2, 3; what is learnt by "
        "heart looks right there"
    )
    assert say_remedy(prepare_params(), found) == ""
    # With another target nothing is left out by `first`.
    (found,) = twins(tmp_path, {"train": arrays, "test": arrays | {"target": [7, 8]}})
    assert say_remedy(prepare_params(), found) == f": prepare.duplicates: {TOGETHER}"
    (found,) = twins(tmp_path, {"train": arrays, "test": arrays})
    assert say_remedy(prepare_params(), found) == f": prepare.duplicates: {TOGETHER}, {FIRST}"


def test_days_at_one_place_of_a_calendar_are_no_twins(tmp_path: Path) -> None:
    monday = {"datetime": [[0.5]], "x": [date(2024, 1, 1)], "target": [1], "key": [0]}
    another = monday | {"x": [date(2024, 1, 8)], "key": [7]}
    assert twins(tmp_path, {"train": monday, "test": another}, calendar=True) == []
    assert len(twins(tmp_path, {"train": monday, "test": monday}, calendar=True)) == 1


def test_patients_with_equal_rows_are_told_of_by_prepare(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    random = np.random.default_rng(0)
    patients = pl.DataFrame(
        {"age": random.normal(50, 9, 120), "y": random.choice(["ill", "well"], 120)}
    )
    table = pl.concat([patients] * 6).with_row_index("id")
    project = small_project(tmp_path / "p", table, {"prepare.key": "id"})
    run_stages(project, "prepare")
    lines = [x for x in capsys.readouterr().out.splitlines() if x.startswith("warning  ")]
    validation, test = lines
    assert "of 108 validation rows" in validation
    assert validation.endswith(f"looks right there: prepare.duplicates: {TOGETHER}, {FIRST}")
    assert "stand in train too" in validation
    assert " of 144 test rows" in test
    assert "stand in train or validation too" in test
    run_stages(small_project(tmp_path / "q", patients.with_row_index("id"), {}), "prepare")
    assert "warning" not in capsys.readouterr().out
