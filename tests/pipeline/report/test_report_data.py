"""The report's section on the data that changed."""

from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from pipeline.report.build import Report
from pipeline.report.sections import make_sections
from stages.compare.data_drift import compare_prepared
from stages.features.schema import Feature, Moments, Target
from tests.conftest import ROOT, Project
from tests.support.pipeline.compared import PLAIN, prepared, schema_of
from tests.support.samples import mixed_table, run_stages, small_project


def test_nothing_is_found_where_nothing_changed() -> None:
    side = prepared(mixed_table(400))
    found = compare_prepared(side, side)
    assert found["columns"] == found["drift"] == []
    assert found["classes"] == {"came": [], "went": []}
    assert found["rows"][0] == {
        "split": "train",
        "before": 240,
        "after": 240,
        "new": 0,
        "gone": 0,
        "moved_in": 0,
    }


def test_rows_that_came_went_and_moved() -> None:
    table = mixed_table(400)
    new = table.with_columns(id=pl.col("id") + 10_000)[:100]
    # 20 rows are gone, 100 are new, and the cuts are elsewhere.
    found = compare_prepared(prepared(table), prepared(pl.concat([table[20:], new])))
    rows = {row["split"]: row for row in found["rows"]}
    assert [rows["train"][n] for n in ("before", "after", "new", "gone", "moved_in")] == [
        240,
        288,
        0,
        20,
        68,
    ]
    assert rows["test"]["new"] == 96
    # Without a key column a row's number says nothing of which row it is.
    keyless = PLAIN.model_copy(update={"key": None})
    found = compare_prepared(prepared(table, keyless), prepared(table[20:], keyless))
    assert found["rows"][0] == {"split": "train", "before": 240, "after": 228}


def test_columns_and_classes_that_came_went_or_are_something_else() -> None:
    table = mixed_table(200)
    kinds = {"size": "categorical", "town": "categorical", "weight": "numeric"}
    other = schema_of(["ill", "very ill"], **kinds)
    after = prepared(table.with_columns(weight=pl.int_range(pl.len())), other)
    found = compare_prepared(prepared(table), after)
    assert found["columns"] == [
        {"column": "size", "before": "numeric", "after": "categorical"},
        {"column": "smoker", "before": "boolean", "after": None},
        {"column": "weight", "before": None, "after": "numeric"},
    ]
    assert found["classes"] == {"came": ["very ill"], "went": ["well"]}
    assert found["drift"] == []


def test_drift_is_measured_in_deviations_and_the_largest_comes_first() -> None:
    before = mixed_table(1000)
    train = before[:600]
    mean, deviation = train["size"].mean(), train["size"].std(ddof=0)
    assert isinstance(mean, float)
    assert isinstance(deviation, float)
    after = before.with_columns(
        # By half a deviation, and twice as wide.
        size=(pl.col("size") - mean) * 2 + mean + deviation / 2,
        town=pl.col("town").replace({"Oslo": "Kiruna"}),
        smoker=pl.when(pl.int_range(pl.len()) % 4 > 0).then("smoker"),
    )
    drift = {
        each["column"]: each
        for each in compare_prepared(prepared(before), prepared(after))["drift"]
    }
    assert drift["size"]["shift"] == pytest.approx(0.5, abs=1e-5)
    assert drift["size"]["spread"] == pytest.approx(2.0)
    share = (train["town"] == "Oslo").sum() / 600
    assert drift["town"]["new"] == drift["town"]["gone"] == pytest.approx(share)
    assert drift["smoker"]["empty"] == pytest.approx(
        (train["smoker"].null_count() / 600, after[:600]["smoker"].null_count() / 600)
    )
    assert all(each["drifted"] for each in drift.values())
    sizes = [share / 0.05, np.log(2) / np.log(1.5)]
    assert next(iter(drift)) == "town"
    assert sizes[0] > sizes[1]


def test_a_column_that_is_constant_on_a_side_has_no_spread_to_compare() -> None:
    varied = mixed_table(400)
    constant, other = (varied.with_columns(size=pl.lit(value)) for value in (14.62, 14.63))
    pairs = [(constant, constant), (constant, other), (varied, constant), (constant, varied)]
    found = [
        compare_prepared(prepared(before), prepared(after))["drift"] for before, after in pairs
    ]
    assert found[0] == []
    for drift in found[1:]:
        (size,) = [each for each in drift if each["column"] == "size"]
        assert size["spread"] is None
        assert size["drifted"]
        assert abs(size["shift"]) < 5


def test_later_rows_of_a_calendar_are_no_drift() -> None:
    days = pl.Series(
        [datetime(2024, 1, 1, tzinfo=UTC) + timedelta(hours=7 * n) for n in range(2000)]
    )
    table = mixed_table(1000)
    before, after = (table.with_columns(size=days[start:][:1000]) for start in (0, 1000))
    for calendar in (True, False):
        feature = Feature(name="size", kind="datetime", zone="UTC", calendar=calendar)
        schema = PLAIN.model_copy(update={"features": [feature, *PLAIN.features[1:]]})
        found = compare_prepared(prepared(before, schema), prepared(after, schema))["drift"]
        drifted = [each["column"] for each in found if each["drifted"]]
        assert drifted == ([] if calendar else ["size"])
    both = [
        prepared(before, PLAIN.model_copy(update={"features": [feature]}))
        for feature in (feature, feature.model_copy(update={"calendar": True}))
    ]
    found = compare_prepared(*both)
    assert found["drift"] == []
    assert found["columns"] == [
        {"column": "size", "before": "datetime", "after": "datetime (calendar)"}
    ]


