"""New rows that are damaged or of another form: set aside with their reasons, or refused."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from polars.testing import assert_frame_equal

from stages.common.errors import UserError
from stages.features.schema import Feature, Moments, Schema, Statistics, Target
from stages.formats import chunk
from stages.formats.chunk import Chunk
from stages.infer.rejected import encode_whole
from stages.infer.stream import MAX_DAMAGED_FIRST
from stages.infer.write import describe, write_predictions
from stages.model.predictor import Predictor, load_predictor
from tests.support.samples import run_stages, small_project
from tests.support.stages.new_rows import KEY, TABLE, predicted, written


def test_damaged_lines_of_csv_are_set_aside_with_their_reasons(
    predictor: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunk, "CHUNK_ROWS", 50)
    path = written(tmp_path / "new.csv")
    lines = path.read_text("utf-8").splitlines()
    lines[3] = "1002,tall,Oslo,true,ill"
    lines[5] += ",more"
    lines[60] = "1059,1.5"
    lines[70] = ",1.5,Oslo,true,ill"
    lines[80] = "1079,1e308,Oslo,perhaps,ill"
    lines[90] = "1089,1.5,Oslo,perhaps,ill"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    found, rejected, summary = predicted(path, predictor)
    numbers = [2, 4, 59, 69, 79, 89]
    assert [int(row["row"]) for row in rejected] == numbers
    assert [row["key"] for row in rejected] == ["1002", "", "", "", "1079", "1089"]
    assert [row["column"] for row in rejected] == ["size", "", "", "id", "size", "smoker"]
    assert [row["reason"] for row in rejected] == [
        "'tall' is not a number that can be computed with",
        "line 6 has 6 fields, and the header 5",
        "line 61 has 2 fields, and the header 5",
        "it has no key",
        "1e+308 is not a number that can be computed with",
        "'perhaps' is not true or false",
    ]
    assert (summary.num_predicted, summary.num_damaged) == (114, 6)
    others = predictor.predict(TABLE[[i for i in range(120) if i not in numbers]])
    assert_frame_equal(found, others, rel_tol=1e-5)


def test_damaged_lines_of_json_are_set_aside(predictor: Predictor, tmp_path: Path) -> None:
    path = written(tmp_path / "new.jsonl")
    lines = path.read_text("utf-8").splitlines()
    lines[4], lines[9] = lines[4][:-5], "[1, 2]"
    record = json.loads(lines[20])
    lines[20] = json.dumps({**record, "size": {"cm": 3}})
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    found, rejected, _ = predicted(path, predictor)
    assert [(int(row["row"]), row["column"]) for row in rejected] == [
        (4, ""),
        (9, ""),
        (20, "size"),
    ]
    others = predictor.predict(TABLE[[i for i in range(120) if i not in (4, 9, 20)]])
    assert_frame_equal(found, others, rel_tol=1e-5)


def test_a_column_without_a_name_is_learned_from_and_named_in_messages(tmp_path: Path) -> None:
    source = tmp_path / "table.csv"
    TABLE.rename({"size": "", "town": "Unnamed: 0"}).write_csv(source)
    changes = {"prepare.key": "id", "prepare.source": str(source), "infer.input": str(source)}
    made = small_project(tmp_path / "p", TABLE, changes)
    run_stages(made, "prepare", "build", "tune", "train", "infer")
    predictor = load_predictor(made.path / "data")
    assert [feature.name for feature in predictor.schema.features] == ["", "Unnamed: 0", "smoker"]
    lines = source.read_text("utf-8").splitlines()
    lines[2] = "1001,tall,Oslo,true,ill"
    source.write_text("\n".join(lines), encoding="utf-8")
    summary = write_predictions(source, tmp_path / "out.csv", None, predictor, KEY, explained=True)
    (damage,) = summary.examples
    said = "row 1 (key 1001): '': 'tall' is not a number that can be computed with"
    assert describe(damage) == said
    moved = pl.read_csv(tmp_path / "out.csv")["moved_by"].drop_nulls()
    assert moved.str.contains(r"(^|, )'' [+-]").all()


def test_keys_are_texts_when_one_is_none_of_the_numbers(
    predictor: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunk, "CHUNK_ROWS", 10)
    names = [str(name) for name in TABLE["id"]]
    names[50] = "0050"
    path = written(tmp_path / "new.csv", TABLE.with_columns(id=pl.Series(names)))
    found, _, _ = predicted(path, predictor)
    assert found["id"].to_list() == names


@pytest.mark.parametrize(
    ("table", "says"),
    [
        (TABLE.with_columns(size=pl.lit("tall")), "the column 'size' holds"),
        (TABLE.drop("town"), "the column 'town'"),
        (TABLE.clear(), "has no rows"),
    ],
)
def test_a_file_of_another_form_stops(
    predictor: Predictor, tmp_path: Path, table: pl.DataFrame, says: str
) -> None:
    with pytest.raises(UserError, match=says):
        predicted(written(tmp_path / "new.parquet", table), predictor)


def test_an_image_of_another_shape_is_set_aside() -> None:
    image = Feature(name="image", kind="image", shape=[1, 2, 2], layout="HW")
    schema = Schema(key="id", features=[image], target=Target(name="y", task="regression"))
    statistics = Statistics(numeric={}, image=[Moments(mean=0.0, deviation=1.0)], target=None)
    images = [[[1, 2], [3, 4]], [[1, 2]], None, [[5, 6], [7, 8]]]
    images_chunk = Chunk(pl.DataFrame({"id": [5, 6, 7, 8], "image": images}), np.arange(4))
    whole, arrays = encode_whole(images_chunk, schema, statistics, KEY)
    assert whole.rows.tolist() == [0, 3]
    assert arrays["image"].tolist() == [[[[1, 2], [3, 4]]], [[[5, 6], [7, 8]]]]
    assert [(d.row, d.key) for d in whole.damaged] == [(1, 6), (2, 7)]
    assert whole.damaged[0].reason == "[[1, 2]] is not an array of numbers of shape (2, 2)"


def test_a_column_may_be_absent_from_lines_before_a_damaged_one(
    predictor: Predictor, tmp_path: Path
) -> None:
    path = written(tmp_path / "new.jsonl", TABLE.head(4))
    lines = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    del lines[0]["town"]
    lines[1]["size"] = [1]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    found, rejected, _ = predicted(path, predictor)
    assert found.height == 3
    assert [row["column"] for row in rejected] == ["size"]


def test_where_each_row_is_wrong_in_its_own_way_all_are_told(
    predictor: Predictor, tmp_path: Path
) -> None:
    new = TABLE[:2].select("id", *(feature.name for feature in predictor.schema.features))
    texts = new.select(pl.all().cast(pl.String)).to_dicts()
    texts[0]["size"], texts[1]["smoker"] = "big", "seldom"
    with pytest.raises(UserError, match="none of the first 2 rows") as caught:
        predicted(written(tmp_path / "new.csv", pl.DataFrame(texts)), predictor)
    assert "; row 0: 'size': 'big' is not a number" in str(caught.value)
    assert "; row 1: 'smoker': 'seldom' is not" in str(caught.value)


@pytest.mark.parametrize("feature", [{}, {"decimal": ".", "unit": "km"}])
def test_many_rows_that_are_wrong_are_set_aside_and_the_others_predicted(
    tmp_path: Path, feature: dict[str, str]
) -> None:
    target = Target(name="y", task="regression")
    features = [Feature(name="way", kind="numeric", **feature)]
    schema = Schema(key=None, features=features, target=target)
    one = Moments(mean=0.0, deviation=1.0)
    model = torch.nn.Module()
    model.forward = lambda batch: batch["numeric"]  # type: ignore[method-assign]
    made = Predictor(model, schema, Statistics(numeric={"way": one}, image=[], target=one))
    # More than the beginning that may be without a row, all of them different.
    num_rows = 2 * MAX_DAMAGED_FIRST + 2
    end = " km" if feature else ""
    ways = [f"{n}.5{end}" if n % 2 else f"{n}.5 mi" for n in range(num_rows)]
    new = written(tmp_path / "new.csv", pl.DataFrame({"way": ways}))
    found, rejected, _ = predicted(new, made)
    assert found["row"].to_list() == list(range(1, num_rows, 2))
    assert [int(line["row"]) for line in rejected] == list(range(0, num_rows, 2))
