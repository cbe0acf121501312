"""Dates as a model is given them: the places in the cycles of a calendar."""

from datetime import UTC, date, datetime, timedelta

import numpy as np
import polars as pl
import pytest
import torch

from stages.common.errors import UserError
from stages.features.encode import encode
from stages.features.kind import kind_of
from stages.prepare.columns.infer_schema import find_schema
from stages.prepare.fit import fit_schema, fit_statistics
from stages.prepare.table.table import in_memory
from tests.stages.features.encoded import KEY
from tests.support.samples import prepare_params


@pytest.mark.parametrize(
    ("step", "cycles"),
    [
        (timedelta(hours=7), ["week", "day"]),
        (timedelta(days=1), ["week"]),
        (timedelta(days=7), None),
        (timedelta(days=30, hours=5), ["year", "week", "day"]),
        (timedelta(minutes=1), None),
    ],
)
def test_the_cycles_that_train_spans_are_kept(step: timedelta, cycles: list[str] | None) -> None:
    days = [datetime(2024, 1, 1, 6, tzinfo=UTC) + n * step for n in range(40)]
    table = pl.DataFrame({"day": days, "y": ["a", "b"] * 20})
    schema = fit_schema(find_schema(table, prepare_params()), in_memory(table))
    statistics = fit_statistics(schema, in_memory(table))
    (feature,) = schema.features
    assert feature.cycles == cycles
    array = encode(table, schema, statistics, KEY)["datetime"]
    assert array.shape == (40, 1 + 2 * len(cycles or []))
    np.testing.assert_allclose(array[:, 0], (np.arange(40) - 19.5) / np.std(range(40)), rtol=1e-5)
    for place in range(1, array.shape[1], 2):
        np.testing.assert_allclose((array[:, place : place + 2] ** 2).sum(axis=1), 1, rtol=2e-6)
    # Seconds since 1970 span the same.
    table = table.with_columns(pl.col("day").dt.timestamp("ms") // 1000)
    params = prepare_params(columns={"day": {"kind": "datetime", "format": "unix"}})
    (feature,) = fit_schema(find_schema(table, params), in_memory(table)).features
    assert feature.cycles == cycles


def test_rounding_leaves_no_two_values_of_one_place_in_a_cycle() -> None:
    hours = [datetime(2024, 1, 1, tzinfo=UTC) + timedelta(hours=n) for n in range(24 * 8)]
    table = pl.DataFrame({"day": hours, "y": ["a", "b"] * 96})
    schema = fit_schema(find_schema(table, prepare_params()), in_memory(table))
    statistics = fit_statistics(schema, in_memory(table))
    kind, (feature,) = kind_of("datetime"), schema.features
    array = encode(table, schema, statistics, KEY)["datetime"]
    assert feature.cycles == ["week", "day"]
    assert [len(np.unique(column)) for column in array[:, 3:].T] == [13, 13]
    constants = {
        name: torch.tensor(value) for name, value in kind.constants([feature], statistics).items()
    }
    raw = torch.tensor(kind.feed(feature, table["day"], KEY))[:, None]
    found, _ = kind.to_torch([feature], raw, constants.__getitem__)
    np.testing.assert_array_equal(found.float().numpy(), array)


def test_of_a_calendar_the_places_alone_are_learned_from() -> None:
    days = [datetime(2024, 1, 1, 6, tzinfo=UTC) + n * timedelta(hours=7) for n in range(40)]
    table = pl.DataFrame({"day": days, "y": ["a", "b"] * 20})
    both = [
        fit_schema(find_schema(table, params), in_memory(table))
        for said in ({}, {"day": {"calendar": True}})
        for params in [prepare_params(columns=said, structure={"time": "day"} if said else None)]
    ]
    arrays = [
        encode(table, schema, fit_statistics(schema, in_memory(table)), KEY)["datetime"]
        for schema in both
    ]
    np.testing.assert_array_equal(arrays[1], arrays[0][:, 1:])
    (feature,) = both[1].features
    assert (feature.calendar, feature.width, feature.cycles) == (True, 4, ["week", "day"])
    (told,) = kind_of("datetime").tell(feature, [])
    assert told.endswith("learned from are the place in the week, the place in the day")


def test_a_calendar_needs_dates_that_span_a_whole_cycle() -> None:
    days = [date(2024, 1, 1) + timedelta(days=n) for n in range(4)]
    table = pl.DataFrame({"day": days * 3, "y": ["a", "b"] * 6})
    schema = find_schema(table, prepare_params(columns={"day": {"calendar": True}}))
    with pytest.raises(UserError, match="span no whole year, week or day in the train rows"):
        fit_schema(schema, in_memory(table))
    for said in ({"kind": "numeric"}, {"unit": "s"}):
        with pytest.raises(ValueError, match="calendar is for dates, and this is numeric"):
            prepare_params(columns={"day": {**said, "calendar": True}})


def test_a_gap_is_the_mean_in_no_place_of_a_cycle_and_is_told() -> None:
    days = [date(2024, 1, 1) + timedelta(n) for n in range(20)] + [None]
    table = pl.DataFrame({"day": days, "y": ["a", "b", "a"] * 7})
    schema = fit_schema(find_schema(table, prepare_params()), in_memory(table))
    array = encode(table, schema, fit_statistics(schema, in_memory(table)), KEY)["datetime"]
    assert array[-1].tolist() == [0, 0, 0, 1]
    assert (array[:-1, 3] == 0).all()
