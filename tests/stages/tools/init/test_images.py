"""What `reprise init` makes of folders of images, and of arrays of them."""

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from PIL import Image

from stages.common.errors import UserError
from stages.prepare.columns.parts import names_parts
from stages.prepare.params import PrepareParams
from stages.tools.init.choose import Facts, choose
from stages.tools.init.images import choose_size
from stages.tools.init.options import Options
from stages.tools.init.survey import survey

RANDOM = np.random.default_rng(0)


def look(source: Path) -> Any:
    return survey(Options(str(source), "label"))


def write_image(path: Path, width: int, height: int, *, grey: bool = False) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = (height, width) if grey else (height, width, 3)
    Image.fromarray(RANDOM.integers(0, 255, shape, dtype=np.uint8)).save(path)


def roles(found: Any) -> dict[str, str]:
    return {column["name"]: column["role"] for column in found["columns"]}


def test_photographs_of_many_sizes_are_brought_to_one_and_keep_their_parts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for part, number in (("train", 120), ("test", 40)):
        for row in range(number):
            name = f"{part}/{'cat' if row % 2 else 'dog'}/{row}.jpg"
            write_image(tmp_path / name, 90 + row % 30, 120 + row % 40)
    (tmp_path / "train/cat/1.jpg").write_bytes(b"none")
    found = look(tmp_path)
    assert roles(found) == {"path": "key", "image": "image", "label": "target", "split": "split"}
    values = found["values"]
    assert values["prepare.image"] == {"height": 64, "width": 48}
    assert values["prepare.split"]["column"] == "split"
    assert values["prepare.key"] == "path"
    assert values["prepare.columns"] == {}
    assert values["build.model"]["name"] == "resnet"
    assert values["build.model"]["views"] == ["mirrored"]
    assert values["train.augment"]["flip"] == 0.5
    assert values["train.loss"]["label_smoothing"] == 0.1
    assert values["train.early_stopping"] is None
    assert any("left out, row 40 (train/cat/1.jpg)" in note for note in found["notes"])
    # What prepare prints is a part of the answer, which is JSON.
    assert capsys.readouterr().out == ""
    keys = [key for key in values if key.startswith("prepare.")]
    PrepareParams.model_validate({key.removeprefix("prepare."): values[key] for key in keys})


