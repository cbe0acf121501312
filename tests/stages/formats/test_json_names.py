"""Columns that a line of JSON does not name, beside those that it names with null."""

import json
from pathlib import Path

import pytest

from stages.features.schema import Feature, Schema, Target
from stages.formats import json_lines
from stages.formats.read import read_chunks
from stages.formats.reading import Noticed

SCHEMA = Schema(
    key=None,
    features=[
        Feature(name="size", kind="numeric"),
        Feature(name="år", kind="numeric", missing=True),
    ],
    target=Target(name="y", task="regression"),
)
NAMED = ['{"size": null, "år": 1}', '{"år":null,"size":null}', '{"size": 1,"år": null}']
# That are no names of these columns, and names that are written otherwise.
UNNAMED = [
    '{"note": "size", "år": 1}',
    '{"note": {"size": 1}, "år": 1}',
    '{"a\\"size": 1, "år": 1}',
    '{"note": "\\"size\\":", "år": 1}',
]
OTHERWISE = ['{"size" : null, "\\u00e5r": null}', '{"si\\u007ae": null, "år" :1}']


def read(folder: Path, lines: list[str]) -> tuple[list[int], list[str]]:
    """The rows that are set aside, and what is told."""
    path = folder / "new.jsonl"
    path.write_text("\n".join(lines), encoding="utf-8")
    noticed = Noticed()
    (chunk,) = read_chunks(path, SCHEMA, "infer.input", noticed)
    return [damage.row for damage in chunk.damaged], noticed.lines()


@pytest.mark.parametrize("searched", [0, 32])
def test_a_name_is_known_however_it_is_written_and_nothing_else_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, searched: int
) -> None:
    monkeypatch.setattr(json_lines, "MAX_SEARCHED", searched)
    assert read(tmp_path, [*NAMED, *UNNAMED, *OTHERWISE]) == ([3, 4, 5, 6], [])
    said = "note: 'år' is not named in 1 row: taken as gaps"
    assert read(tmp_path, [*NAMED, '{"size": 1, "note": "år"}']) == ([], [said])


def test_a_line_that_names_its_gaps_is_not_parsed_once_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parsed = []
    loads = json.loads
    monkeypatch.setattr(json, "loads", lambda text: parsed.append(text) or loads(text))
    assert read(tmp_path, [*NAMED, '{"size": 1}']) == (
        [],
        ["note: 'år' is not named in 1 row: taken as gaps"],
    )
    assert parsed == [b'{"size": 1}']
