"""A folder of files that are one table, and the sheets of Excel."""

import re
import zipfile
from collections.abc import Callable
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path

import openpyxl
import polars as pl
import pyarrow as pa
import pytest
from pyarrow import ipc

from pipeline.params.source_head import read_head
from stages.common.errors import UserError
from stages.formats import chunk, excel
from tests.support.readings import assert_one_reading, read_new_rows, stops
from tests.support.tables import read_table

KEY = "prepare.source"
WRITE: dict[str, Callable[[pl.DataFrame, Path], object]] = {
    ".csv": lambda table, path: table.write_csv(path),
    ".parquet": lambda table, path: table.write_parquet(path),
    ".arrow": lambda table, path: table.write_ipc(path),
    ".jsonl": lambda table, path: table.write_ndjson(path),
    ".xlsx": lambda table, path: sheet(path, [table.columns, *map(list, table.rows())]),
}


def sheet(path: Path, *sheets: list[list[object]]) -> Path:
    book = openpyxl.Workbook()
    for number, rows in enumerate(sheets):
        page = book.active if number == 0 else book.create_sheet()
        for row in rows:
            page.append(row)
    book.save(path)
    return path


def folder_of(folder: Path, suffix: str, *tables: pl.DataFrame) -> Path:
    shards = folder / "shards"
    shards.mkdir()
    for number, table in enumerate(tables):
        WRITE[suffix](table, shards / f"part-{number:02d}{suffix}")
    for name in ("_SUCCESS", ".part-00.crc"):
        (shards / name).touch()
    return shards


@pytest.mark.parametrize("suffix", WRITE)
def test_shards_are_one_table_in_the_order_of_their_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    monkeypatch.setattr(chunk, "CHUNK_ROWS", 2)
    whole = [1, 2, 3]
    first = pl.DataFrame({"a": whole, "b": ["x", None, "z"]})
    second = pl.DataFrame({"b": ["u", "v"], "a": [2.5, None]})
    shards = folder_of(tmp_path, suffix, first, second)
    table = read_table(shards, KEY)
    assert table["a"].to_list() == [1.0, 2.0, 3.0, 2.5, None]
    assert table["b"].to_list() == ["x", None, "z", "u", "v"]
    found, rows, damaged, _ = read_new_rows(shards, ["a"], "numeric")
    assert found["a"].cast(pl.Float64).to_list() == table["a"].to_list()
    assert (rows, damaged) == ([0, 1, 2, 3, 4], [])
    head = read_head(shards)
    if suffix != ".xlsx":
        assert head is not None
        assert list(head.columns) == ["a", "b"]


def test_a_column_without_a_value_in_a_shard_takes_the_type_of_the_others(tmp_path: Path) -> None:
    empty = pl.DataFrame({"a": [None, None], "b": ["007", "1"]})
    shards = folder_of(tmp_path, ".parquet", empty, pl.DataFrame({"a": ["x"], "b": ["2"]}))
    assert read_table(shards, KEY).rows() == [(None, "007"), (None, "1"), ("x", "2")]
    for file in shards.iterdir():
        file.unlink()
    # Of texts the type is found over all files.
    for name, content in (("a.csv", "a\n7\n8\n"), ("b.csv", "a\n007\n")):
        (shards / name).write_text(content)
    assert read_table(shards, KEY)["a"].to_list() == ["7", "8", "007"]


@pytest.mark.parametrize(
    ("one", "other", "says"),
    [
        ({"a": [1]}, {"a": ["x"]}, "'a' is of type Int64 in part-00.parquet and String in part-01"),
        ({"a": [1]}, {"a": [True]}, "'a' is of type Int64 in part-00.parquet and Boolean in"),
        (
            {"a": [1], "b": [1]},
            {"a": [1]},
            "has the column 'b', and part-01.parquet has not: write it into part-01.parquet, ",
        ),
        ({"a": [None]}, {"a": [date(2024, 1, 1)], "c": [1]}, "part-01.parquet has the column 'c'"),
        (
            {"a": [2**53 + 1]},
            {"a": [0.5]},
            "whole number 9007199254740993 of part-00.parquet loses",
        ),
    ],
)
def test_shards_that_do_not_go_together_are_both_named(
    tmp_path: Path, one: dict[str, list[object]], other: dict[str, list[object]], says: str
) -> None:
    shards = folder_of(tmp_path, ".parquet", pl.DataFrame(one), pl.DataFrame(other))
    assert says in stops(shards)