def test_arrays_need_no_size_and_drawings_are_not_mirrored(tmp_path: Path) -> None:
    images = RANDOM.integers(0, 255, (90, 28, 28), dtype=np.uint8)
    labels = np.arange(90, dtype=np.uint8) % 3
    folder = tmp_path / "digits"
    folder.mkdir()
    for name, kind, array in (("images", 3, images), ("labels", 1, labels)):
        head = bytes([0, 0, 8, kind]) + b"".join(side.to_bytes(4) for side in array.shape)
        path = folder / f"{name}-idx{kind}-ubyte.gz"
        path.write_bytes(gzip.compress(head + array.tobytes()))
    np.savez(tmp_path / "digits.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
    for source, num_train in ((folder, 58), (tmp_path / "digits.npz", 73)):
        found = look(source)
        assert found["values"]["prepare.image"] is None
        assert found["values"]["prepare.key"] is None
        # Nor are they looked at in a mirror when predicting.
        assert found["values"]["build.model"]["views"] == []
        assert found["values"]["train.augment"]["flip"] == 0.0
        assert found["values"]["train.augment"]["shift"] == 2
        whys = {choice["key"]: choice["why"] for choice in found["choices"]}
        assert whys["train.batch_size"] == f"{num_train} train rows"
    assert roles(found)["split"] == "split"


@pytest.mark.parametrize(
    ("shape", "kind"), [((90, 3, 64), "f4"), ((90, 16, 16, 3), "f4"), ((90, 16, 16), "i2")]
)
def test_arrays_that_may_be_no_pictures_are_not_turned_and_cropped(
    tmp_path: Path, shape: tuple[int, ...], kind: str
) -> None:
    values = RANDOM.normal(100, 300 if kind == "i2" else 30, shape).astype(kind)
    np.savez(tmp_path / "x.npz", x=values, y=np.arange(90) % 3)
    found = look(tmp_path / "x.npz")
    assert found["values"]["train.augment"] is None
    assert found["values"]["build.model"]["views"] == []
    whys = {choice["key"]: choice["why"] for choice in found["choices"]}
    assert whys["train.augment"].startswith("no bytes, so maybe no pictures")


def test_whole_numbers_of_pixels_are_pictures(tmp_path: Path) -> None:
    images = RANDOM.integers(0, 255, (90, 16, 16))
    np.savez(tmp_path / "x.npz", x=images, y=np.arange(90) % 3)
    assert look(tmp_path / "x.npz")["values"]["train.augment"]["turn"] == 10.0


def test_an_array_named_as_the_target_is_told_as_its_column(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    np.savez(path, x=RANDOM.integers(0, 255, (90, 16, 16)), y=np.arange(90) % 3)
    with pytest.raises(UserError, match="y is called label here") as raised:
        survey(Options(str(path), "y"))
    assert raised.value.problems[0].suggestion == "label"
    with pytest.raises(UserError, match=r"has no such column\n  allowed"):
        survey(Options(str(path), "price"))


def test_rows_of_numbers_in_an_npz_are_told_the_way_to_a_table(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", x=RANDOM.normal(size=(90, 64)), y=np.arange(90) % 3)
    with pytest.raises(UserError, match="write_parquet"):
        look(tmp_path / "x.npz")


def test_a_table_of_images_that_is_no_manifest_is_told_how_to_be_one(tmp_path: Path) -> None:
    cars = tmp_path / "cars"
    for row in range(40):
        write_image(cars / f"img/{row}.png", 8, 8, grey=True)
    table = pl.DataFrame({"photo": [f"img/{row}.png" for row in range(40)]})
    table = table.with_columns(
        km=pl.Series(RANDOM.integers(0, 99, 40)), price=RANDOM.normal(9, 2, 40)
    )
    table.write_csv(cars / "cars.csv")
    way = f"mv {cars}/cars.csv {cars}/manifest.csv; reprise init {cars} --target price"
    with pytest.raises(UserError, match=r"cars\.csv there is a table") as raised:
        survey(Options(str(cars), "price"))
    assert way in str(raised.value)
    found = survey(Options(str(cars / "cars.csv"), "price"))
    assert roles(found)["photo"] == "left out"
    (warning,) = (line for line in found["warnings"] if "'photo' names image files" in line)
    assert warning.endswith(way)
    # The way works.
    (cars / "cars.csv").rename(cars / "manifest.csv")
    assert roles(survey(Options(str(cars), "price")))["photo"] == "image"
    # Beside other sources, both get a folder of their own.
    raw = tmp_path / "raw"
    (cars / "manifest.csv").rename(cars / "cars.csv")
    cars.rename(raw)
    found = survey(Options(str(raw / "cars.csv"), "price"))
    (warning,) = (line for line in found["warnings"] if "'photo' names image files" in line)
    assert warning.endswith(
        f"mkdir {raw}/cars; mv {raw}/img {raw}/cars/; mv {raw}/cars.csv {raw}/cars/manifest.csv; "
        f"reprise init {raw}/cars --target price"
    )
    # Of paths without files nothing is known.
    table.write_csv(tmp_path / "cars.csv")
    found = survey(Options(str(tmp_path / "cars.csv"), "price"))
    assert not any("image files" in line for line in found["warnings"])


def test_a_manifest_of_images_and_numbers_is_no_case_for_a_network_of_images(
    tmp_path: Path,
) -> None:
    for row in range(80):
        write_image(tmp_path / f"photos/{row}.png", 12, 8, grey=True)
    table = pl.DataFrame({"file": [f"photos/{row}.png" for row in range(80)]})
    table = table.with_columns(
        age=pl.Series(RANDOM.normal(size=80)), label=pl.Series(["a", "b"] * 40)
    )
    table.write_csv(tmp_path / "manifest.csv")
    found = look(tmp_path)
    assert roles(found) == {"file": "image", "age": "numeric", "label": "target"}
    assert found["values"]["build.model"]["name"] == "mixed"
    assert found["values"]["prepare.image"] is None
    table.drop("age").write_csv(tmp_path / "manifest.csv")
    assert look(tmp_path)["values"]["build.model"]["name"] == "resnet"


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ([(28, 28)] * 3, None),
        ([(96, 96)], None),
        ([(480, 640)], (48, 64)),
        ([(400, 533), (533, 400), (533, 400)], (64, 48)),
        ([(100, 110), (300, 290), (200, 200)], (64, 64)),
        ([(20, 20), (30, 30), (41, 41)], (32, 32)),
        ([], None),
    ],
)
def test_the_size_follows_from_the_median(
    sizes: list[tuple[int, int]], expected: tuple[int, int] | None
) -> None:
    assert choose_size(sizes)[0] == expected


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["train", "Test"], True),
        (["training", "val", "dev"], True),
        (["train", "train"], False),
        (["val", "test"], False),
        (["train", "other"], False),
        (["train", None], False),
    ],
)
def test_a_column_of_parts_names_train_and_another_one(
    words: list[str | None],
    expected: bool,  # noqa: FBT001
) -> None:
    assert names_parts(pl.Series(words)) == expected


@pytest.mark.parametrize(
    ("side", "stages", "patch"), [(2, 2, 1), (8, 2, 1), (28, 3, 2), (64, 4, 2), (96, 4, 2)]
)
def test_the_network_is_as_deep_as_the_images_allow(side: int, stages: int, patch: int) -> None:
    from stages.features.schema import Feature, Schema, Target
    from stages.training.params import Augment
    from stages.zoo.models.resnet import Arguments, Model

    image = Feature(name="image", kind="image", shape=[3, side, side], layout="HWC")
    target = Target(name="y", task="classification", classes=["a", "b"])
    facts = Facts(Schema(key=None, features=[image], target=target), 500, 0.5)
    values = {choice.key: choice.value for choice in choose(facts)}
    arguments = {key: value for key, value in values["build.model"].items() if key != "name"}
    assert len(arguments["channels"]) == stages
    assert arguments["patch"] == patch
    Model(Arguments(**arguments), facts.schema.inputs(), 2)
    Augment(**values["train.augment"])
