"""CSV as people have it: compressed, of another encoding or separator, with titles, no header."""

import gzip
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pyarrow
import pytest

from stages.common.errors import UserError
from stages.features.schema import Schema
from stages.formats.read import read_chunks
from stages.formats.text.layout import find_layout
from tests.support.readings import assert_one_reading, read_new_rows, schema_of, stops
from tests.support.tables import read_table

KEY = "prepare.source"


def zstd(content: bytes) -> bytes:
    return pyarrow.compress(content, codec="zstd", asbytes=True)  # type: ignore[no-any-return]


def said(path: Path, *expected: str) -> tuple[pl.DataFrame, list[str]]:
    lines: list[str] = []
    table = read_table(path, KEY, lines.append, expected)
    return table, [line.replace(str(path), "FILE") for line in lines]


def written(folder: Path, content: str | bytes, name: str = "t.csv") -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


PACK = pytest.mark.parametrize(
    ("suffix", "pack", "name"), [(".gz", gzip.compress, "gzip"), (".zst", zstd, "zstd")]
)


@PACK
def test_compressed_texts_are_read_to_the_end_of_their_last_part(
    tmp_path: Path, suffix: str, pack: Callable[[bytes], bytes], name: str
) -> None:
    rows = [f"{row},x\n".encode() for row in range(3000)]
    content = pack(b"a,b\n" + b"".join(rows[:1000])) + pack(b"".join(rows[1000:]))
    path = written(tmp_path, content, f"t.CSV{suffix}")
    texts, damaged = assert_one_reading(path, ["a", "b"])
    assert texts["a"].to_list() == [str(row) for row in range(3000)]
    assert damaged == []
    lines = b"".join(b'{"a": %d}\n' % row for row in range(30))
    path = written(tmp_path, pack(lines), f"t.jsonl{suffix}")
    assert assert_one_reading(path, ["a"])[0].height == 30


