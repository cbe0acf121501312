"""A table in parts on the disk: the arrays that it gives in memory, whatever the threads."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

import stages.formats.csv as csv
import stages.formats.json_lines as json_lines
import stages.formats.parquet as parquet
import stages.formats.text.compressed as compressed
import stages.prepare.table.collected as table_module
import stages.prepare.table.sample as sample
from stages.common.errors import UserError
from stages.common.params import Params
from stages.formats.format import find_reader
from stages.formats.part import join_types
from stages.formats.reading import Noticed
from stages.formats.text.plain_values import typed
from stages.prepare.__main__ import prepare
from stages.prepare.columns.doubts import find_doubts
from stages.prepare.columns.infer_schema import find_schema
from stages.prepare.table.long_table import apply_writing
from stages.prepare.table.open_table import open_table
from stages.prepare.table.sample import take_sample
from stages.tools.init.options import Options
from stages.tools.init.survey import survey
from tests.support.samples import prepare_params

NUM_ROWS = 3000
KEY = "prepare.source"


def mixed(num_rows: int = NUM_ROWS) -> pl.DataFrame:
    """Columns of every kind, as people write them, with what stands only in the last rows."""
    random = np.random.default_rng(0)
    words = np.array(["good", "bad", "house", "garden", "sea", "view", "old", "new"])
    number = pl.Series(random.normal(3, 2, num_rows).round(3))
    table = pl.DataFrame(
        {
            "id": [f"row-{n}" for n in range(num_rows)],
            "size": number.set(pl.Series(random.random(num_rows) < 0.1), None),
            "rooms": random.integers(1, 9, num_rows),
            "price": [f"{n:,.2f}" for n in random.uniform(100, 99_999, num_rows)],
            "town": random.choice(["Rome", "Oslo", "Bonn", "Lima"], num_rows),
            "zip": [f"{n:05}" for n in random.integers(1, 300, num_rows)],
            "sold": random.random(num_rows) < 0.5,
            "day": [f"2024-{m:02}-{d:02}" for m, d in random.integers(1, 13, (num_rows, 2))],
            "note": [" ".join(random.choice(words, 5)) for _ in range(num_rows)],
            "way": [f"{1 + n % 9} {100 + n % 800} km" for n in range(num_rows)],
            "late": np.arange(num_rows) % 7,
            "y": random.choice(["a", "b", "c"], num_rows),
        }
    ).cast({"rooms": pl.String, "late": pl.String, "y": pl.String})
    late = ["2.5" if n == num_rows - 2 else None for n in range(num_rows)]
    last = np.arange(num_rows)
    return table.with_columns(
        rooms=table["rooms"].set(pl.Series(last == num_rows - 3), "?"),
        late=pl.Series(late, dtype=pl.String).fill_null(table["late"]),
        y=table["y"].set(pl.Series(last % 500 == 499), None),
    )


@pytest.fixture
def in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts of some hundred rows, all of them on the disk."""
    monkeypatch.setattr(compressed, "READ_BYTES", 8000)
    monkeypatch.setattr(csv, "LAYOUT_BYTES", 4000)
    monkeypatch.setattr(csv, "PART_BYTES", 20_000)
    monkeypatch.setattr(parquet, "PART_ROWS", 400)
    monkeypatch.setattr(json_lines, "PART_ROWS", 400)
    monkeypatch.setattr(table_module, "MEMORY_BYTES", 0)
    monkeypatch.setattr(sample, "SAMPLE_BYTES", 20_000)


SUITE = """
- {type: expect_column_values_to_be_unique, column: id, severity: critical}
- {type: expect_column_values_to_be_between, column: size, min_value: -1, severity: warning}
- {type: expect_column_values_to_be_in_set, column: town, value_set: [Rome, Oslo, Bonn],
   severity: warning}
"""


def run(folder: Path, source: Path, suite: Path | None = None) -> dict[str, np.ndarray]:  # type: ignore[type-arg]
    """The arrays of prepare, by split and name, and its other outputs beside them."""
    section = prepare_params(
        source=str(source),
        key="id",
        columns={"rooms": {"missing": ["?"]}, "zip": "categorical", "way": {"unit": "km"}},
        drop_missing_target=True,
        expectations=None if suite is None else str(suite),
    )
    folder.mkdir()
    prepare(Params("prepare", {"prepare": section.model_dump(mode="json")}), folder)
    assert not (folder / "parts").exists()
    return {str(file.relative_to(folder)): np.load(file) for file in folder.rglob("*.npy")}


