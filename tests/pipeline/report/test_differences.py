"""A change of predictions: better, worse or noise, by rows and by seeds."""

from typing import Any

import numpy as np
import polars as pl
import pytest
from scipy.stats import binomtest

from pipeline.report.build import Report
from pipeline.report.data import is_renumbered
from pipeline.report.differences import StageChange, find_stage_changes
from pipeline.report.html import as_page
from pipeline.report.markdown import as_markdown
from pipeline.report.page.markup import Code
from pipeline.report.statements import change_note
from stages.compare.compare import compare
from tests.support.pipeline.predictions import predictions


def test_a_real_difference_is_marked_and_a_small_one_is_noise() -> None:
    before = predictions([row % 5 > 0 for row in range(400)])
    better = predictions([row % 20 > 0 for row in range(400)])
    found = compare(before, better, ["accuracy", "log_loss"])
    assert found["why_not"] is None
    assert {m["mark"] for m in found["metrics"].values()} == {"better"}
    assert found["metrics"]["accuracy"]["value"] == pytest.approx(0.15)
    assert found["metrics"]["log_loss"]["value"] < 0
    worse = compare(better, before, ["accuracy", "log_loss"])
    assert {m["mark"] for m in worse["metrics"].values()} == {"worse"}
    # As many rows fixed as broken, but one.
    moved = [row % 5 > 0 for row in range(400)]
    moved[0], moved[5], moved[1] = True, True, False
    assert (
        compare(before, predictions(moved), ["accuracy"])["metrics"]["accuracy"]["mark"] == "noise"
    )


def test_the_rows_that_flipped_and_mcnemar() -> None:
    before = predictions([True] * 90 + [False] * 10)
    after = predictions([False] * 3 + [True] * 97)
    flips = compare(before, after, ["accuracy"])["flips"]
    assert (flips["fixed"], flips["broken"]) == (10, 3)
    assert flips["mcnemar_p"] == pytest.approx(binomtest(10, 13).pvalue)
    assert [row[0] for row in flips["examples"]["broken"]] == ["0", "1", "2"]
    assert compare(before, before, ["accuracy"])["flips"]["mcnemar_p"] == 1.0


def test_the_prediction_is_what_was_predicted() -> None:
    before = predictions([True] * 60 + [False] * 40, sure=0.6)
    # Another threshold: the same probabilities, all rows right but one.
    after = before.with_columns(
        prediction=pl.when(pl.col("id") == 99).then("prediction").otherwise("target")
    )
    found = compare(before, after, ["accuracy", "log_loss", "roc_auc"])
    assert found["metrics"]["accuracy"]["value"] == pytest.approx(0.39)
    assert found["metrics"]["accuracy"]["mark"] == "better"
    assert found["metrics"]["log_loss"]["value"] == found["metrics"]["roc_auc"]["value"] == 0
    assert (found["flips"]["fixed"], found["flips"]["broken"]) == (39, 0)


def test_rows_are_joined_by_key_and_other_splits_are_not_compared() -> None:
    before = predictions([row % 3 > 0 for row in range(100)])
    shuffled = before.sample(fraction=1.0, shuffle=True, seed=1)
    found = compare(before, shuffled, ["accuracy"])
    assert found["metrics"]["accuracy"]["value"] == 0.0
    assert found["flips"]["fixed"] == found["flips"]["broken"] == 0
    elsewhere = before.with_columns(id=pl.col("id") + 60)
    assert "fewer than half of the rows" in compare(before, elsewhere, ["accuracy"])["why_not"]
    assert (
        "classes differ" in compare(before, before.drop("probability_b"), ["accuracy"])["why_not"]
    )
    # Keys, or classes, of another type.
    for column in ("id", "target"):
        retyped = before.with_columns(
            pl.col(column).cast(pl.String if column == "id" else pl.Categorical)
        )
        assert "classes differ" in compare(before, retyped, ["accuracy"])["why_not"]
    relabelled = before.with_columns(
        target=pl.when(pl.col("id") < 5).then(pl.lit("a")).otherwise("target")
    )
    assert compare(before, relabelled, ["accuracy"])["rows"]["relabelled"] == 3


