"""New rows to predictions: every kind of file, in chunks; damaged rows; drift; the command."""

import contextlib
import json
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from polars.testing import assert_frame_equal

from stages.common.errors import UserError
from stages.common.files import md5, read_csv
from stages.features.drift import Sums
from stages.features.schema import Feature, Moments, Schema, Statistics, Target
from stages.formats import chunk
from stages.formats.chunk import Chunk, chunk_rows
from stages.formats.read import read_chunks
from stages.formats.reading import Noticed
from stages.infer.notes import Notes
from stages.infer.rejected import encode_whole
from stages.infer.stream import MAX_DAMAGED_FIRST
from stages.infer.write import PredictionSummary, describe, write_predictions
from stages.model.onednn import OneDnnLinear
from stages.model.predictor import Predictor, load_predictor
from stages.model.threads import one_thread
from stages.parallel.thread_map import map_in_order, num_threads
from tests.conftest import Project
from tests.support.samples import mixed_table, run_stages, small_project

KEY = "infer.input"
TABLE = mixed_table()


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    made = small_project(tmp_path_factory.mktemp("infer") / "p", TABLE, {"prepare.key": "id"})
    run_stages(made, "prepare", "build", "tune", "train", "infer")
    return made


@pytest.fixture(scope="module")
def predictor(project: Project) -> Predictor:
    return load_predictor(project.path / "data")


def written(path: Path, table: pl.DataFrame = TABLE) -> Path:
    if path.suffix == ".parquet":
        table.write_parquet(path)
    elif path.suffix == ".jsonl":
        table.write_ndjson(path)
    else:
        table.write_csv(path, separator="\t" if path.suffix == ".tsv" else ",")
    return path


