"""The contract of a format: what is written is read back, whole and in chunks the same.

Every suffix of the table is held to it, so a new format is tested by being in the table.
"""

import re
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image
from polars.testing import assert_frame_equal

from pipeline.deps.import_closure import find_closure
from stages.common.errors import UserError
from stages.features.pixels import KNOWN
from stages.features.schema import Feature, Schema, Target
from stages.formats import chunk
from stages.formats.images.load import load_column
from stages.formats.read import read_chunks
from stages.formats.reading import Noticed
from stages.formats.suffixes import FORMATS, SUFFIXES, WRITTEN
from tests.conftest import ROOT
from tests.support.readings import assert_one_reading, read_new_rows, schema_of
from tests.support.stages.formats import KEY, KINDS, TABLE, every_suffix, mixed_schema, written
from tests.support.tables import read_table

FOLDER = Path("stages/formats")


def test_every_format_has_a_suffix_and_no_suffix_is_without_a_format() -> None:
    files = {file for file in (ROOT / FOLDER).rglob("*.py") if is_format(file)}
    # Those of folders have no suffix.
    formats = {file.stem for file in files} - {"image_folder", "manifest", "shards"}
    assert formats == {load().__name__.rpartition(".")[2] for load in FORMATS.values()}
    for suffix in SUFFIXES:
        assert re.fullmatch(r"\.[a-z0-9]+", suffix)


def is_format(path: Path) -> bool:
    text = path.read_text(encoding="utf-8")
    return all(f"\ndef {word}(" in text for word in ("read", "chunks"))


def test_a_stage_that_reads_depends_on_every_format(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    for stage in ("prepare", "infer"):
        files = find_closure(f"stages.{stage}.__main__").files
        assert set(FOLDER.rglob("*.py")) <= {*files}


@pytest.mark.parametrize("suffix", [*WRITTEN, *(suffix.upper() for suffix in WRITTEN)])
def test_what_is_written_is_read_back(tmp_path: Path, suffix: str) -> None:
    path = written(tmp_path / f"table{suffix}", TABLE[:1], TABLE[1:3], TABLE[3:])
    assert_frame_equal(read_table(path, KEY), TABLE)


@every_suffix
def test_new_rows_have_the_values_of_the_whole_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    monkeypatch.setattr(chunk, "CHUNK_ROWS", 3)
    path = written(tmp_path / f"table{suffix}", TABLE)
    parts = list(read_chunks(path, mixed_schema(), KEY))
    assert [part.rows.tolist() for part in parts] == [[0, 1, 2], [3]]
    assert [part.damaged for part in parts] == [[], []]
    for name in ("id", *KINDS):
        values = pl.concat([part.table[name].cast(pl.String) for part in parts])
        whole = read_table(path, KEY)[name]
        # A text of new rows is a number or a truth by the model's column, not by its own file.
        values = values if name == "smoker" else values.cast(whole.dtype)
        assert values.to_list() == (whole.cast(pl.String) if name == "smoker" else whole).to_list()


@every_suffix
def test_blanks_are_gaps_in_both_and_words_are_where_it_is_said(
    tmp_path: Path, suffix: str
) -> None:
    words = ["NA", "?", "null", "  ", None, ""]
    table = pl.DataFrame(
        {"a": ["x", "é", " y ", *"zzz"], "b": ["1", " 2", "3 ", *"456"], "c": words}
    )
    path = written(tmp_path / f"t{suffix}", table)
    texts, damaged = assert_one_reading(path, ["a", "b", "c"])
    assert damaged == []
    assert texts.rows()[:3] == [("x", "1", "NA"), ("é", "2", "?"), ("y", "3", "null")]
    assert texts["c"].null_count() == 3
    schema = schema_of(["c"])
    feature = schema.features[0].model_copy(update={"missing_words": ["NA", "?"]})
    noticed = Noticed()
    schema = schema.model_copy(update={"features": [feature]})
    (part,) = read_chunks(path, schema, KEY, noticed)
    assert part.table["c"].to_list() == [None, None, "null", None, None, None]
    assert noticed.lines() == ["note: 'c' holds 1 '?', 1 'NA': taken as gaps"]


@every_suffix
def test_a_cell_of_four_million_and_a_half_letters_is_read(tmp_path: Path, suffix: str) -> None:
    long = "0123456789" * 450_000
    table = pl.DataFrame({"a": ["x", long, "y, z"], "b": ["1", "2", "3"]})
    path = written(tmp_path / f"t{suffix}", table)
    assert read_new_rows(path, ["a", "b"])[0].equals(table)
    assert read_table(path, KEY)["a"].to_list() == table["a"].to_list()


@every_suffix
def test_infinities_are_counted_by_both(tmp_path: Path, suffix: str) -> None:
    table = pl.DataFrame({"a": [float("inf"), 1.5, float("-inf"), float("inf"), None]})
    path = written(tmp_path / f"t{suffix}", table)
    said: list[str] = []
    read_table(path, KEY, said.append)
    assert read_new_rows(path, ["a"], "numeric")[3] == said
    # JSON has no word for them: they are written as gaps.
    assert said in ([], ["note: 'a' holds 1 '-inf', 2 'inf': taken as gaps"])


@every_suffix
def test_only_the_needed_columns_are_handed_on(tmp_path: Path, suffix: str) -> None:
    path = written(tmp_path / f"t{suffix}", TABLE)
    (part,) = read_chunks(path, schema_of(["zip", "town"]), KEY)
    assert part.table.columns == ["zip", "town"]
    with pytest.raises(UserError, match="'weight'"):
        list(read_chunks(path, schema_of(["zip", "weight"]), KEY))


@every_suffix
def test_a_name_may_be_a_star_and_no_pattern(tmp_path: Path, suffix: str) -> None:
    table = pl.DataFrame({"*": ["x", "y"], "a": [" u ", "v"]})
    path = written(tmp_path / f"t{suffix}", table)
    texts, damaged = assert_one_reading(path, ["*", "a"])
    assert (texts.rows(), damaged) == ([("x", "u"), ("y", "v")], [])
    written(path, table.rename({"*": "^a$"}))
    for read in (lambda: read_table(path, KEY), lambda: read_new_rows(path, ["^a$", "a"])):
        with pytest.raises(UserError, match="is named as a pattern of names: rename it"):
            read()


def folder_of_images(folder: Path) -> Path:
    pixels = np.arange(4 * 3 * 5, dtype=np.uint8).reshape(5, 4, 3)
    for row, name in enumerate(("cat/a.png", "cat/b.PNG", "dog/a.png", "dog/b.png", "dog/c.png")):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels[row]).save(folder / name)
    return folder