def test_decimals_and_whole_numbers_of_all_widths_go_together(tmp_path: Path) -> None:
    tables = [
        pl.DataFrame({"a": pl.Series([1], dtype=pl.Int8)}),
        pl.DataFrame({"a": pl.Series([2**40], dtype=pl.UInt64)}),
        pl.DataFrame({"a": [Decimal("2.50")]}),
    ]
    table = read_table(folder_of(tmp_path, ".parquet", *tables), KEY)
    assert [float(value) for value in table["a"]] == [1.0, 2.0**40, 2.5]


def test_a_damaged_row_is_named_with_its_file_and_runs_on(tmp_path: Path) -> None:
    shards = tmp_path / "shards"
    shards.mkdir()
    (shards / "a.csv").write_text("a,b\n1,x\n2\n")
    (shards / "b.csv").write_text("a,b\n3,y\n4,z,u\n5,w\n")
    texts, rows, damaged, _ = read_new_rows(shards, ["a", "b"])
    assert texts["a"].to_list() == ["1", "3", "5"]
    assert rows == [0, 2, 4]
    assert [(each.row, each.reason) for each in damaged] == [
        (1, "a.csv: line 3 has 1 field, and the header 2"),
        (3, "b.csv: line 3 has 3 fields, and the header 2"),
    ]
    assert damaged[0].reason in stops(shards)
    (shards / "c.csv").write_text("a,c\n1,x\n")
    with pytest.raises(UserError, match=r"c\.csv: the column 'b', which the model was trained on"):
        read_new_rows(shards, ["a", "b"])
    (shards / "c.jsonl").write_text("{}")
    assert "its files are of several formats (.csv, .jsonl): keep one" in stops(shards)


def test_notes_of_many_files_are_said_once(tmp_path: Path) -> None:
    shards = tmp_path / "shards"
    shards.mkdir()
    for number in range(4):
        (shards / f"{number}.csv").write_text("a;b\n1;x\n2;y\n")
    said: list[str] = []
    assert read_table(shards, KEY, said.append).height == 8
    assert said == [
        f"note: {shards}/0.csv is divided by ';', and read so (and so are 3 other files)"
    ]


def test_excel_is_read_as_texts_of_which_values_are_made(tmp_path: Path) -> None:
    rows: list[list[object]] = [
        ["Sales", None, None, None],
        [None],
        ["id", "price", "day", "zip"],
        [1, 1.5, date(2024, 1, 31), "007"],
        [],
        [2.0, None, datetime(2024, 2, 1, 10, 30), " 12 "],  # noqa: DTZ001
    ]
    path = sheet(tmp_path / "t.xlsx", rows)
    texts, damaged = assert_one_reading(path, ["id", "price", "day", "zip"])
    assert damaged == []
    assert texts.rows() == [
        ("1", "1.5", "2024-01-31", "007"),
        ("2", None, "2024-02-01 10:30:00", "12"),
    ]
    said: list[str] = []
    assert read_table(path, KEY, said.append)["price"].to_list() == [1.5, None]
    assert "has 1 row above its header, which begins in row 3" in said[0]


def test_excel_with_several_sheets_or_cells_beyond_the_header_is_told(tmp_path: Path) -> None:
    rows: list[list[object]] = [["a", "b"], [1, 2]]
    path = sheet(tmp_path / "t.xlsx", rows, [], rows)
    assert "it has 2 sheets with something in them, 'Sheet', 'Sheet2': keep one" in stops(path)
    assert ".parquet" not in stops(path)
    wide: list[list[object]] = [["a", "b"], *([[n, n] for n in range(60)]), [1, 2, 3]]
    texts, damaged = assert_one_reading(sheet(path, wide), ["a", "b"])
    assert texts.height == 60
    assert (damaged[0].row, damaged[0].reason) == (
        60,
        "row 62 of the sheet has cells beyond the 2 of the header",
    )
    sheet(path, [["a", "a"], [1, 2]])
    assert "more than one column named 'a': columns 1, 2" in stops(path)
    path.write_bytes(b"PK\x03\x04nonsense")
    assert "it is no Excel file that can be read" in stops(path)