def test_numbers_of_rows_pair_nothing_where_the_source_differs() -> None:
    """A row inserted at the top: each number names the row beside, of any target."""

    def locked(key: str | None, md5: str) -> dict[str, Any]:
        params = {"params.yaml": {"prepare": {"key": key, "source": "data/raw/t.csv"}}}
        deps = [{"path": "data/raw/t.csv", "md5": md5}, {"path": "stages/prepare", "md5": md5}]
        return {"prepare": {"params": params, "deps": deps}}

    assert is_renumbered(locked(None, "a"), locked(None, "b"))
    assert not is_renumbered(locked(None, "a"), locked(None, "a"))
    assert not is_renumbered(locked("id", "a"), locked("id", "b"))
    assert not is_renumbered({}, {})
    rows = predictions([True] * 50).rename({"id": "row"})
    found = compare(rows, rows, ["accuracy"], renumbered=True)
    assert "rows without a key are known by their number alone" in found["why_not"]
    assert "metrics" not in found


def test_values_are_compared_as_well() -> None:
    random = np.random.default_rng(0)
    target = random.normal(size=300)
    before = pl.DataFrame(
        {"row": np.arange(300), "target": target, "prediction": target + random.normal(0, 1, 300)}
    )
    after = before.with_columns(prediction=target + random.normal(0, 0.5, 300))
    found = compare(before, after, ["rmse", "r2"])
    assert {m["mark"] for m in found["metrics"].values()} == {"better"}
    assert "flips" not in found


def test_what_changed_for_a_stage() -> None:
    before = {
        "train": {
            "cmd": "x",
            "deps": [{"path": "a", "md5": "1"}],
            "params": {"params.yaml": {"train": {"lr": 1, "epochs": 2}}},
        },
        "gone": {"cmd": "y"},
    }
    after = {
        "train": {
            "cmd": "z",
            "deps": [{"path": "a", "md5": "2"}],
            "params": {
                "params.yaml": {"train": {"lr": 3, "epochs": 2}},
                "stages/versions.yaml": {"torch": "2.14.0"},
            },
        },
        "new": {"cmd": "y"},
    }
    assert find_stage_changes(before, after) == (
        StageChange("train", ("its command", "train.lr", 'torch none → "2.14.0"', "a")),
        StageChange("new", ("new",)),
        StageChange("gone", ("removed",)),
    )


def test_without_an_interval_there_is_no_verdict() -> None:
    def said(*names: str) -> str:
        before, after = (predictions([row % n > 0 for row in range(100)]) for n in (5, 4))
        found = compare(before, after, list(names))
        # As if there were seeds enough, but none of their means had an interval.
        found["replicas"] |= {"before": 3, "after": 3}
        return as_markdown(Report("main", "0" * 40, {}, {}, (), found, {})).splitlines()[0]

    assert said("ece") == "### No verdict: there is no interval of ece."
    assert "no metric differs by more than noise" in said("ece", "accuracy")


def seeds(share_wrong: float, random: np.random.Generator, spread: float) -> list[pl.DataFrame]:
    """Three replicas whose share of wrong rows scatters."""
    shares = [min(max(share_wrong + random.normal(0, spread), 0.0), 1.0) for _ in range(3)]
    return [predictions(list(random.random(400) >= share)) for share in shares]