def predicted(
    source: Path, predictor: Predictor
) -> tuple[pl.DataFrame, list[dict[str, str]], PredictionSummary]:
    target, rejected = source.with_name("out.parquet"), source.with_name("rejected.csv")
    summary = write_predictions(source, target, rejected, predictor, KEY)
    return pl.read_parquet(target), read_csv(rejected), summary


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".tsv", ".jsonl"])
def test_a_file_in_chunks_is_predicted_as_the_table_is_whole(
    predictor: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    monkeypatch.setattr(chunk, "CHUNK_ROWS", 7)
    found, rejected, summary = predicted(written(tmp_path / f"new{suffix}"), predictor)
    assert_frame_equal(found, predictor.predict(TABLE), rel_tol=1e-5)
    assert rejected == []
    assert (summary.num_predicted, summary.num_damaged, summary.notes) == (120, 0, [])


def test_keys_that_name_several_rows_are_told(
    predictor: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunk, "CHUNK_ROWS", 7)
    twice = TABLE.with_columns(id=pl.when(pl.col("id") == 1100).then(1003).otherwise("id"))
    found, _, summary = predicted(written(tmp_path / "new.parquet", twice), predictor)
    assert (found.height, summary.num_predicted) == (120, 120)
    note = "more than one row, each of which is predicted"
    assert summary.notes == [f"note: a key names {note}: 1003"]
    texts = TABLE.with_columns(id="k" + (pl.col("id") % 20).cast(pl.String))
    _, _, summary = predicted(written(tmp_path / "new.csv", texts), predictor)
    assert summary.notes == [f"note: 20 keys name {note}: k0, k1, k2, k3, k4"]


def test_a_file_of_an_image_is_told_to_be_in_a_folder(predictor: Predictor, tmp_path: Path) -> None:
    (tmp_path / "tom.PNG").write_bytes(b"\x89PNG")
    with pytest.raises(UserError, match="an image is read in a folder of images: name"):
        predicted(tmp_path / "tom.PNG", predictor)


def test_the_file_names_the_model(project: Project, predictor: Predictor) -> None:
    metadata = pl.read_parquet_metadata(project.path / "data/infer/predictions.parquet")
    weights = md5(project.path / "data/train/model.safetensors")
    assert metadata["model_md5"] == predictor.model_md5 == weights


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


def test_a_row_of_json_names_each_column_that_training_had_in_every_row(
    predictor: Predictor, tmp_path: Path
) -> None:
    features = [
        feature.model_copy(update={"missing": feature.name != "smoker"})
        for feature in predictor.schema.features
    ]
    schema = predictor.schema.model_copy(update={"features": features})
    rows = [
        {"id": 1, "size": 1.5, "town": "Oslo", "smoker": True},
        {"id": 2, "town": "Oslo", "smoker": None},
        {"id": 3, "note": {"town": 1, "smoker": True}},
        {"id": 4, "size": None, "smoker": True},
    ]
    path = tmp_path / "new.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    noticed = Noticed()
    (part,) = read_chunks(path, schema, KEY, noticed)
    assert part.rows.tolist() == [0, 1, 3]
    assert part.table["town"].to_list() == ["Oslo", "Oslo", None]
    (damage,) = part.damaged
    assert (damage.row, damage.column, str(damage.key)) == (2, "smoker", "3")
    assert damage.reason == "it is not named, and each train row has a value: write null for a gap"
    assert noticed.lines() == [
        "note: 'size' is not named in 1 row: taken as gaps",
        "note: 'town' is not named in 1 row: taken as gaps",
    ]


def test_numbers_and_truths_are_categories_however_they_are_written(
    predictor: Predictor, tmp_path: Path
) -> None:
    # What stands in a category's name is compared row by row, whatever the other rows hold.
    renamed = [
        feature.model_copy(update={"categories": ["1", "2.5", "true"]})
        if feature.name == "town"
        else feature
        for feature in predictor.schema.features
    ]
    schema = predictor.schema.model_copy(update={"features": renamed})
    (tmp_path / "new.csv").write_text(
        "id,size,town,smoker\na,1, 1.0 ,yes\nb,1,1,1\nc,,2.50,\nd,1,True,0\ne,1,one,no\n"
    )
    (part,) = read_chunks(tmp_path / "new.csv", schema, KEY)
    _, arrays = encode_whole(part, schema, predictor.statistics, KEY)
    assert arrays["categorical"][:, 0].tolist() == [1, 1, 2, 3, 0]
    assert arrays["boolean"][:, 0].tolist() == [1, 1, 0, 0, 0]


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


@pytest.mark.parametrize(
    ("mean", "spread", "num_rows", "says"),
    [
        (0.0, 1.0, 10_000, []),
        (0.2, 1.0, 10_000, []),
        (0.5, 1.0, 1000, ["its mean is 0.5 deviations above that of training"]),
        (-2.0, 1.0, 20, ["its mean is 2 deviations below that of training"]),
        (0.5, 1.0, 20, []),
        (0.0, 3.0, 1000, ["it spreads 3 times as wide as in training"]),
        (0.0, 0.2, 1000, ["it spreads 0.2 times as wide as in training"]),
        (0.0, 3.0, 50, []),
    ],
)
def test_drift_is_what_the_stated_test_says(
    mean: float, spread: float, num_rows: int, says: list[str]
) -> None:
    values = np.random.default_rng(0).normal(size=num_rows)
    values = (values - values.mean()) / values.std() * spread + mean
    sums, moments = Sums(), Moments(mean=10.0, deviation=4.0)
    for part in np.array_split(10 + 4 * values, 3):
        sums.add(part, moments)
    assert sums.drift(num_rows, moments) == says


def test_a_column_that_training_had_constant_has_no_spread_to_drift_from() -> None:
    moments = Moments(mean=14.62, deviation=1.0, constant=True)
    same, other = Sums(), Sums()
    same.add(np.full(500, 14.62), moments)
    other.add(np.array([14.62] * 499 + [14.63]), moments)
    assert same.drift(500, moments) == []
    assert other.drift(500, moments) == ["training had 14.62 in every row, and these have others"]


def test_drift_names_the_column(predictor: Predictor) -> None:
    table = TABLE.with_columns(pl.col("size") * 10, town=pl.lit("Paris"))
    notes = Notes(predictor.schema, predictor.statistics)
    for part in (table[:50], table[50:]):
        whole, arrays = encode_whole(
            Chunk(part, np.arange(part.height)), predictor.schema, predictor.statistics, KEY
        )
        notes.add(whole.table, arrays)
    size, wide, town = notes.lines()
    assert size.startswith("drift: 'size': its mean is ")
    assert wide.startswith("drift: 'size': it spreads ")
    assert town == "drift: 'town' has 1 value unseen in training, in 120 of 120 rows: 'Paris'"


def test_the_command_predicts_a_file_from_any_folder(clone: Project, tmp_path: Path) -> None:
    shown = clone.run("reprise", "predict", "data/raw/digits_new.parquet")
    assert shown.stdout.startswith("id,prediction,probability_0")
    assert len(shown.stdout.splitlines()) == 98
    assert shown.stderr == f"{clone.path}/data/raw/digits_new.parquet: 97 rows predicted\n"
    inside = Project(clone.path / "data/raw")
    inside.run(
        "reprise", "predict", "digits_new.parquet", "--output", str(tmp_path / "out.parquet")
    )
    stage = clone.path / "data/infer/predictions.parquet"
    assert (tmp_path / "out.parquet").read_bytes() == stage.read_bytes()
    assert list(tmp_path.glob("*rejected*")) == []
    wrong = clone.run("reprise", "predict", "data/raw/breast_cancer.parquet", ok=False).stderr
    assert wrong.startswith(
        "the column 'image', which the model was trained on, is not in the file"
    )
    assert "params.yaml" not in wrong


def test_the_number_of_threads_changes_no_byte(
    predictor: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunk, "CHUNK_ROWS", 7)
    source, contents = written(tmp_path / "new.csv"), []
    for number in ("1", "3"):
        monkeypatch.setenv("REPRISE_THREADS", number)
        summary = write_predictions(
            source, tmp_path / "out.parquet", tmp_path / "no.csv", predictor, KEY
        )
        contents.append((summary, (tmp_path / "out.parquet").read_bytes()))
    assert contents[0] == contents[1]
    monkeypatch.setenv("REPRISE_THREADS", "some")
    with pytest.raises(UserError, match="REPRISE_THREADS is 'some'"):
        num_threads()


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


def test_a_feature_called_path_is_no_key(tmp_path: Path) -> None:
    # Images of a folder have a column of that name, which names them.
    target = Target(name="y", task="regression")
    schema = Schema(key=None, features=[Feature(name="path", kind="numeric")], target=target)
    one = Moments(mean=0.0, deviation=1.0)
    model = torch.nn.Module()
    model.forward = lambda batch: batch["numeric"]  # type: ignore[method-assign]
    made = Predictor(model, schema, Statistics(numeric={"path": one}, image=[], target=one))
    table = pl.DataFrame({"path": [2.5, 4.0]})
    found, _, _ = predicted(written(tmp_path / "new.parquet", table), made)
    assert found.to_dict(as_series=False) == {"row": [0, 1], "prediction": [2.5, 4.0]}


def test_columns_are_written_by_their_kind_whatever_their_names(tmp_path: Path) -> None:
    features = [Feature(name="size", kind="numeric")]
    target = Target(name="y", task="classification", classes=["ø.1", "b,c"])
    schema = Schema(key="the.key", features=features, target=target)
    moments = {"size": Moments(mean=0.0, deviation=1.0)}
    model = torch.nn.Module()
    model.forward = lambda batch: batch["numeric"].repeat(1, 2)  # type: ignore[method-assign]
    made = Predictor(model, schema, Statistics(numeric=moments, image=[], target=None), "0" * 32)
    table = pl.DataFrame({"the.key": range(5000), "size": np.linspace(0, 1, 5000)})
    found, _, _ = predicted(written(tmp_path / "new.parquet", table), made)
    assert_frame_equal(found, made.predict(table))
    group = pq.read_metadata(tmp_path / "out.parquet").row_group(0)
    encodings = [set(group.column(number).encodings) - {"RLE"} for number in range(4)]
    assert encodings[0] == {"DELTA_BINARY_PACKED"}
    assert "RLE_DICTIONARY" in encodings[1]
    assert encodings[2] == encodings[3] == {"BYTE_STREAM_SPLIT"}


@pytest.mark.parametrize("layer", [torch.nn.Linear(5, 3), torch.nn.Linear(5, 3, bias=False)])
def test_onednn_computes_what_torch_does(layer: torch.nn.Linear) -> None:
    values = torch.randn(7, 8)[:, 1:6]
    plain = layer(values)
    with OneDnnLinear():
        # What learns, and what is not float32, is left alone.
        assert torch.equal(layer(values), plain)
        assert layer(values).requires_grad
        with torch.inference_mode():
            torch.testing.assert_close(layer(values), plain, atol=1e-6, rtol=1e-6)
            assert layer(values[:0]).shape == (0, 3)
            assert layer.double()(values.double()).dtype == torch.float64


def test_threads_keep_the_order_and_hold_few_at_a_time() -> None:
    begun: list[int] = []

    def items() -> Iterator[int]:
        for number in range(20):
            begun.append(number)
            yield number

    def slow_at_even(number: int) -> int:
        time.sleep(0.005 if number % 2 == 0 else 0)
        return number

    for place, number in enumerate(map_in_order(slow_at_even, items(), 3)):
        assert number == place
        assert len(begun) <= place + 4
    assert len(begun) == 20
    with pytest.raises(ZeroDivisionError):
        list(map_in_order(lambda number: 1 // (5 - number), range(100), 2))


def test_few_wide_rows_make_a_chunk() -> None:
    target = Target(name="y", task="regression")
    photograph = Feature(name="image", kind="image", shape=[3, 224, 224], layout="HWC")
    assert chunk_rows(Schema(key=None, features=[photograph], target=target)) == 13
    number = Feature(name="x", kind="numeric")
    assert chunk_rows(Schema(key=None, features=[number], target=target)) == chunk.CHUNK_ROWS


def test_a_parquet_file_is_not_kept_while_it_is_read(predictor: Predictor, tmp_path: Path) -> None:
    rows = pl.concat([TABLE] * 1000)
    rows.write_parquet(tmp_path / "new.parquet", row_group_size=4000)
    before, most = pa.total_allocated_bytes(), 0
    for part in read_chunks(tmp_path / "new.parquet", predictor.schema, KEY):
        most = max(most, pa.total_allocated_bytes() - before)
        assert part.table.height <= chunk.CHUNK_ROWS
    assert most < 2 * rows.estimated_size() * chunk.CHUNK_ROWS / rows.height


def test_torch_has_its_threads_back_when_chunks_no_longer_have_the_cores() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with contextlib.suppress(RuntimeError), one_thread():
            assert torch.get_num_threads() == 1
            raise RuntimeError
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