def test_merged_cells_of_excel_are_told_with_what_is_read_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A range is cut where a piece of the file ends.
    monkeypatch.setattr(excel, "XML_BYTES", 7)
    rows: list[list[object]] = [["Sales"], ["a", "b", "c"], *([n, f"x{n}", 1] for n in range(30))]
    path = sheet(tmp_path / "t.xlsx", rows)
    book = openpyxl.load_workbook(path)
    book.active.merge_cells("A1:C1")
    book.save(path)
    said: list[str] = []
    read_table(path, KEY, said.append)
    # The title is no part of the table.
    assert not any("has merged" in line for line in said)
    for row in range(3, 24, 3):
        book.active.merge_cells(f"B{row}:B{row + 2}")
    book.save(path)
    texts, damaged = assert_one_reading(path, ["a", "b", "c"])
    assert damaged == []
    assert texts["b"].to_list()[:4] == ["x0", None, None, "x3"]
    read_table(path, KEY, said.append)
    (line,) = (line for line in said if "has merged" in line)
    assert line == (
        f"note: {path} has merged cells, B3:B5, B6:B8, B9:B11, B12:B14, B15:B17 and 2 more: the "
        "first of each has the value, and the others are read as gaps; unmerge them in Excel, and "
        "fill in the value where it holds"
    )


@pytest.mark.parametrize("piece", [11, 1 << 20])
def test_formulas_of_excel_that_nobody_has_computed_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, piece: int
) -> None:
    monkeypatch.setattr(excel, "XML_BYTES", piece)
    rows: list[list[object]] = [["a", "b"], *([n, f"=A{n + 1}*2"] for n in range(1, 8)), [9, 3]]
    path = sheet(tmp_path / "t.xlsx", rows)
    said: list[str] = []
    read_table(path, KEY, said.append)
    (line,) = (line for line in said if "formulas" in line)
    assert line == (
        f"note: {path} has formulas without a stored value, B2, B3, B4, B5, B6 and 2 more: these "
        "cells are read as gaps; open the file in Excel or LibreOffice and save it, which stores "
        "the values"
    )
    # An empty text is a value, as Excel stores it.
    with zipfile.ZipFile(path) as file:
        parts = {name: file.read(name) for name in file.namelist()}
    with zipfile.ZipFile(path, "w") as file:
        for name, content in parts.items():
            file.writestr(name, re.sub(rb'(r="B[2-8]")', rb'\1 t="str"', content))
    said = []
    assert read_table(path, KEY, said.append)["b"].len() == 8
    assert not any("formulas" in line for line in said)


def test_without_its_library_excel_says_how_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = sheet(tmp_path / "t.xlsx", [["a"], [1]])
    monkeypatch.setitem(__import__("sys").modules, "openpyxl", None)
    assert "Excel files take the library openpyxl: 'make setup'" in stops(path)


def test_arrow_comes_as_a_file_or_as_a_stream(tmp_path: Path) -> None:
    table = pa.table({"a": [1, 2, 3], "b": pa.array(["x", "y", "x"]).dictionary_encode()})
    path = tmp_path / "t.arrow"
    for write in (ipc.new_file, ipc.new_stream):
        with write(str(path), table.schema) as writer:
            writer.write_table(table, max_chunksize=2)
        assert read_table(path, KEY).rows() == [(1, "x"), (2, "y"), (3, "x")]
        assert assert_one_reading(path, ["a", "b"])[0].height == 3
    path.write_bytes(b"FEA1 and more")
    assert "it is Feather of version 1: write version 2" in stops(path)
