"""Ranges of a plain CSV file: the parts of the file that is read from its start to its end."""

import codecs
import gzip
import os
from pathlib import Path

import pytest

import stages.formats.csv as csv
import stages.formats.text.compressed as compressed
from stages.common.errors import UserError
from stages.formats.reading import Noticed
from stages.formats.text.csv_typed import join_blocks
from stages.prepare.table.csv_ranges import find_ranges

READ_BYTES = 5000
ROWS = "".join(f"{n},{n * 7 % 1001},town {n % 13}\n" for n in range(3000))


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compressed, "READ_BYTES", READ_BYTES)
    monkeypatch.setattr(csv, "LAYOUT_BYTES", 500)


def whole(path: Path, part_bytes: int) -> list[bytes]:
    blocks = csv.open_csv(path, Noticed()).blocks
    return [block.content for block in join_blocks(blocks, part_bytes)]


def _fill(content: bytes) -> bytes:
    """The content with a last name that is as long as it takes."""
    return content[:-1] + b"x" * (-len(content) % READ_BYTES) + b"\n"


HEAD = "id,number,town\n"
PLAIN = {
    "as most files are": (HEAD + ROWS).encode(),
    "a mark at its start": codecs.BOM_UTF8 + (HEAD + ROWS).encode(),
    "no line's end at its end": (HEAD + ROWS).encode().rstrip(),
    "letters beyond ASCII": (HEAD + ROWS.replace("town 7", "Tromsø")).encode(),
    "its size a multiple of what is read": _fill((HEAD + ROWS).encode()),
    "without a header": ROWS.encode(),
    "one column": "".join(f"{n}\n" for n in range(9000)).encode(),
    "tabs": (HEAD + ROWS).replace(",", "\t").encode(),
}


@pytest.mark.parametrize("part_bytes", [1, 4999, 12_500, 40_000, 10**6])
@pytest.mark.parametrize("content", PLAIN.values(), ids=PLAIN)
def test_ranges_are_the_parts_of_the_whole(tmp_path: Path, content: bytes, part_bytes: int) -> None:
    path = tmp_path / "table.csv"
    path.write_bytes(content)
    ranges = find_ranges(path, ",", Noticed())
    assert ranges is not None
    places = ranges.cut(part_bytes)
    assert places is not None
    blocks = [ranges.read(*place) for place in places]
    assert [block.content for block in blocks if block is not None] == whole(path, part_bytes)


WRONG = {
    "a quote": b'"8",8,x\n',
    "another line's end": b"8,8,x\r\n",
    "a field too few": b"8,8\n",
    "an empty line": b"\n",
    "the first letter beyond ASCII": "8,8,Tromsø\n".encode(),
    "a byte that is no UTF-8": b"8,8,\xff\n",
    "a NUL": b"8,8,\0\n",
}


@pytest.mark.parametrize("line", WRONG.values(), ids=WRONG)
def test_a_line_that_is_not_plain_is_told_by_its_range(tmp_path: Path, line: bytes) -> None:
    lines = (HEAD + ROWS).encode().splitlines(keepends=True)
    path = tmp_path / "table.csv"
    path.write_bytes(b"".join([*lines[:2000], line, *lines[2000:]]))
    ranges = find_ranges(path, ",", Noticed())
    assert ranges is not None
    places = ranges.cut(9000)
    assert places is not None
    assert [place for place in places if ranges.read(*place) is None] != []
    assert ranges.read(*places[0]) is not None


def test_a_file_that_is_another_one_by_now_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text(HEAD + ROWS)
    before = path.stat()
    ranges = find_ranges(path, ",", Noticed())
    assert ranges is not None
    places = ranges.cut(9000)
    assert places is not None
    assert ranges.read(*places[-1]) is not None
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    with pytest.raises(UserError, match="has changed since it was first opened, or a worker sees"):
        ranges.read(*places[-1])
    path.write_text(HEAD + ROWS[:-10])
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(UserError, match=f"{before.st_size - 10} bytes"):
        ranges.read(*places[0])


def test_other_files_are_read_by_one_process(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    content = (HEAD + ROWS).encode()
    long = (HEAD + "1,2," + "x" * 100_000 + "\n" + ROWS).encode()
    for other in (gzip.compress(content), content.decode().encode("utf-16"), content[:4900]):
        path.write_bytes(other)
        assert find_ranges(path, ",", Noticed()) is None
    # It is told that this one is not compressed, by the one process that reads it.
    named = tmp_path / "table.csv.gz"
    named.write_bytes(content)
    assert find_ranges(named, ",", Noticed()) is None
    path.write_bytes(long)
    ranges = find_ranges(path, ",", Noticed())
    assert ranges is not None
    assert ranges.cut(4000) is None
