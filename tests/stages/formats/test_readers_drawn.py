"""One reading of files that are damaged at random: both readers take the same rows."""

import json
import random
from pathlib import Path

import polars as pl
import pytest

from stages.formats import csv
from stages.formats.text import compressed
from tests.support.readings import assert_one_reading, read_new_rows

WORDS = ["1", "-2.5", "007", "Oslo", "", "é", "true", "5 cm", "# no", "1234567890123456789"]
QUOTED = ["a,b", "two\nlines", 'said "so"', "", "three\r\nlines\nhere", " blank "]
NOISE = [
    b'"',
    b'""',
    b'"a',
    b'a"',
    b",",
    b"\n",
    b"\r",
    b"\r\n",
    b"\0",
    b'\\"',
    b"\xff",
    b" ",
    b"#",
    b"\xef\xbb\xbf",
]


def damage(content: bytes, begin: int, source: random.Random) -> tuple[bytes, int]:
    """`content` with up to four wrong bytes from `begin` on; how many there are."""
    count = source.choice([0, 1, 1, 2, 4])
    for _ in range(count):
        place = source.randrange(begin, len(content) + 1)
        cut = source.choice([0, 0, 0, 1])
        content = content[:place] + source.choice(NOISE) + content[place + cut :]
    return content, count


def csv_lines(source: random.Random, num_rows: int) -> list[str]:
    """Rows whose first field and last are the same number; between them stands anything."""
    lines = []
    for row in range(num_rows):
        fields = source.choices(WORDS, k=3)
        if source.random() < 0.3:
            fields[source.randrange(3)] = '"' + source.choice(QUOTED).replace('"', '""') + '"'
        lines.append(",".join([str(row), *fields, str(row)]))
    return lines


# Of a file that a seed decides: its chances, the end of a line, and the number of its rows.
Drawn = tuple[random.Random, str, int]


@pytest.fixture
def drawn(seed: int) -> Drawn:
    source = random.Random(seed)
    return source, source.choice(["\n", "\r\n", "\r"]), 30


@pytest.mark.parametrize("seed", range(60))
def test_both_readers_take_damaged_csv_for_the_same_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, drawn: Drawn
) -> None:
    source, end, num_rows = drawn
    header = end.join(["a,b,c,d,e", "0,x,x,x,0", "1,x,x,x,1", "2,x,x,x,2", ""]).encode()
    content = header + (end.join(csv_lines(source, num_rows)) + end).encode()
    content, count = damage(content, len(header), source)
    path = tmp_path / "t.csv"
    path.write_bytes(content)
    texts, damaged = assert_one_reading(path, list("abcde"))
    # No row takes another one's values, and a wrong byte costs two rows at most: its own, and one
    # that it joins with it.
    own = texts.filter((pl.col("a") == pl.col("e")) & pl.col("a").is_not_null())
    assert own.height >= num_rows + 3 - 2 * count
    assert texts.height - own.height + len(damaged) <= 8 * count
    # Where a piece of the file ends makes no difference.
    monkeypatch.setattr(compressed, "READ_BYTES", source.choice([11, 101, 499]))
    monkeypatch.setattr(csv, "LAYOUT_BYTES", 60)
    again, damaged_again = read_new_rows(path, list("abcde"))[::2]
    assert again.equals(texts)
    assert damaged_again == damaged


@pytest.mark.parametrize("seed", range(40))
def test_both_readers_take_damaged_json_for_the_same_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, drawn: Drawn
) -> None:
    source, end, num_rows = drawn
    values = [*WORDS, *QUOTED, None, 1, "\0", 2**60 + 1]
    records = [{"a": i, "b": source.choice(values), "c": i} for i in range(num_rows)]
    lines = [json.dumps(each, ensure_ascii=source.random() < 0.5) for each in records]
    content, count = damage((end.join(lines) + end).encode(), 0, source)
    path = tmp_path / "t.jsonl"
    path.write_bytes(content)
    texts, damaged = assert_one_reading(path, list("abc"))
    own = texts.filter(pl.col("a") == pl.col("c"))
    with_nul = sum(record["b"] == "\0" for record in records)
    assert own.height >= num_rows - 2 * count - with_nul
    monkeypatch.setattr(compressed, "READ_BYTES", source.choice([11, 101, 499]))
    assert read_new_rows(path, list("abc"))[2] == damaged
