"""New rows to predictions: every kind of file, in chunks, by the command and on threads."""

import contextlib
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
from stages.common.files import md5
from stages.features.schema import Feature, Moments, Schema, Statistics, Target
from stages.formats import chunk
from stages.formats.chunk import chunk_rows
from stages.formats.read import read_chunks
from stages.infer.write import write_predictions
from stages.model.onednn import OneDnnLinear
from stages.model.predictor import Predictor
from stages.model.threads import one_thread
from stages.parallel.thread_map import map_in_order, num_threads
from tests.conftest import Project
from tests.support.stages.new_rows import KEY, TABLE, predicted, written


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
