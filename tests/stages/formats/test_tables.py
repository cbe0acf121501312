"""Tables from files: four kinds of file, one table; what can't be read says so."""

import os
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from stages.common.errors import UserError
from stages.formats.read import SUFFIXES
from tests.support.tables import read_table

TABLE = pl.DataFrame(
    {
        "id": [1, 2, 3],
        "height": [1.5, None, -2e-3],
        "smoker": [True, False, None],
        "town": ["Oslo", None, "Saint-Étienne, Loire"],
    }
)


def text(folder: Path, content: str, name: str = "table.csv") -> Path:
    path = folder / name
    path.write_text(content, encoding="utf-8")
    return path


def message(path: Path) -> str:
    with pytest.raises(UserError) as caught:
        read_table(path, "prepare.source")
    (problem,) = caught.value.problems
    # Whatever is wrong with a file: the key that names it; and of another kind, what can be read.
    assert problem.key == "prepare.source"
    assert problem.value == str(path)
    assert problem.allowed == (SUFFIXES if "not a kind" in problem.message else ())
    return problem.message


@pytest.mark.parametrize(
    ("header", "twice"),
    [
        ("a,b,a", "'a'"),
        ("a, b ,b", "'b'"),
        ('"a",a,b', "'a'"),
        ("a,,", "'' (no name)"),
        ("a,b,b_duplicated_0,b", "'b'"),
    ],
)
def test_columns_of_one_name_are_an_error(tmp_path: Path, header: str, twice: str) -> None:
    rows = ",".join(str(number) for number in range(header.count(",") + 1))
    said = message(text(tmp_path, f"{header}\n{rows}\n"))
    assert f"has more than one column named {twice}" in said
    assert "rename one" in said


@pytest.mark.parametrize("word", ["NA", "N/A", "null", "?", "-", ""])
def test_only_an_empty_field_is_no_value(tmp_path: Path, word: str) -> None:
    table = read_table(text(tmp_path, f"a,b,c\n1,x,1\n{word},{word},2\n"), "prepare.source")
    assert table["a"].to_list() == ([1, None] if word == "" else ["1", word])
    assert table["b"].to_list() == ["x", word or None]
    assert table["c"].dtype == pl.Int64


def test_blanks_around_a_field_are_no_part_of_it(tmp_path: Path) -> None:
    # As the UCI's tables are written: a blank after each comma.
    content = "age, hours, share, town\n39, 40, 0.5, Oslo \n50, , 2,  \n"
    table = read_table(text(tmp_path, content), "prepare.source")
    expected = {"age": [39, 50], "hours": [40, None], "share": [0.5, 2.0], "town": ["Oslo", None]}
    assert_frame_equal(table, pl.DataFrame(expected))


def test_numbers_with_leading_zeros_are_texts_as_they_stand(tmp_path: Path) -> None:
    content = "key,zip,a,b,c\n007,01067, 02 ,0.5,0\n8,10115,3,-0.5,00\n"
    table = read_table(text(tmp_path, content), "prepare.source")
    assert table["key"].to_list() == ["007", "8"]
    assert table["zip"].to_list() == ["01067", "10115"]
    assert table["a"].to_list() == ["02", "3"]
    assert table["b"].to_list() == [0.5, -0.5]
    assert table["c"].to_list() == ["0", "00"]


def test_a_plus_hides_no_number(tmp_path: Path) -> None:
    table = read_table(text(tmp_path, "a,b,c\n+1,+.5,+\n2,1,2\n"), "prepare.source")
    assert table["a"].to_list() == [1, 2]
    assert table["b"].to_list() == [0.5, 1.0]
    assert table["c"].to_list() == ["+", "2"]


def test_a_type_that_shows_late_holds_for_the_whole_column(tmp_path: Path) -> None:
    content = "a,b\n" + "1,1\n" * 5000 + "1.5,x\n"
    table = read_table(text(tmp_path, content), "prepare.source")
    assert table.dtypes == [pl.Float64, pl.String]
    assert table.height == 5001


def test_quoted_texts_keep_separators_and_line_breaks(tmp_path: Path) -> None:
    table = read_table(text(tmp_path, 'a,b\n1,"x, y\nz"\n'), "prepare.source")
    assert table["b"].to_list() == ["x, y\nz"]


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    assert "does not exist" in message(tmp_path / "table.csv")


def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "table.csv")
    assert "is no file, but a FIFO" in message(tmp_path / "table.csv")


@pytest.mark.parametrize("name", ["table.xlsb", "table", "table.parquet.gz", "table.gz"])
def test_an_unknown_kind_of_file_is_refused(tmp_path: Path, name: str) -> None:
    assert "not a kind of table" in message(text(tmp_path, "a\n1\n", name))


def damaged_files(folder: Path) -> dict[str, Path]:
    TABLE.write_parquet(folder / "whole.parquet")
    whole = (folder / "whole.parquet").read_bytes()
    contents = {
        "no_parquet.parquet": b"PAR1 nonsense",
        "cut.parquet": whole[: len(whole) // 2],
        "beginning_lost.parquet": whole[len(whole) // 2 :],
        "ragged.csv": b"a,b\n1,2\n3,4,5\n",
        "no_text.csv": b"a,b\n1,\x81tienne\n",
        "one_name_twice.csv": b"a, a\n1,2\n",
        "cut.jsonl": b'{"a": 1}\n{"a":',
        "no_records.jsonl": b"[1, 2]\n",
        "blank.jsonl": b"\n\n",
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return {name: folder / name for name in contents}


def test_a_damaged_file_is_one_line_that_names_it(tmp_path: Path) -> None:
    for name, path in damaged_files(tmp_path).items():
        said = message(path)
        assert said.startswith(f"cannot read {path}: "), name
        assert "\n" not in said, name
