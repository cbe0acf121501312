"""A suite on a table in parts, of which none is looked at whole: the outcomes of a whole table."""

import datetime
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from stages.prepare.expectations import run
from stages.prepare.expectations.long import counting, facts, look, pieces, ranks, repeats
from stages.prepare.table.table import Table, in_memory

SUITE = Path("suite.yaml")
DAY = datetime.date(2024, 1, 1)
NUM_ROWS = 90


def make_table() -> pl.DataFrame:
    """Columns of all types, with gaps and repeats; what is out of range stands in late parts."""
    rng = np.random.default_rng(0)
    number = np.arange(NUM_ROWS)
    late = number > 60
    job = np.array(["nurse", "cook", "smith"])[number % 3]
    return pl.DataFrame(
        {
            "id": pl.Series(np.where(number == 80, 3, number)),
            "row": number,
            "age": pl.Series(rng.normal(40, 9, NUM_ROWS).round(1)).set(pl.Series(late), 131.0),
            "size": pl.Series([None if n % 7 == 6 else n % 11 for n in range(NUM_ROWS)]),
            "share": pl.Series(np.where(number % 13 == 5, np.nan, number / 100)),
            "job": pl.Series(job).set(pl.Series(number % 17 == 16), None),
            "code": pl.Series([f"c{n % 29}-{'x' if n > 70 else n % 29}" for n in range(NUM_ROWS)]),
            "ok": pl.Series([None if n == 77 else n % 2 == 0 for n in range(NUM_ROWS)]),
            "day": pl.Series([DAY + datetime.timedelta(n % 40) for n in range(NUM_ROWS)]),
            "cost": pl.Series([f"{n % 5}.50" for n in range(NUM_ROWS)]).cast(pl.Decimal(9, 2)),
            "wide": pl.Series([2**70 + n % 50 for n in range(NUM_ROWS)], dtype=pl.Int128),
            "group": pl.Series(job).cast(pl.Categorical),
            "image": pl.Series([[n % 40, 1] for n in range(NUM_ROWS)], dtype=pl.Array(pl.Int64, 2)),
            "none": pl.Series([None] * NUM_ROWS),
            "count": pl.Series(["a", "b", " "] * 30),
        }
    )


