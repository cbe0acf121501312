"""Files that Hypothesis makes: prepare and chunks agree on every row, or a person is told.

A few hundred in the suite. For longer, `REPRISE_FUZZ_SECONDS=3600 pytest tests/nasty/test_fuzz.py`;
what it finds stays in `.hypothesis`, and is tried first from then on.
"""

import gzip
import os
import tempfile
import time
from pathlib import Path

import polars as pl
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from stages.common.errors import UserError
from stages.features.schema import Schema
from stages.formats.read import read_chunks
from stages.formats.reading import Noticed
from stages.formats.text.header import numbered
from stages.prepare.columns.written import read_written
from tests.support.readings import schema_of
from tests.support.samples import prepare_params
from tests.support.tables import read_table

SECONDS = float(os.environ.get("REPRISE_FUZZ_SECONDS", "0"))
KEY = "prepare.source"
VALUES = (
    *("", " ", "1", "-2.5", "007", "1,5", "1.299,99", "1 234", "1,234", "NA", "?", "-999", "inf"),
    *("nan", "#DIV/0!", "true", "False", "Oslo", "é", "ß—", "a;b", "a,b", "x\ty", "x|y", "\0"),
    *("two\nlines", "two\r\nlines", '"', '""', "'", "sep=;", "# no", "2024-01-31", "1e999"),
    *("123456789012345678901234567890", "\ufeff", "Total", "\u202f", "column_1"),
)
FIELDS = st.one_of(st.sampled_from(VALUES), st.text(max_size=6))
# Bytes that make damage where they are put in.
NOISE = (b'"', b",", b";", b"\n", b"\r", b"\0", b"\xff", b"\xc3", b"\xe9", b"\\", b"\t")


def spelled(field: str, separator: str, *, quoted: bool) -> str:
    if quoted or any(sign in field for sign in (separator, '"', "\n", "\r")):
        return '"' + field.replace('"', '""') + '"'
    return field


@st.composite
def files(draw: st.DrawFn) -> tuple[str, bytes]:
    """The suffix and the bytes of a file of texts, damaged or not."""
    width = draw(st.integers(1, 4))
    separator = draw(st.sampled_from([",", ",", ",", ";", "\t", "|"]))
    end = draw(st.sampled_from(["\n", "\r\n", "\r"]))
    quoted = draw(st.booleans())
    rows = draw(st.lists(st.lists(FIELDS, min_size=width, max_size=width), max_size=12))
    header = draw(
        st.one_of(
            st.just([f"c{number}" for number in range(width)]),
            st.lists(FIELDS, min_size=width, max_size=width),
        )
    )
    lines = [separator.join(spelled(f, separator, quoted=quoted) for f in row) for row in rows]
    titles = draw(st.sampled_from(["", "", "", "Sales" + end, f"sep={separator}{end}", end]))
    head = separator.join(spelled(field, separator, quoted=quoted) for field in header)
    text = titles + end.join([head, *lines]) + draw(st.sampled_from(["", end]))
    encoding = draw(st.sampled_from(["utf-8", "utf-8", "utf-8-sig", "utf-16", "cp1252"]))
    content = text.encode(encoding, errors="replace")
    for _ in range(draw(st.sampled_from([0, 0, 1, 2]))):
        place = draw(st.integers(0, len(content)))
        content = content[:place] + draw(st.sampled_from(NOISE)) + content[place:]
    suffix = draw(st.sampled_from([".csv", ".csv", ".tsv"]))
    return (suffix + ".gz", gzip.compress(content)) if draw(st.booleans()) else (suffix, content)


def in_chunks(path: Path, schema: Schema) -> tuple[pl.DataFrame | None, list[int], int]:
    """The texts of chunks, their rows' numbers, and how many rows were set aside."""
    parts = list(read_chunks(path, schema, KEY, Noticed()))
    tables = [part.table.cast(pl.String) for part in parts if part.table.height]
    rows = [int(row) for part in parts for row in part.rows]
    damaged = [each.row for part in parts for each in part.damaged]
    assert sorted(rows + damaged) == list(range(len(rows) + len(damaged)))
    return pl.concat(tables) if tables else None, rows, len(damaged)


def agree(suffix: str, content: bytes) -> None:
    """Read a file both ways; any other error than a person's fails."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"t{suffix}"
        path.write_bytes(content)
        try:
            table = read_table(path, KEY, lambda _: None)
        except UserError:
            return
        # As prepare has it of a table without a header.
        headerless = table.width if table.columns == numbered(table.width) else None
        if headerless is not None and set(map(str, table.row(0))) & set(table.columns):
            # A first row that holds `column_1` is taken for a header in new rows: an error.
            return
        schema = schema_of(table.columns).model_copy(update={"headerless": headerless})
        texts, rows, num_damaged = in_chunks(path, schema)
        assert num_damaged == 0
        assert rows == list(range(table.height))
        assert texts is not None
        for name in table.columns:
            whole = table[name]
            assert texts[name].is_null().equals(whole.is_null())
            if whole.dtype.is_numeric():
                again = texts[name].cast(whole.dtype)
                assert again.equals(whole, null_equal=True)
            elif whole.dtype == pl.String:
                assert texts[name].equals(whole, null_equal=True)
        try:
            read, _, _ = read_written(table, prepare_params(target=""))
        except UserError:
            return
        assert read.shape == table.shape


# In the suite the files are the same ones each time.
PROFILE = settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    **({"derandomize": True, "database": None} if SECONDS == 0 else {}),
)


@PROFILE
@given(files())
def test_both_readings_agree_on_files_of_any_form(file: tuple[str, bytes]) -> None:
    agree(*file)


@PROFILE
@given(st.sampled_from([".csv", ".jsonl", ".csv.gz", ".xlsx", ".arrow", ".parquet"]), st.binary())
def test_bytes_of_any_kind_are_read_or_told(suffix: str, content: bytes) -> None:
    assume(content)
    agree(suffix, content)


@pytest.mark.soak
@pytest.mark.skipif(SECONDS == 0, reason="REPRISE_FUZZ_SECONDS says for how long")
def test_for_as_long_as_it_is_told_to() -> None:
    end = time.monotonic() + SECONDS

    @settings(PROFILE, max_examples=1000)
    @given(files())
    def run(file: tuple[str, bytes]) -> None:
        agree(*file)

    while time.monotonic() < end:
        run()