def test_a_change_is_judged_by_the_seeds_as_well() -> None:
    random = np.random.default_rng(0)
    before, after = (seeds(share, random, 0.01) for share in (0.3, 0.1))
    found = compare(before[0], after[0], ["accuracy", "ece"], (before, after))
    change = found["metrics"]["accuracy"]["change"]
    assert found["replicas"] == {"before": 3, "after": 3, "needed": 3}
    assert change["mark"] == "better"
    right = [(side["target"] == side["prediction"]).mean() for side in (*before, *after)]
    assert change["value"] == pytest.approx(np.mean(right[3:]) - np.mean(right[:3]))  # type: ignore[arg-type]
    assert change["low"] < 0.2 < change["high"]
    # Resamples say nothing about the calibration error, so nor does this.
    assert found["metrics"]["ece"]["change"] is None
    # Seeds that scatter more than the sides differ: the rows alone see a difference.
    before, after = (seeds(share, random, 0.15) for share in (0.4, 0.3))
    found = compare(before[0], after[0], ["accuracy"], (before, after))["metrics"]["accuracy"]
    assert found["mark"] != "noise"
    assert found["change"]["mark"] == "noise"
    # Two seeds are too few.
    found = compare(before[0], after[0], ["accuracy"], (before[:2], after))
    assert found["replicas"] == {"before": 2, "after": 3, "needed": 3}
    assert found["metrics"]["accuracy"]["change"] is None


def test_replicas_are_joined_by_key_too() -> None:
    random = np.random.default_rng(1)
    before, after = (seeds(share, random, 0.02) for share in (0.3, 0.2))
    found = compare(before[0], after[0], ["accuracy"], (before, after))["metrics"]["accuracy"]
    order = random.permutation(400)
    shuffled = [side[order] for side in before]
    again = compare(shuffled[0], after[0], ["accuracy"], (shuffled, after))["metrics"]["accuracy"]
    assert again == found


def test_what_is_said_of_the_number_of_seeds() -> None:
    def note(before: int, after: int, change: Any) -> str:
        counts = {"before": before, "after": after, "needed": 3}
        return change_note({"replicas": counts, "metrics": {"accuracy": {"change": change}}})

    assert note(1, 1, None).startswith("Rows only, with one seed on either side: ")
    assert note(1, 3, None).startswith("Rows only, with one seed before, 3 seeds after: ")
    assert "3 replicas on both sides" in note(2, 2, None)
    assert note(3, 4, {}).startswith("Means over seeds, 3 before and 4 after")
    assert "these metrics" in note(3, 3, None)


def report_of(comparison: dict[str, Any], params: dict[str, Any], *why: str) -> Report:
    changes = (StageChange("train", tuple(map(Code, why))),)
    return Report("main", "0" * 40, {}, params, changes, comparison, {})


def test_a_mere_change_of_the_seed_is_neither_better_nor_worse() -> None:
    random = np.random.default_rng(0)
    before, after = (seeds(share, random, 0.01) for share in (0.3, 0.1))
    found = compare(before[0], after[0], ["accuracy"], (before, after))
    why = "seed", "data/train/model.safetensors"
    for params, reasons, expected in (
        ({"seed": (0, 7)}, why, "No change to judge: only the seed differs."),
        ({"seed": (0, 7)}, (*why, "stages/train"), "This change is better in accuracy"),
        ({"seed": (0, 7), "train.epochs": (1, 2)}, why, "This change is better in accuracy"),
    ):
        report = report_of(found, params, *reasons)
        assert as_markdown(report).startswith(f"### {expected}")
        assert f"<h1>{expected}" in as_page(report)


def test_it_says_why_the_exact_test_disagrees() -> None:
    before, after = predictions([True] * 100), predictions([False] * 4 + [True] * 96)
    found = compare(before, after, ["accuracy"])
    assert (found["metrics"]["accuracy"]["mark"], found["flips"]["mcnemar_p"]) == ("worse", 0.125)
    report = report_of(found, {})
    for page in (as_markdown(report), as_page(report)):
        assert "the 4 rows alone that only one of the models has right" in page
    # Nothing to say where they agree.
    clear = report_of(compare(before, predictions([False] * 20 + [True] * 80), ["accuracy"]), {})
    assert "exact test looks at" not in as_markdown(clear)
