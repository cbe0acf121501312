"""The format of dates and times: found, refused, and read as Python reads it."""

import math
from datetime import UTC, date, datetime, timedelta
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest

from stages.common.errors import Problem, UserError
from stages.features import times
from stages.features.kind import kind_of
from stages.features.schema import Schema
from stages.prepare.columns.infer_schema import find_schema
from tests.stages.features.encoded import KEY
from tests.support.samples import prepare_params


def schema_of(values: list[object], **said: object) -> Schema:
    """The schema of a column `day` with the values, over and over, beside a target."""
    table = pl.DataFrame({"day": pl.Series(values * 3, strict=False)})
    table = table.with_columns(y=pl.int_range(pl.len()))
    columns = {"day": said} if said else {}
    return find_schema(table, prepare_params(task="regression", columns=columns))


def problem_of(values: list[object], **said: object) -> Problem:
    with pytest.raises(UserError) as caught:
        schema_of(values, **said)
    (only,) = caught.value.problems
    return only


def seconds(schema: Schema, *values: object) -> list[float]:
    (feature,) = schema.features
    column = pl.Series("day", values, strict=False)
    return [float(each) for each in kind_of("datetime").feed(feature, column, KEY)]


def at(*parts: int) -> float:
    return datetime(*parts, tzinfo=UTC).timestamp()  # type: ignore[arg-type,misc]


@pytest.mark.parametrize(
    ("values", "form", "first"),
    [
        (["2024-01-31", "2024-02-01"], None, at(2024, 1, 31)),
        (["2024-01-31", "2024-02-01 10:30", None], None, at(2024, 1, 31)),
        (["2024-01-31T10:30:15.25", "2024-02-01T00:00"], None, at(2024, 1, 31, 10, 30, 15) + 0.25),
        (["31/01/2024", "01/02/2024"], "%d/%m/%Y", at(2024, 1, 31)),
        (["01/31/2024", "1/2/2024"], "%m/%d/%Y", at(2024, 1, 31)),
        (["31.1.24", "1.2.24"], "%d.%m.%y", at(2024, 1, 31)),
        (["2024/01/31", "2024/02/01"], "%Y/%m/%d", at(2024, 1, 31)),
        (["31 Jan 2024", "1 february 2024"], "%d %b %Y", at(2024, 1, 31)),
        (
            ["Jan 31, 2024 9:05 PM", "Feb 1, 2024 12:00 am"],
            "%b %d, %Y %I:%M %p",
            at(2024, 1, 31, 21, 5),
        ),
        ([date(2024, 1, 31), date(2024, 2, 1)], None, at(2024, 1, 31)),
        # As written, though no single offset is that of all.
        (["2024-01-31T10:30+02:00", "2024-07-31T10:30Z"], None, at(2024, 1, 31, 8, 30)),
    ],
)
def test_the_one_format_of_all_values_is_found(
    values: list[object], form: str | None, first: float
) -> None:
    schema = schema_of(values)
    (feature,) = schema.features
    assert (feature.kind, feature.format) == ("datetime", form)
    assert seconds(schema, values[0])[0] == first


@pytest.mark.parametrize(
    ("values", "form"),
    [
        ([1706702400, 1706788800, None], "unix"),
        (["1706702400", "1706788800.0"], "unix"),
        ([1706702400.25, 1706788800.0], "unix"),
        ([1706702400000, 1706788800000], "unix ms"),
    ],
)
def test_numbers_since_1970_are_dates_in_tables_and_requests(
    values: list[object], form: str
) -> None:
    schema = schema_of(values, kind="datetime", format=form)
    expected = at(2024, 1, 31, 12) + (0.25 if ".25" in str(values[0]) else 0)
    assert seconds(schema, *values[:2]) == [expected, at(2024, 2, 1, 12)]
    described = SimpleNamespace(format=form, zone=None, mean=expected)
    kind = kind_of("datetime")
    assert kind.read_values(described, values[:1]).tolist() == [expected]
    assert kind.read_values(described, [kind.example(described)]).tolist() == [at(2024, 1, 31, 12)]
    assert kind.json_type(described)["type"] == ["number", "string", "null"]
    with pytest.raises(ValueError, match="seconds since 1970 or null"):
        kind.read_values(described, ["2024-01-31"])
    # Without the format the way to it is told.
    assert f"{{kind: datetime, format: '{form}'}}" in problem_of(values, kind="datetime").message


def test_milliseconds_among_seconds_since_1970_are_named() -> None:
    values: list[object] = [1700003600, 1700007200, 1701072800000]
    problem = problem_of(values, kind="datetime", format="unix")
    assert "3 values are none: '1701072800000' (row 2)" in problem.message
    assert "write seconds, or milliseconds, in all rows of the file" in problem.message
    problem = problem_of(values, kind="datetime", format="unix ms")
    assert "6 values that would be in January 1970" in problem.message
    assert "'1700003600' (row 0)" in problem.message
    schema_of(["0", "3600000", "86400000"], kind="datetime", format="unix ms")