def test_a_folder_of_images_is_the_same_whole_and_in_chunks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunk, "CHUNK_ROWS", 2)
    folder = folder_of_images(tmp_path / "pets")
    image = Feature(name="image", kind="image", shape=[1, 4, 3], layout="HW")
    schema = Schema(key="path", features=[image], target=Target(name="y", task="regression"))
    whole = read_table(folder, KEY)
    parts = list(read_chunks(folder, schema, KEY))
    assert [part.rows.tolist() for part in parts] == [[0, 1], [2, 3], [4]]
    arrays = load_column(whole["image"], folder, None, KEY).pixels
    found = pl.concat([part.table for part in parts])
    assert found.equals(pl.DataFrame({"path": whole["path"], "image": arrays}))
    (folder / "cat/b.PNG").write_bytes(b"none")
    (rejected,) = load_column(whole["image"], folder, None, KEY).rejected
    assert (rejected.row, rejected.reason) == (1, f"it can't be read: it is no {KNOWN}")
    parts = list(read_chunks(folder, schema, KEY))
    (damaged,) = (each for part in parts for each in part.damaged)
    assert (damaged.row, damaged.key) == (1, "cat/b.PNG")
    assert damaged.reason == rejected.reason
    assert [row for part in parts for row in part.rows.tolist()] == [0, 2, 3, 4]


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    image = Feature(name="image", kind="image", shape=[1, 4, 3], layout="HW")
    schema = Schema(key="path", features=[image], target=Target(name="y", task="regression"))
    with pytest.raises(UserError, match="has no images"):
        read_table(tmp_path, KEY)
    with pytest.raises(UserError, match="has no rows"):
        list(read_chunks(tmp_path, schema, KEY))
