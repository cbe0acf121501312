"""The contract of a format: files that are empty, damaged or cut are told, whole and in chunks."""

import contextlib
import re
from pathlib import Path

import polars as pl
import pytest

from stages.common.errors import UserError
from stages.formats.read import read_chunks
from tests.support.readings import assert_one_reading, read_new_rows
from tests.support.stages.formats import KEY, TABLE, every_suffix, mixed_schema, written
from tests.support.tables import read_table


def says(path: Path) -> list[str]:
    """What reading whole and reading in chunks say of a file that neither reads."""
    messages = []
    for read in (
        lambda: read_table(path, KEY),
        lambda: list(read_chunks(path, mixed_schema(), KEY)),
    ):
        with pytest.raises(UserError) as caught:
            read()
        (problem,) = caught.value.problems
        assert (problem.key, problem.value) == (KEY, str(path))
        assert problem.allowed == ()
        messages.append(problem.message)
    return messages


@every_suffix
def test_an_empty_file_is_refused(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"t{suffix}"
    path.touch()
    assert says(path) == [f"{path} is empty"] * 2


@every_suffix
def test_a_table_without_rows_is_refused(tmp_path: Path, suffix: str) -> None:
    # JSON lines have no header: such a file is empty.
    path = written(tmp_path / f"t{suffix}", TABLE.clear())
    for message in says(path):
        assert message.startswith(f"{path} ")
        assert "no rows" in message or "is empty" in message


@every_suffix
def test_of_another_format_no_row_is_read(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"t{suffix}"
    path.write_bytes(bytes(range(256)) * 8)
    with pytest.raises(UserError) as caught:
        read_table(path, KEY)
    assert caught.value.problems[0].message.startswith(f"cannot read {path}: ")
    assert "\n" not in caught.value.problems[0].message
    # Of a format without a header each line may be damaged by itself.
    with contextlib.suppress(UserError):
        assert sum(part.table.height for part in read_chunks(path, mixed_schema(), KEY)) == 0


ROWS = pl.DataFrame({"a": [f"row {row}" for row in range(20)], "b": ["x"] * 20})


@every_suffix
def test_a_damaged_line_is_named_by_one_and_set_aside_by_the_other(
    tmp_path: Path, suffix: str
) -> None:
    path = written(tmp_path / f"t{suffix}", ROWS)
    content = path.read_bytes()
    try:
        content.decode("utf-8")
    except UnicodeDecodeError:
        pytest.skip("a file without lines is damaged as a whole")
    place = content.index(b"row 7")
    path.write_bytes(content.replace(b"row 7", b"r\x81w 7"))
    texts, damaged = assert_one_reading(path, ["a", "b"])
    assert texts.equals(ROWS.filter(pl.col("a") != "row 7"))
    (only,) = damaged
    assert only.row == 7
    assert only.reason.startswith(f"line {line_of(content, place)}: the byte 0x81 in column ")


@every_suffix
@pytest.mark.parametrize("share", [0.3, 0.5, 0.71, 0.97])
def test_a_file_that_is_cut_is_told_by_both(tmp_path: Path, suffix: str, share: float) -> None:
    path = written(tmp_path / f"t{suffix}", ROWS)
    content = path.read_bytes()
    # In the middle of a row, where a format has rows.
    end = content.rfind(b"row ", 0, int(share * len(content))) + len(b"ro")
    path.write_bytes(content[:end])
    try:
        read_new_rows(path, ["a", "b"])
    except UserError:
        for read in (lambda: read_table(path, KEY), lambda: read_new_rows(path, ["a", "b"])):
            with pytest.raises(UserError, match=r"^cannot read"):
                read()
    else:
        texts, damaged = assert_one_reading(path, ["a", "b"])
        assert texts.equals(ROWS[: texts.height])
        assert [each.row for each in damaged] == [texts.height]
        assert re.match(rf"line {line_of(content, end)}\b", damaged[0].reason)


def line_of(content: bytes, place: int) -> int:
    return content.count(b"\n", 0, place) + 1