def test_two_formats_that_fit_all_rows_are_an_error_that_shows_both() -> None:
    """NASTY 11."""
    problem = problem_of(["01/02/2024", "03/04/2024", None])
    assert problem.key == "prepare.columns.day"
    assert "2 ways, each of which all 6 values fit" in problem.message
    lines = problem.message.splitlines()[1:]
    assert lines == [
        f"  columns: {{day: {{kind: datetime, format: '{form}'}}}}  # 01/02/2024 is {day}"
        for form, day in (("%d/%m/%Y", "2024-02-01"), ("%m/%d/%Y", "2024-01-02"))
    ]
    said = schema_of(["01/02/2024", "03/04/2024"], kind="datetime", format="%m/%d/%Y")
    assert seconds(said, "01/02/2024") == [at(2024, 1, 2)]
    # The kind follows from the format.
    assert schema_of(["01/02/2024"], format="%d/%m/%Y").features[0].kind == "datetime"


def test_a_row_in_another_format_is_named() -> None:
    problem = problem_of(["13/01/2024", "14/01/2024", "15/01/2024", "01/16/2024"])
    assert "holds 9 dates of the format '%d/%m/%Y', and 3 values are none" in problem.message
    assert "'01/16/2024' (row 3)" in problem.message
    assert problem_of(["2024-02-29", "2023-02-29"] * 2 + ["2024-01-01"]).message.count("2023-02-29")
    told = problem_of(["31/01/2024"], kind="datetime", format="%m/%d/%Y")
    assert "holds 0 dates of the format '%m/%d/%Y'" in told.message


def test_times_with_and_without_an_offset_are_an_error() -> None:
    """NASTY 12."""
    problem = problem_of(["2024-01-31T10:30+02:00", "2024-01-31T10:30"])
    assert "3 times with an offset from UTC, as '2024-01-31T10:30+02:00' (row 0)" in problem.message
    assert "3 without, as '2024-01-31T10:30' (row 1)" in problem.message


def test_a_zone_is_kept_and_new_rows_need_one_as_well() -> None:
    summer = datetime(2024, 3, 30, 23, tzinfo=UTC)
    hours = pl.Series([summer + timedelta(hours=n) for n in range(4)])
    table = pl.DataFrame({"day": hours.dt.convert_time_zone("Europe/Oslo"), "y": list("abab")})
    schema = find_schema(pl.concat([table] * 3), prepare_params())
    assert schema.features[0].zone == "Europe/Oslo"
    assert seconds(schema, *table["day"]) == [summer.timestamp() + 3600 * n for n in range(4)]
    assert seconds(schema, "2024-03-31T03:00+02:00") == [at(2024, 3, 31, 1)]
    with pytest.raises(UserError, match=r"not a date .* with an offset from UTC: '2024-03-31'"):
        seconds(schema, "2024-03-31")
    with pytest.raises(UserError, match="has no zone, and in training it had one"):
        seconds(schema, date(2024, 3, 31))


@pytest.mark.parametrize(
    ("form", "why"),
    [
        ("%d/%m", "one year"),
        ("%d/%m/%q", "'%q' is none of"),
        ("%Y-%m-%d %I:%M", "%I goes with %p"),
        ("%Y-%Y-%m", "nothing twice"),
    ],
)
def test_a_format_that_can_not_be_read_is_told(form: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        prepare_params(columns={"day": {"format": form}})
    with pytest.raises(ValueError, match="a format is for the kind datetime"):
        prepare_params(columns={"day": {"kind": "numeric", "format": "%Y-%m-%d"}})


def test_a_time_is_read_to_the_microsecond_from_a_text_as_python_reads_it() -> None:
    random, first = np.random.default_rng(0), datetime(1, 1, 1, tzinfo=UTC)
    for micro in random.integers(0, 315_537_897_599_999_999, 2000).tolist():
        moment = first + timedelta(microseconds=micro)
        exact = (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1) / 1e6
        assert times.read_text(moment.isoformat(), times.ISO) == (exact, True)
        for form in ("%d.%m.%Y %H:%M:%S", "%b %d, %Y %I:%M:%S %p"):
            if moment.year >= 1000:
                whole = moment.replace(microsecond=0)
                found = times.read_text(whole.strftime(form), form)
                assert found == (whole.timestamp(), False)


@pytest.mark.parametrize(
    "text",
    [
        "2024-02-30",
        "2023-02-29",
        "2024-13-01",
        "2024-00-01",
        "2024-01-01T24:00",
        "2024-1-1T1:60",
        "0000-01-01",
        "2024-01-01+25:00",
        "٢٠٢٤-01-01",
        "2024-01-01T10",
        "24-01-01",
        "",
    ],
)
def test_what_is_no_date_of_iso_8601_is_none(text: str) -> None:
    assert math.isnan(times.read_text(text, times.ISO)[0])


def test_a_column_of_other_texts_is_no_date() -> None:
    for values in (
        ["12:30", "13:45"],
        ["1.2.3", "4.5.6"],
        ["Oslo 2024", "Bergen"],
        ["5/2024", "13/2024"],
    ):
        assert schema_of(list(values)).features[0].kind == "categorical"