@PACK
def test_a_compressed_file_that_is_cut_names_the_byte(
    tmp_path: Path, suffix: str, pack: Callable[[bytes], bytes], name: str
) -> None:
    content = pack(b"a,b\n" + b"".join(b"%d,%d\n" % (n, n * n) for n in range(5000)))
    cut = content[: len(content) // 2]
    path = written(tmp_path, cut, f"t.tsv{suffix}")
    for read in (lambda: said(path), lambda: read_new_rows(path, ["a"])):
        with pytest.raises(UserError, match=f"data end at byte {len(cut):,} without their end"):
            read()
    path.write_bytes(content + b"something else")
    with pytest.raises(UserError, match=rf"its {name} data are damaged before byte"):
        read_table(path, KEY)


def test_the_name_of_a_file_does_not_hide_what_it_is(tmp_path: Path) -> None:
    packed = written(tmp_path, gzip.compress(b"a,b\n1,x\n"))
    assert said(packed)[0].rows() == [(1, "x")]
    table, lines = said(written(tmp_path, "a,b\n1,x\n", "t.csv.gz"))
    assert table.rows() == [(1, "x")]
    assert lines == ["note: FILE is not compressed, whatever its name says"]
    archive = written(tmp_path, b"PK\x03\x04 and more", "excel.csv")
    assert "it is no text, but a zip archive or an Excel file" in stops(archive)


def test_windows_1252_is_read_where_no_letter_is_utf_8(tmp_path: Path) -> None:
    content = "a,b\n" + "x,y\n" * 2000 + "Genève,5 €\nZürich,y\n"
    path = written(tmp_path, content.encode("cp1252"))
    texts, damaged = assert_one_reading(path, ["a", "b"])
    assert texts.rows()[-2:] == [("Genève", "5 €"), ("Zürich", "y")]
    assert damaged == []
    (line,) = said(path)[1]
    assert line.startswith(
        "note: FILE is not UTF-8: 3 of its bytes are read as Windows-1252 (Latin-1), the first, "
        "0xE8, as 'è'"
    )


def test_a_file_that_is_utf_8_elsewhere_keeps_its_damaged_lines(tmp_path: Path) -> None:
    for lines in (["é,1", "\xff,2", "z,3"], ["y,1", "\xff,2", "é,3"]):
        coded = [line.encode("latin-1" if "\xff" in line else "utf-8") for line in lines]
        path = written(tmp_path, b"a,b\n" + b"\n".join(coded))
        texts, damaged = assert_one_reading(path, ["a", "b"])
        assert texts["b"].to_list() == ["1", "3"]
        assert "the byte 0xFF in column 1 is no UTF-8, as the rest is" in damaged[0].reason


@pytest.mark.parametrize(
    "encoding", ["utf-32", "utf-32-le", "utf-32-be", "utf-16", "utf-16-le", "utf-16-be"]
)
def test_wide_letters_are_known_with_and_without_a_mark(tmp_path: Path, encoding: str) -> None:
    path = written(tmp_path, '"a",b\n1,é\n'.encode(encoding))
    table, lines = said(path)
    assert table.rows() == [(1, "é")]
    assert table.columns == ["a", "b"]
    assert lines == [f"note: FILE is {encoding[:6].upper()}, and read as such"]


@pytest.mark.parametrize(
    ("content", "separator", "columns"),
    [
        ("a;b;c\n1.5;2;x\n2.5;3;y\n", "';'", ["a", "b", "c"]),
        ("a;b\n1,5;2,5\n3,5;4,5\n", "';'", ["a", "b"]),
        ("a|b\n1|x\n", "'|'", ["a", "b"]),
        ('"a";"b"\n"1,5";"x"\n', "';'", ["a", "b"]),
        ("a\tb\n1\tx, y\n", "tabs", ["a", "b"]),
        ('a;b\n"1;2";"x\n,y"\n3;4\n', "';'", ["a", "b"]),
        ("Price, net;Date\n1.5;2\n2.5;3\n", "';'", ["Price, net", "Date"]),
    ],
)
def test_another_separator_is_found_and_said(
    tmp_path: Path, content: str, separator: str, columns: list[str]
) -> None:
    path = written(tmp_path, content)
    table, lines = said(path)
    assert table.columns == columns
    assert lines == [f"note: FILE is divided by {separator}, and read so"]
    assert assert_one_reading(path, columns)[1] == []


def test_a_separator_is_not_looked_for_where_the_own_one_fits(tmp_path: Path) -> None:
    for content in (
        "a,b;c\n1,2\n3,4;5\n",
        "id,tags\n1,x;y\n2,z;u\n3,v\n",
        'a,"b;c"\n1,"2;3"\n4,"5;6"\n',
        "text\nhello; you\nwe\n",
        "a,b\n1,2\n3,4,5\n6,7\n8,9\n0,1\n2,3\n",
    ):
        layout = find_layout(content.encode(), ",", is_last=True)
        assert layout is not None
        assert (layout.separator, layout.remarks) == (",", [])


def test_two_separators_that_fit_are_asked_about(tmp_path: Path) -> None:
    content = "a;b,c\n1;x,2\n3;y,4\n"
    message = stops(written(tmp_path, content))
    assert "its columns may be divided by ',' or ';': write the right one into a line" in message
    table, lines = said(written(tmp_path, "sep=,\n" + content))
    assert table.rows() == [("1;x", 2), ("3;y", 4)]
    assert lines == ["note: FILE is divided by ',', as its first line says"]
    # A name that is asked for answers as well, and two names more surely than one.
    found = find_layout(b"c0\t,c1\n,\n", "\t", ("c0", "c1"), is_last=True)
    assert found is not None
    assert found.names == ["c0", "c1"]
    assert said(written(tmp_path, content), "b,c")[0].columns == ["a", "b,c"]


def test_titles_above_the_header_are_left_out_and_said(tmp_path: Path) -> None:
    for title in ("Sales 2024\n\n", "Sales 2024;;\n"):
        path = written(tmp_path, title + "region;kind;sum\n" + "north;a;1\nsouth;b;2\n" * 2)
        table, lines = said(path)
        assert table.columns == ["region", "kind", "sum"]
        assert table.height == 4
        line = title.count("\n") + 1
        assert lines[1] == (
            f"note: FILE has 1 line above its header, which begins in line {line}: left out, the "
            "first is 'Sales 2024'"
        )
        assert assert_one_reading(path, table.columns)[1] == []
    # A column of texts with one comma each is one column, if its name is asked for.
    path = written(tmp_path, "text\nhello, you\nwell, yes\nso, then\n")
    with pytest.raises(UserError, match="line 1 has 1 field, and those from line 2 on 2"):
        said(path, "text")


NEWS = '"3","Oil; up","a, b"\n"1","","c"\n"2","War",""\n'


def numbered_schema(target: str, width: int | None) -> Schema:
    schema = schema_of([name for name in ("column_2", "column_3") if name != target])
    update = {"headerless": width, "target": schema.target.model_copy(update={"name": target})}
    return schema.model_copy(update=update)


def test_a_file_without_a_header_gets_names_that_new_rows_know(tmp_path: Path) -> None:
    path = written(tmp_path, NEWS)
    table, lines = said(path)
    assert table.columns == ["column_1", "column_2", "column_3"]
    assert table.rows()[0] == (3, "Oil; up", "a, b")
    assert lines == [
        "note: FILE has no header: its first line (3, Oil; up, a, b) holds numbers where the "
        "columns do; they are called column_1 to column_3"
    ]
    schema = numbered_schema("column_1", 3)
    for content in (NEWS, 'column_3,column_2\n"a, b",Oil; up\nc,\n,War\n'):
        (part,) = read_chunks(written(tmp_path, content), schema, KEY)
        assert part.table["column_2"].to_list() == ["Oil; up", None, "War"]
    # A file whose columns can't be told apart.
    for content, width in (("Oil,a\nWar,b\n", 3), (NEWS, None)):
        with pytest.raises(UserError, match="columns and no header, and the model learned from"):
            list(read_chunks(written(tmp_path, content), numbered_schema("column_1", width), KEY))
    # The last column alone may be left out: no other one moves.
    last = numbered_schema("column_3", 3)
    (part,) = read_chunks(written(tmp_path, "1,Oil\n2,War\n"), last, KEY)
    assert part.table["column_2"].to_list() == ["Oil", "War"]


@pytest.mark.parametrize(
    ("content", "expected", "has_header"),
    [
        ("1,2\n3,4\n", (), True),  # names that count up
        ("1,9\n3,4\n", (), False),
        ("1,9\n3,4\n", ("9",), True),
        ("a,b\nc,d\n", (), True),
        ("a,b\nc,d\n", ("column_2",), False),
        ("a,b\n1,2\n", ("column_3",), True),
        ("city,1990,2000\nOslo,5,6\n", (), False),
        ("city,1990,2000\nOslo,5,6\n", ("city",), True),
        ("city,2019,2020\nOslo,5,6\n", (), True),
        (",b\n1,2\n", (), True),
    ],
)
def test_what_is_a_header(content: str, expected: tuple[str, ...], has_header: object) -> None:
    layout = find_layout(content.encode(), ",", expected, is_last=True)
    assert layout is not None
    assert layout.has_header is has_header
    assert layout.line == 1 + layout.has_header