RULES = """
{values_to_not_be_null, column: age}
{values_to_not_be_null, column: size}
{values_to_not_be_null, column: share, mostly: 0.9}
{values_to_not_be_null, column: none}
{values_to_not_be_null, column: image}
{values_to_be_null, column: none}
{values_to_be_null, column: job}
{values_to_be_between, column: age, min_value: 0, max_value: 120}
{values_to_be_between, column: age, min_value: 0, max_value: 120, mostly: 0.6}
{values_to_be_between, column: size, min_value: 0, max_value: 10, strict_min: true}
{values_to_be_between, column: share, max_value: 0.5, strict_max: true}
{values_to_be_between, column: day, min_value: 2024-01-10}
{values_to_be_between, column: cost, max_value: 3}
{values_to_be_between, column: age, min_value: 9, max_value: 1}
{values_to_be_between, column: job, max_value: 3}
{values_to_be_between, column: age, max_value: 120, row_condition: row > 65}
{values_to_be_in_set, column: job, value_set: [nurse, cook]}
{values_to_be_in_set, column: size, value_set: [0, 1, 2, 3, 4, 5, 6.0]}
{values_to_be_in_set, column: size, value_set: [0, "1"]}
{values_to_be_in_set, column: ok, value_set: [true]}
{values_to_be_in_set, column: group, value_set: [nurse]}
{values_to_not_be_in_set, column: job, value_set: [smith]}
{values_to_not_be_in_set, column: size, value_set: [4]}
{values_to_be_unique, column: id}
{values_to_be_unique, column: row}
{values_to_be_unique, column: size}
{values_to_be_unique, column: job}
{values_to_be_unique, column: share}
{values_to_be_unique, column: image}
{values_to_be_unique, column: wide}
{values_to_be_unique, column: none}
{values_to_be_unique, column: id, row_condition: row > 5}
{values_to_match_regex, column: code, regex: "^c[0-9]+-[0-9]+$"}
{values_to_match_regex, column: code, regex: "^c[0-9]+-[0-9]+$", mostly: 0.5}
{values_to_not_match_regex, column: job, regex: oo}
{values_to_match_regex_list, column: job, regex_list: [nurse, oo]}
{values_to_match_strftime_format, column: code, strftime_format: "%Y"}
{value_lengths_to_be_between, column: code, max_value: 5}
{value_lengths_to_equal, column: job, value: 5}
{values_to_be_of_type, column: size, type_: int64}
{values_to_be_of_type, column: ok, type_: bool}
{values_to_be_of_type, column: job, type_: float64}
{values_to_be_in_type_list, column: id, type_list: [float64]}
{values_to_be_increasing, column: row}
{values_to_be_increasing, column: id, strictly: true}
{values_to_be_decreasing, column: size}
{value_z_scores_to_be_less_than, column: age, threshold: 1, double_sided: true}
{mean_to_be_between, column: age, max_value: 40}
{mean_to_be_between, column: size, min_value: 40}
{mean_to_be_between, column: cost, min_value: 40}
{mean_to_be_between, column: job, min_value: 40}
{mean_to_be_between, column: ok, min_value: 0.9}
{median_to_be_between, column: age, max_value: 4}
{min_to_be_between, column: age, max_value: 4}
{min_to_be_between, column: day, min_value: 2024-01-10}
{min_to_be_between, column: none, min_value: 1}
{max_to_be_between, column: size, max_value: 4}
{max_to_be_between, column: job, max_value: 4}
{sum_to_be_between, column: size, max_value: 4}
{sum_to_be_between, column: share, max_value: 4}
{stdev_to_be_between, column: age, max_value: 4}
{stdev_to_be_between, column: size, max_value: 1}
{median_to_be_between, column: size, max_value: 4}
{median_to_be_between, column: share, max_value: 0.1}
{median_to_be_between, column: cost, max_value: 0.1}
{quantile_values_to_be_between, column: age, quantile_ranges: {quantiles: [0.1, 0.25, 0.9, 1], value_ranges: [[0, 1], [0, 1], [0, 1], [0, 1]]}, allow_relative_error: linear}
{quantile_values_to_be_between, column: row, quantile_ranges: {quantiles: [0, 0.5, 0.333], value_ranges: [[0, 1], [0, 1], [0, 1]]}}
{quantile_values_to_be_between, column: row, quantile_ranges: {quantiles: [0.5, 0.333], value_ranges: [[0, 1], [0, 1]]}, allow_relative_error: midpoint}
{quantile_values_to_be_between, column: share, quantile_ranges: {quantiles: [0.5], value_ranges: [[0, 1]]}, allow_relative_error: wrong}
{quantile_values_to_be_between, column: age, quantile_ranges: {quantiles: [0.5], value_ranges: [[0, 1]]}}
{unique_value_count_to_be_between, column: code, max_value: 3}
{unique_value_count_to_be_between, column: size, min_value: 3}
{unique_value_count_to_be_between, column: share, min_value: 300}
{unique_value_count_to_be_between, column: image, min_value: 300}
{proportion_of_unique_values_to_be_between, column: code, max_value: 0.3}
{proportion_of_unique_values_to_be_between, column: none, min_value: 0.3}
{proportion_of_non_null_values_to_be_between, column: size, min_value: 0.99}
{distinct_values_to_be_in_set, column: job, value_set: [nurse, cook]}
{distinct_values_to_be_in_set, column: day, value_set: [2024-01-01]}
{distinct_values_to_contain_set, column: job, value_set: [nurse, baker]}
{distinct_values_to_equal_set, column: size, value_set: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 12]}
{distinct_values_to_equal_set, column: code, value_set: [c1-1]}
{most_common_value_to_be_in_set, column: job, value_set: [nurse]}
{most_common_value_to_be_in_set, column: size, value_set: [4]}
{kl_divergence_to_be_less_than, column: job, partition_object: {values: [nurse, cook], weights: [0.5, 0.5]}, threshold: 0.1}
{pair_values_a_to_be_greater_than_b, column_A: age, column_B: size}
{pair_values_a_to_be_greater_than_b, column_A: age, column_B: row}
{pair_values_to_be_equal, column_A: id, column_B: row}
{to_exist, column: age}
{to_exist, column: agee}
{type_to_be, column: size, type_: int64}
"""  # noqa: E501
OTHER_RULES = """
{compound_columns_to_be_unique, column_list: [job, size]}
{compound_columns_to_be_unique, column_list: [id, row]}
{compound_columns_to_be_unique, column_list: [none, share], ignore_row_if: never}
{compound_columns_to_be_unique, column_list: [none, share], ignore_row_if: any_value_is_missing}
{multicolumn_sum_to_equal, column_list: [id, row], sum_total: 20}
{select_column_values_to_be_unique_within_record, column_list: [id, row]}
{table_row_count_to_be_between, min_value: 100}
{table_column_count_to_equal, value: 3}
{table_columns_to_match_set, column_set: [id]}
{table_columns_to_match_ordered_list, column_list: [id, age]}
"""