def test_a_target_on_another_scale_is_said_to_be_left_out() -> None:
    side = prepared(mixed_table(200))
    target = Target(name="y", task="regression")
    schema = side.schema.model_copy(update={"target": target})
    sides = [
        replace(side, schema=schema, statistics=side.statistics.model_copy(update={"target": own}))
        for own in (Moments(mean=5, deviation=2), Moments(mean=1, deviation=1, transform="log1p"))
    ]
    data = compare_prepared(*sides)
    assert data["drift"] == []
    report = Report(**{field.name: {} for field in fields(Report)} | {"data": data})
    (section,) = [part for part in make_sections(report) if part.title == "Data: drift by column"]
    assert section.text == (
        "Not compared: the target 'y', learned as it is before and as its log1p after."
    )
    assert compare_prepared(sides[1], sides[1])["not_compared"] == []


def test_rows_of_the_same_kind_are_no_drift() -> None:
    # 40 pairs of samples of one distribution, small and large: none is beyond the limits.
    for num_rows in (60, 2000):
        for seed in range(20):
            table = mixed_table(4000).sample(fraction=1.0, shuffle=True, seed=seed)
            found = compare_prepared(
                prepared(table[:num_rows]), prepared(table[num_rows : 2 * num_rows])
            )
            drifted = [each["column"] for each in found["drift"] if each["drifted"]]
            assert drifted == []


SPLITS = ("| train | 1,", "| validation | 3", "| test | 4")


def as_repository(project: Project) -> Project:
    """The folder under git and DVC, its files committed."""
    for name in (".dvc/config", ".dvc/.gitignore", ".dvcignore", ".gitignore", "None"):
        (project.path / name).parent.mkdir(exist_ok=True)
        (project.path / name).write_bytes((ROOT / name).read_bytes())
    project.run("git", "init", "--quiet", "--initial-branch", "main")
    return project


def finish(project: Project, message: str) -> None:
    """Run the pipeline in this process, then have DVC record it: faster than `dvc repro`."""
    stages = ("prepare", "build", "tune", "train", "evaluate")
    run_stages(project, *stages)
    project.run("dvc", "commit", "--force", "--quiet", *stages)
    project.commit(message)


@pytest.mark.soak
def test_the_report_of_a_change_of_the_data(tmp_path: Path) -> None:
    table = mixed_table(2000)
    settings = {"train.epochs": 20, "train.optimizer": {"name": "AdamW", "lr": 0.02}}
    project = as_repository(small_project(tmp_path / "project", table, settings))
    finish(project, "before")
    project.run("git", "switch", "--quiet", "--create", "other-data")
    random = np.random.default_rng(7)
    noise = pl.Series(random.normal(10, 3, table.height))
    number = pl.int_range(pl.len())
    changed = table.with_columns(
        # In Bergen the size says nothing any more; a gap stays a gap.
        size=pl.when((pl.col("town") == "Bergen") & pl.col("size").is_not_null())
        .then(noise)
        .otherwise("size")
        + 1.5,
        town=pl.when(number % 11 == 5).then(pl.lit("Kiruna")).otherwise("town"),
    ).drop("smoker")[150:]
    changed.write_parquet(project.path / "data/raw/table.parquet")
    project.edit("params.yaml", "minimum: 0.95", "not_worse_by: 0.01")
    finish(project, "after")

    project.run("reprise", "report", "--base", "main")
    text = (project.path / "report.md").read_text(encoding="utf-8")
    titles = [
        "**Other metrics**",
        "**Stages that reran, and why**",
        "**Data: rows**",
        "**Data: columns and classes**",
        "**Data: drift by column (2 of 2 beyond its limits)**",
        "**Slices that got worse**",
        "**Rows that flipped**",
        "**Gates: fail**",
    ]
    assert [text.index(title) for title in titles] == sorted(text.index(title) for title in titles)
    gone = [line.split(" | ")[4] for line in text.splitlines() if line.startswith(SPLITS)]
    assert sum(map(int, gone)) == 150
    assert "| `smoker` | boolean | – |" in text
    drift = {
        line.split("`")[1]: line
        for line in text.split("Data: drift")[1].split("**Slices")[0].splitlines()
        if line.startswith("| `")
    }
    assert set(drift) == {"size", "town"}
    assert "| `size` | +0.4" in drift["size"]
    assert "of rows in new ones" in drift["town"]
    worse = text.split("Slices that got worse**")[1].split("**Rows that flipped")[0]
    assert "| `town`: Bergen |" in worse
    assert "| `town`: Oslo |" not in worse
    assert "of 8 slices are worse in accuracy beyond noise" in worse
    assert "| accuracy | " in text.split("Gates: fail")[1]
    page = (project.path / "report.html").read_text(encoding="utf-8")
    for title in titles:
        assert title.strip("*") in page

    # Without the cache of the base the report gives what it can, and says what to run.
    (project.path / ".dvc/cache").rename(project.path / ".dvc/elsewhere")
    project.run("reprise", "report", "--base", "main")
    text = (project.path / "report.md").read_text(encoding="utf-8")
    assert "the prepared data of main is not in DVC's cache: 'dvc repro' at " in text
    assert "**Gates: inconclusive**" in text
