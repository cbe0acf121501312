"""Numbers of new rows that are written otherwise than in training: `22,5` and `22.5`."""

import json
from pathlib import Path

import polars as pl
import pytest

from pipeline.serve.codec.signature import Input
from stages.common.errors import UserError
from stages.features.columns import as_numeric
from stages.features.kinds.numeric import read_values
from stages.features.schema import Feature, Moments, Schema, Statistics, Target
from stages.features.spelling import explain_signs
from stages.formats import chunk
from stages.formats.read import read_chunks
from stages.formats.reading import Noticed
from stages.infer.rejected import encode_whole

KEY = "infer.input"
PLAIN = Feature(name="x", kind="numeric")
COMMA = Feature(name="x", kind="numeric", decimal=",")
GROUPED = Feature(name="x", kind="numeric", decimal=",", thousands=".")
EUROS = Feature(name="x", kind="numeric", decimal=".", unit="€", missing_words=["?"])


def written(folder: Path, suffix: str, texts: list[object]) -> Path:
    path = folder / f"new{suffix}"
    if suffix == ".parquet":
        pl.DataFrame({"x": texts}).write_parquet(path)
    elif suffix == ".jsonl":
        path.write_text("\n".join(json.dumps({"x": text}) for text in texts), encoding="utf-8")
    else:
        path.write_text("\n".join(["x;n", *(f"{t};1" for t in texts)]), encoding="utf-8")
    return path


def read(path: Path, feature: Feature) -> tuple[list[object], list[str], list[str]]:
    """The values of the rows that are predicted, the reasons of the others, and what is said."""
    schema = Schema(key=None, features=[feature], target=Target(name="y", task="regression"))
    statistics = Statistics(numeric={"x": Moments(mean=0, deviation=1)}, image=[], target=None)
    noticed = Noticed()
    values: list[object] = []
    reasons: list[str] = []
    for part in read_chunks(path, schema, KEY, noticed):
        whole, arrays = encode_whole(part, schema, statistics, KEY)
        values += arrays["numeric"][:, 0].tolist() if arrays else []
        reasons += [damage.reason for damage in whole.damaged]
    return values, reasons, [line for line in noticed.lines() if "training" in line]


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
@pytest.mark.parametrize(
    ("feature", "texts", "values", "said"),
    [
        (PLAIN, ["5", "22,5", "-0,25"], [5, 22.5, -0.25], "1234,5, in training as 1234.5"),
        (PLAIN, ["1,2345", "1,234"], [1.2345, 1.234], "1234,5, in training as 1234.5"),
        (PLAIN, ["1.500,5", "1.500"], [1500.5, 1500], "1.234,5, in training as 1234.5"),
        (COMMA, ["22.5", "7"], [22.5, 7], "1234.5, in training as 1234,5"),
        (GROUPED, ["22.5", "1.234"], [22.5, 1.234], "1234.5, in training as 1.234,5"),
        (
            PLAIN,
            ["22,5", "nan", "-inf", "Infinity", "0,5"],
            [22.5, 0, 0, 0, 0.5],
            "1234,5, in training as 1234.5",
        ),
        (COMMA, ["NaN", "22.5"], [0, 22.5], "1234.5, in training as 1234,5"),
        (EUROS, ["22,5 €", "?", "€7"], [22.5, 0, 7], "1234,5 €, in training as 1234.5 €"),
    ],
)
def test_a_file_that_has_other_signs_throughout_is_read_by_them_and_said(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    suffix: str,
    feature: Feature,
    texts: list[object],
    values: list[float],
    said: str,
) -> None:
    monkeypatch.setattr(chunk, "CHUNK_ROWS", 2)
    found, reasons, lines = read(written(tmp_path, suffix, texts), feature)
    assert found == pytest.approx(values)
    assert reasons == []
    assert lines == [f"note: 'x' holds numbers written as {said}"]


def test_a_file_that_may_be_read_in_two_ways_stops_with_both(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        read(written(tmp_path, ".csv", ["5", "1,234"]), PLAIN)
    (problem,) = caught.value.problems
    assert "'1,234' (row 1) is 1.234 or 1234; write them as 1234.5 in the file" in problem.message


def test_a_file_that_mixes_signs_keeps_those_of_training(tmp_path: Path) -> None:
    found, reasons, lines = read(written(tmp_path, ".csv", ["1.5", "22,5", "tall"]), PLAIN)
    assert (found, lines) == ([1.5], [])
    number = "is not a number that can be computed with"
    why = "numbers are written as 1234.5 in training, and this may be 22.5"
    assert reasons == [f"'22,5' {number}; {why}", f"'tall' {number}"]
    with pytest.raises(UserError, match=f"not a number: '22,5'; {why}"):
        as_numeric(pl.Series("x", ["22,5"]), KEY, PLAIN)


def test_one_text_of_the_first_rows_decides_and_none_further_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunk, "CHUNK_ROWS", 2)
    whole = ["22"] * 5
    found, reasons, _ = read(written(tmp_path, ".csv", ["1,2345", *whole]), PLAIN)
    assert (found, reasons) == ([pytest.approx(1.2345), 22, 22, 22, 22, 22], [])
    found, reasons, lines = read(written(tmp_path, ".csv", [*whole, "1,2345"]), PLAIN)
    assert (len(found), len(reasons), lines) == (5, 1, [])


def test_a_number_of_very_many_digits_is_not_told_as_infinite() -> None:
    text = f"{'9' * 400},5"
    assert explain_signs(text, None, None, None) == ""
    assert explain_signs(text, ",", None, None) == "; numbers are written as 1234,5 in training"


def test_a_request_says_what_its_text_may_be() -> None:
    described = Input(
        name="c0", column="x", kind="numeric", shape=["rows"], mean=0.0, deviation=1.0
    )
    with pytest.raises(ValueError, match=r"null; numbers are written as 1234.5 .* be 22.5"):
        read_values(described, ["22,5"])
    with pytest.raises(ValueError, match=r"a number or null$"):
        read_values(described, ["tall"])