@pytest.mark.parametrize(
    "values",
    [
        [0.0] * 500 + [1e-300, -5e-324, 1e308, -1e308, 2.5] * 20,
        list(range(-300, 300, 7)) * 3 + [2**53 - 1, -(2**53)],
        [4, 4, 4],
        [1.5, float(np.nextafter(1.5, 2))],
    ],
)
def test_the_value_at_a_place_is_found_in_intervals(
    values: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ranks, "MAX_VALUES", 2)
    monkeypatch.setattr(ranks, "NUM_INTERVALS", 5)
    table = in_memory(pl.DataFrame({"x": values}))
    ordered = sorted(values)
    places = sorted({0, 1, len(values) // 3, len(values) // 2, len(values) - 1})
    found = ranks.values_at(table, "x", places, ordered[0], ordered[-1])
    assert found == [ordered[place] for place in places]


def write_suite() -> None:
    lines = []
    for prefix, rules in (("expect_column_", RULES), ("expect_", OTHER_RULES)):
        for line in rules.strip().splitlines():
            kind, rest = line.removeprefix("{").split(",", 1)
            lines.append(f"- {{type: {prefix}{kind}, severity: warning,{rest}\n")
    SUITE.write_text("".join(lines))


def outcome(table: Table, capsys: pytest.CaptureFixture[str], folder: Path) -> list[str]:
    """What is said and written of a table, a line each."""
    folder.mkdir()
    run.check_expectations(table, SUITE, "rows.csv", folder)
    page = (folder / "expectations.html").read_text()
    said = capsys.readouterr()
    return [*said.err.splitlines(), *said.out.splitlines(), *page.splitlines()]


@pytest.mark.parametrize("max_values", [100_000, 8], ids=["counted", "too many to count"])
def test_a_table_in_parts_has_the_outcomes_of_a_whole_one(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    max_values: int,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(run, "MAX_WARNINGS_SHOWN", 1000)
    write_suite()
    table = make_table()
    whole = outcome(in_memory(table), capsys, tmp_path / "whole")
    monkeypatch.setattr(pieces, "PIECE_ROWS", 25)
    monkeypatch.setattr(repeats, "BUCKET_BYTES", 1000)
    monkeypatch.setattr(ranks, "MAX_VALUES", 4)
    monkeypatch.setattr(facts, "MAX_VALUES", max_values)
    monkeypatch.setattr(look, "MAX_VALUES", max_values)
    heights = [40, 7, 0, 13, 30]
    starts = np.cumsum([0, *heights])
    frames = [table[start : start + n] for start, n in zip(starts, heights, strict=False)]
    in_parts = outcome(Table(table.schema, heights, frames), capsys, tmp_path / "parts")
    if max_values < NUM_ROWS:
        # The page says of texts only that there are many.
        whole, in_parts = (
            [line for line in lines if "<dl" not in line] for lines in (whole, in_parts)
        )
    assert in_parts == whole
    assert len(whole) > 100
    # One that lies in memory, and is of several pieces.
    if max_values > NUM_ROWS:
        assert outcome(in_memory(table), capsys, tmp_path / "pieces") == whole
    assert counting.MAX_EXAMPLES == repeats.MAX_FIRST
