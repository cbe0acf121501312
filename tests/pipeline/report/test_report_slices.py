"""The report's section on slices that got worse."""

from pathlib import Path

import numpy as np
import polars as pl

from stages.compare.slice_regressions import compare_slices, find_worse, report_slices
from stages.evaluate.measure.weighted_metrics import Floats
from stages.features.schema import write_record
from tests.support.pipeline.compared import PLAIN, prepared
from tests.support.samples import mixed_table


def two_models(seed: int, num_rows: int, spoilt: int = 0) -> tuple[Floats, Floats, Floats]:
    """Values, and two equally good guesses of them but for the first `spoilt` rows of `after`."""
    random = np.random.default_rng(seed)
    target = random.normal(size=num_rows)
    before, after = (target + random.standard_t(5, num_rows) * 0.3 for _ in range(2))
    after[:spoilt] += random.normal(0, 1.5, spoilt)
    return target, before, after


def test_a_slice_that_got_worse_is_found_and_luck_is_not() -> None:
    # 30 slices of 40 rows: uncorrected, three in four pairs would have one that looks different.
    parts = [("column", str(i), np.arange(40 * i, 40 * (i + 1))) for i in range(30)]
    alarms = 0
    for seed in range(25):
        found, skipped = compare_slices("mae", "regression", parts, *two_models(seed, 1200))
        assert (len(found), skipped) == (30, 0)
        alarms += bool(find_worse("mae", found))
    # At most 5 % look worse at all, so 1 of 25; 4 or more have a chance of 3 in 100.
    assert alarms <= 3
    found, _ = compare_slices("mae", "regression", parts, *two_models(0, 1200, spoilt=40))
    assert [change.label for change in find_worse("mae", found)] == ["0"]
    assert find_worse("mae", found)[0].difference.value > 0.5


def test_slices_by_accuracy_and_those_too_small() -> None:
    random = np.random.default_rng(0)
    target = random.integers(2, size=400)
    right = np.stack([target == 0, target == 1], axis=1) * 0.8 + 0.1
    worse = right.copy()
    worse[:40] = 1 - worse[:40]
    better = right.copy()
    parts = [("town", "Bergen", np.arange(100)), ("town", "Oslo", np.arange(100, 400))]
    parts.append(("town", "Tromsø", np.arange(29)))
    found, skipped = compare_slices("accuracy", "classification", parts, target, right, worse)
    assert skipped == 1
    assert [(c.label, c.rows, c.before, c.after) for c in find_worse("accuracy", found)] == [
        ("Bergen", 100, 1.0, 0.6)
    ]
    # What got better is no section of its own, and equal rows are not worse.
    found, _ = compare_slices("accuracy", "classification", parts, target, worse, better)
    assert find_worse("accuracy", found) == []


def test_slices_of_rows_whose_key_has_any_name(tmp_path: Path) -> None:
    table = mixed_table(1000).rename({"id": "place"})
    schema = PLAIN.model_copy(update={"key": "place"})
    side = prepared(table.with_columns(place=pl.format("row {}|", "place")), schema)
    write_record(tmp_path / "schema.json", side.schema)
    write_record(tmp_path / "statistics.json", side.statistics)
    files = {name: str(tmp_path / name) for name in ("schema.json", "statistics.json")}
    folders = {}
    for split, arrays in side.splits.items():
        folders[split] = {f"{name}.npy": str(tmp_path / f"{split}-{name}.npy") for name in arrays}
        for name, array in arrays.items():
            np.save(folders[split][f"{name}.npy"], array)
    test = side.splits["test"]
    classes = pl.Series(["ill", "well"])
    target = np.arange(len(test["key"])) % 2
    for name, codes in (("before", target), ("after", 1 - target)):
        pl.DataFrame(
            {
                "place": np.array(test["key"]),
                "target": classes[target],
                "prediction": classes[codes],
                "probability_ill": 0.9 - codes * 0.8,
                "probability_well": 0.1 + codes * 0.8,
            }
        ).sample(fraction=1.0, shuffle=True, seed=1).write_parquet(tmp_path / f"{name}.parquet")
    after = {"predictions": str(tmp_path / "after.parquet"), **files, **folders}
    before = {"predictions": str(tmp_path / "before.parquet")}
    sides = {"metric": "accuracy", "columns": ["town"], "before": before, "after": after}
    found = report_slices(sides)
    assert len(found["worse"]) == found["looked_at"] == 3