def test_parts_give_the_arrays_of_the_whole(
    tmp_path: Path,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    source, suite = tmp_path / "table.csv", tmp_path / "suite.yaml"
    mixed().write_csv(source)
    suite.write_text(SUITE)
    whole = run(tmp_path / "whole", source, suite)
    said = capsys.readouterr().out
    request.getfixturevalue("in_parts")
    parts = run(tmp_path / "parts", source, suite)
    assert capsys.readouterr().out == said
    assert "note: 'rooms' holds 1 '?': taken as gaps" in said
    assert "'town' is one of" in said
    assert whole.keys() == parts.keys()
    for name, array in whole.items():
        assert array.dtype == parts[name].dtype
        if array.dtype.kind == "f":
            # Means and deviations are sums of sums: their last bits differ.
            np.testing.assert_allclose(parts[name], array, rtol=1e-6, atol=1e-6)
        else:
            np.testing.assert_array_equal(parts[name], array)
    schemas = [json.loads((tmp_path / n / "schema.json").read_text()) for n in ("whole", "parts")]
    assert schemas[0] == schemas[1]
    rows = [pl.read_parquet(tmp_path / n / "test_rows.parquet") for n in ("whole", "parts")]
    assert_frame_equal(*rows)
    monkeypatch.setenv("REPRISE_THREADS", "1")
    run(tmp_path / "alone", source, suite)
    for file in (tmp_path / "parts").rglob("*.*"):
        same = tmp_path / "alone" / file.relative_to(tmp_path / "parts")
        assert file.read_bytes() == same.read_bytes(), file


@pytest.mark.parametrize(
    ("column", "value", "says"),
    [
        ("size", "unknown", "and 1 value is none: 'unknown' .row 2990."),
        ("price", "much", "'much' in row 2990: correct it in the file, or say what the column is"),
        ("id", "row-7", "the key column 'id' names more than one row with: row-7"),
        ("day", "2024-13-01", "2024-13-01"),
    ],
)
def test_what_stands_far_down_is_an_error_that_names_it(
    tmp_path: Path, in_parts: None, column: str, value: str, says: str
) -> None:
    table = mixed()
    is_there = pl.Series(np.arange(NUM_ROWS) == 2990)
    column_texts = table[column].cast(pl.String).set(is_there, value)
    table.with_columns(column_texts).write_csv(tmp_path / "table.csv")
    with pytest.raises(UserError, match=says):
        run(tmp_path / "out", tmp_path / "table.csv")


TABLES = ["csv", "csv.gz", "parquet", "arrow", "jsonl", "shards"]


@pytest.mark.parametrize("form", TABLES)
def test_each_format_in_parts_is_the_table_that_is_read_whole(
    tmp_path: Path, in_parts: None, form: str
) -> None:
    table = mixed(900)
    path = tmp_path / f"table.{form}"
    if form in ("csv", "csv.gz"):
        table.write_csv(path, compression="gzip" if form == "csv.gz" else "uncompressed")
    elif form == "parquet":
        table.write_parquet(path)
    elif form == "arrow":
        table.write_ipc(path, record_batch_size=200)
    elif form == "jsonl":
        table.write_ndjson(path)
    else:
        path.mkdir()
        for place in range(0, 900, 300):
            table[place : place + 300].write_csv(path / f"{place:03}.csv")
    parts = open_table(path, KEY, tmp_path / "folder", print)
    whole, _ = find_reader(path).read(path, KEY, Noticed())
    assert_frame_equal(parts.frame(), whole)
    assert parts.schema == whole.schema
    assert len(parts.sources) > 2
    assert 0 not in parts.heights
    assert parts.height == 900
    assert_frame_equal(parts.last_row(), whole[-1:])
    rows = np.arange(900) % 3 == 0
    assert_frame_equal(parts.where(rows).frame(), whole.filter(pl.Series(rows)))


FIELD = st.one_of(
    st.integers(-(2**70), 2**70).map(str),
    st.floats(allow_nan=True).map(str),
    st.sampled_from(
        ["", "0", "00", "007", "+5", "-0", "+01", "1.", ".5", "1e5", "1E+400", "inf", "-inf", "nan"]
        + [
            "NaN",
            "Infinity",
            "true",
            "1_000",
            "0x10",
            "٣",
            "1,5",
            "a",
            "-",
            "+",
            "1 2",
            " 1",
            '"1"',
        ]
        + ["1e", "--1", "1-", "9223372036854775807", "9223372036854775808", "0.1e-400", "1f", "１"]
    ),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(FIELD, min_size=1, max_size=6), st.sampled_from([pl.Int64(), pl.Float64()]))
def test_numbers_read_at_once_are_what_their_texts_are(texts: list[str], seen: pl.DataType) -> None:
    quoted = [f'"{text}"' if "," in text else text for text in texts]
    content = "".join(f"{text},x\n" for text in quoted).encode()
    block = csv.Block(0, content, len(texts), [])
    fast = csv.read_typed(block, ",", ["a", "b"], [seen, pl.String()])
    if fast is None:
        return
    plain = csv.plain(pl.DataFrame({"a": texts}, schema={"a": pl.String}))
    slow = typed(plain)["a"]
    if slow.null_count() == len(texts):
        assert fast["a"].null_count() == len(texts)
        return
    # Parts before this one were of the type `seen`: so is the column, if it is one of numbers.
    dtype = join_types(pl.String() if slow.dtype == pl.String else seen, slow.dtype)
    assert dtype is not None
    assert fast["a"].cast(dtype).equals(slow.cast(dtype), null_equal=True)


def test_a_column_that_numbers_the_rows_is_told_behind_rows_that_stand_out(
    tmp_path: Path, in_parts: None
) -> None:
    table = mixed().with_columns(place=pl.Series(range(5, NUM_ROWS + 5)))
    table.write_csv(tmp_path / "table.csv")
    found = take_sample(open_table(tmp_path / "table.csv", KEY, tmp_path), [])
    assert 0 < found.table.height < NUM_ROWS
    assert (np.diff(found.rows) > 1).any()
    columns = found.table.select("place", "sold")
    schema = find_schema(columns, prepare_params(target="sold"))
    (line,) = find_doubts(columns, schema, {}, found.rows)
    assert line.startswith("'place' numbers the rows (5, 6, 7, …)")


def test_init_counts_in_all_rows_of_a_long_table(tmp_path: Path, in_parts: None) -> None:
    late = np.arange(NUM_ROWS) == 2345
    table = mixed().with_columns(rare=pl.Series(np.where(late, "other", "usual")))
    (tmp_path / "table.csv").write_text(table.write_csv())
    found = survey(Options(str(tmp_path / "table.csv"), "y"))
    columns = {column["name"]: column for column in found["columns"]}
    assert (found["num_rows"], columns["rare"]["distinct"]) == (NUM_ROWS, 2)
    assert columns["rare"]["role"] == "categorical"
    assert columns["y"]["missing"] == 6


@pytest.mark.usefixtures("in_parts")
def test_dots_and_units_are_read_alike_in_every_part(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    lines = [f"{1 + n % 9}.{100 + n % 800};{1 + n % 9} {100 + n % 800} km" for n in range(3000)]
    path.write_text("\n".join(["x;way", *lines]), encoding="utf-8")
    said = {"x": {"thousands": "."}, "way": {"unit": "km"}}
    params = prepare_params(target="", columns=said)
    table = open_table(path, KEY, tmp_path / "parts")
    assert len(table.sources) == 2
    assert table.schema["x"] == pl.String
    read, *_ = apply_writing(table, take_sample(table, []), params)
    expected = [1000 * (1 + n % 9) + 100 + n % 800 for n in range(3000)]
    assert read.column("x").to_list() == read.column("way").to_list() == expected
    # One value of another kind, far below: no dot of the column stands between thousands.
    path.write_text("\n".join(["x;way", *lines, "2.5;3 m"]), encoding="utf-8")
    table = open_table(path, KEY, tmp_path / "parts")
    assert table.schema["x"] == pl.Float64
    with pytest.raises(UserError, match=r"'3 m' in row 3000"):
        apply_writing(table, take_sample(table, []), params)
