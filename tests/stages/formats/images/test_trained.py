"""Folders of images that are trained on and predicted."""

import io
import os
import socket
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image

from stages.common.errors import UserError
from stages.common.files import read_csv
from stages.features.pixels import KNOWN
from stages.features.schema import load_arrays
from stages.formats.images.folder import find_files
from stages.infer.write import PredictionSummary, write_predictions
from stages.model.predictor import Predictor, load_predictor
from tests.conftest import Project
from tests.support.samples import mixed_table, run_stages, small_project
from tests.support.stages.images import DIGITS, read_folder, write_few

KEY = "infer.input"
PIXELS = np.array(DIGITS["image"].to_list(), np.uint8)


def write_digits(folder: Path, *, classes: bool) -> pl.DataFrame:
    """The digits as PNG files, and the table that they are, in the order of its paths."""
    paths = []
    for label, number, pixels in zip(DIGITS["label"], DIGITS["id"], PIXELS, strict=True):
        path = f"{label}/{number:04}.png" if classes else f"deep/er/{number:04}.png"
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / path)
        paths.append(path)
    labels = DIGITS["label"].cast(pl.String)
    return pl.DataFrame({"path": paths, "image": PIXELS, "label": labels}).sort("path")


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> pl.DataFrame:
    return write_digits(tmp_path_factory.mktemp("digits"), classes=True)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, table: pl.DataFrame) -> Project:
    settings = {"prepare.source": "data/raw/digits", "prepare.key": "path"}
    settings |= {"prepare.target": "label", "infer.input": "data/raw/new"}
    made = small_project(tmp_path_factory.mktemp("images") / "p", table, settings)
    write_digits(made.path / "data/raw/digits", classes=True)
    write_digits(made.path / "data/raw/new", classes=False)
    run_stages(made, "prepare", "build", "tune", "train", "infer")
    return made


@pytest.fixture(scope="module")
def predictor(project: Project) -> Predictor:
    return load_predictor(project.path / "data", coverage=0.9)


def test_a_folder_and_a_table_of_the_same_images_give_equal_arrays(
    project: Project, table: pl.DataFrame, tmp_path: Path
) -> None:
    settings = {"prepare.key": "path", "prepare.target": "label"}
    other = small_project(tmp_path / "p", table, settings)
    run_stages(other, "prepare")
    for split in ("train", "validation", "test"):
        found = load_arrays(project.path / "data/prepare" / split)
        expected = load_arrays(other.path / "data/prepare" / split)
        assert found.keys() == expected.keys() == {"image", "target", "key"}
        for name, array in expected.items():
            np.testing.assert_array_equal(found[name], array)


def test_the_stage_predicts_a_folder_as_it_does_a_table(
    project: Project, predictor: Predictor
) -> None:
    found = pl.read_parquet(project.path / "data/infer/predictions.parquet")
    names = find_files(project.path / "data/raw/new", KEY)
    assert found["path"].to_list() == names
    order = DIGITS.select(
        path=pl.lit("deep/er/") + pl.col("id").cast(pl.String).str.zfill(4) + ".png"
    )
    images = pl.DataFrame({"path": order["path"], "image": PIXELS}).sort("path")
    assert found.equals(predictor.predict(images))


def predicted(
    folder: Path, predictor: Predictor
) -> tuple[list[str], list[tuple[str, str]], PredictionSummary]:
    target, rejected = folder.with_name("out.parquet"), folder.with_name("rejected.csv")
    summary = write_predictions(folder, target, rejected, predictor, KEY)
    kept = pl.read_parquet(target)["path"].to_list()
    return kept, [(row["key"], row["reason"]) for row in read_csv(rejected)], summary


def test_what_is_no_image_of_the_size_is_set_aside_with_its_reason(
    predictor: Predictor, tmp_path: Path
) -> None:
    folder = tmp_path / "new"
    (folder / ".hidden").mkdir(parents=True)
    good = Image.fromarray(PIXELS[0])
    good.save(folder / "a.png")
    good.save(folder / "z.JPG")
    good.save(folder / ".hidden/c.png")
    Image.new("L", (9, 7)).save(folder / "b.png")
    content = io.BytesIO()
    Image.effect_noise((8, 8), 50).save(content, "PNG")
    (folder / "cut.png").write_bytes(content.getvalue()[:-40])
    good.save(folder / "gif.png", "GIF")
    (folder / "notes.txt").write_text("x")
    kept, rejected, _ = predicted(folder, predictor)
    # The file's bytes say what it is, and its name does not.
    assert kept == ["a.png", "gif.png", "z.JPG"]
    reasons = dict(rejected)
    assert list(reasons) == ["b.png", "cut.png", "notes.txt"]
    assert reasons["b.png"] == "it is 9×7 pixels, not 8×8"
    assert reasons["cut.png"].startswith("it can't be read: ")
    assert reasons["notes.txt"] == f"it can't be read: it is no {KNOWN}"


def test_a_model_of_more_than_images_takes_no_folder(tmp_path: Path) -> None:
    made = small_project(tmp_path / "p", mixed_table(), {"prepare.key": "id"})
    run_stages(made, "prepare", "build", "tune", "train")
    with pytest.raises(UserError, match="takes more than images"):
        predicted(write_few(tmp_path / "new"), load_predictor(made.path / "data"))


def test_what_is_no_file_is_not_waited_for(predictor: Predictor, tmp_path: Path) -> None:
    folder = write_few(tmp_path / "pets")
    os.mkfifo(folder / "dog/x.png")
    with pytest.raises(UserError, match=r"row 3 \(dog/x.png\): it is no file, but .* a FIFO"):
        read_folder(folder)
    new = tmp_path / "new"
    new.mkdir()
    os.mkfifo(new / "fifo.png")
    (new / "link.png").symlink_to("nowhere")
    (new / "zero.png").symlink_to("/dev/zero")
    Image.fromarray(PIXELS[0]).save(new / "0.png")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(new / "socket.png"))
        kept, rejected, _ = predicted(new, predictor)
    assert kept == ["0.png"]
    assert [key for key, _ in rejected] == ["fifo.png", "link.png", "socket.png", "zero.png"]
    assert {reason[:13] for _, reason in rejected} == {"it is no file"}


def test_a_link_to_a_folder_is_told_and_not_left_out(
    project: Project, predictor: Predictor, tmp_path: Path
) -> None:
    folder = tmp_path / "new"
    folder.mkdir()
    Image.fromarray(PIXELS[0]).save(folder / "0.png")
    (folder / "more").symlink_to(project.path / "data/raw/new/deep")
    says = "more is a link to a folder, into which DVC does not look"
    with pytest.raises(UserError, match=says):
        write_predictions(folder, tmp_path / "out.parquet", None, predictor, KEY)
    with pytest.raises(UserError, match=says):
        read_folder(folder)
