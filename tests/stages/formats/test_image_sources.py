"""Images from arrays and from a table of their paths: IDX, NPZ, manifests; parts as splits."""

import gzip
import io
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl
import pytest
from PIL import Image

from stages.common.errors import UserError
from stages.common.files import read_csv
from stages.features.schema import load_arrays, read_schema
from stages.formats.read import read_chunks
from stages.infer.write import write_predictions
from stages.model.predictor import load_predictor
from tests.conftest import Project
from tests.support.samples import run_stages, small_project
from tests.support.tables import read_table

KEY = "prepare.source"
ROAD = ("prepare", "build", "tune", "train")
Bytes = npt.NDArray[np.uint8]


def made_images(num_rows: int, seed: int = 0) -> tuple[Bytes, Bytes]:
    """Images of four by five in three classes, which their brightness tells."""
    labels = (np.arange(num_rows) % 3).astype(np.uint8)
    noise = np.random.default_rng(seed).integers(0, 40, (num_rows, 5, 4))
    return (noise + 90 * labels[:, None, None]).astype(np.uint8), labels


def as_idx(array: npt.NDArray[np.generic]) -> bytes:
    code = {"uint8": 8, "int32": 12, "float32": 13}[array.dtype.name]
    sizes = b"".join(size.to_bytes(4) for size in array.shape)
    return (
        bytes([0, 0, code, array.ndim])
        + sizes
        + array.astype(array.dtype.newbyteorder(">")).tobytes()
    )


def write_idx(folder: Path, prefix: str, images: Bytes, labels: Bytes | None) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with gzip.open(folder / f"{prefix}images-idx3-ubyte.gz", "wb") as file:
        file.write(as_idx(images))
    if labels is not None:
        (folder / f"{prefix}labels-idx1-ubyte").write_bytes(as_idx(labels))


def project_of(folder: Path, source: str, **changes: object) -> Project:
    settings = {"prepare.source": source, "prepare.expectations": None, "prepare.target": "label"}
    settings |= {"infer.input": None, "prepare.key": None, "prepare.task": "classification"}
    return small_project(folder, pl.DataFrame({"y": [1]}), {**settings, **changes})


def test_a_pair_of_idx_files_is_prepared_and_predicted(tmp_path: Path) -> None:
    images, labels = made_images(60)
    made = project_of(tmp_path / "p", "data/raw/idx", **{"train.epochs": 30})
    write_idx(made.path / "data/raw/idx", "", images, labels)
    run_stages(made, *ROAD, "infer")
    schema = read_schema(made.path / "data/prepare")
    assert (schema.features[0].shape, schema.features[0].layout) == ([1, 5, 4], "HW")
    train = load_arrays(made.path / "data/prepare/train")
    np.testing.assert_array_equal(train["image"][:, 0], images[train["key"]])
    # New rows are images alone.
    write_idx(tmp_path / "new", "t10k-", images, None)
    target = tmp_path / "out.parquet"
    write_predictions(tmp_path / "new", target, None, load_predictor(made.path / "data"), "FILE")
    assert pl.read_parquet(target)["prediction"].to_list() == labels.tolist()


def test_parts_of_idx_files_become_a_column(tmp_path: Path) -> None:
    images, labels = made_images(9)
    write_idx(tmp_path, "train-", images[:6], labels[:6])
    write_idx(tmp_path, "t10k-", images[6:], labels[6:])
    table = read_table(tmp_path, KEY)
    assert table["split"].to_list() == ["train"] * 6 + ["test"] * 3
    np.testing.assert_array_equal(np.array(table["image"].to_list()), images)


@pytest.mark.parametrize("dtype", ["uint8", "int32", "float32"])
def test_every_number_of_an_idx_file_is_read(tmp_path: Path, dtype: str) -> None:
    values = np.arange(24).reshape(2, 3, 4).astype(dtype)
    (tmp_path / "images-idx3-ubyte").write_bytes(as_idx(values))
    table = read_table(tmp_path, KEY)
    assert table.columns == ["image"]
    np.testing.assert_array_equal(np.array(table["image"].to_list()), values)


def damaged_idx() -> list[tuple[str, bytes, str]]:
    whole = as_idx(made_images(4)[0])
    packed = gzip.compress(whole)
    return [
        ("images-idx3-ubyte", whole[:-1], "79 bytes do not hold uint8 of (4, 5, 4)"),
        ("images-idx3-ubyte", b"\x01" + whole[1:], "is no IDX file"),
        ("images-idx3-ubyte", b"", "is no IDX file"),
        ("images-idx3-ubyte", whole[:6], "is damaged"),
        ("images-idx3-ubyte.gz", packed[:-9], "is damaged"),
        ("images-idx3-ubyte.gz", whole, "is damaged"),
        ("labels-idx1-ubyte", whole, "has no file of images beside it"),
    ]


@pytest.mark.parametrize(("name", "content", "says"), damaged_idx())
def test_a_damaged_idx_file_is_told(tmp_path: Path, name: str, content: bytes, says: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError) as caught:
        read_table(tmp_path, KEY)
    assert says in str(caught.value)
    assert caught.value.problems[0].key == KEY


def write_npz(path: Path, **arrays: npt.NDArray[np.generic]) -> Path:
    np.savez(path, **arrays)  # type: ignore[arg-type]
    return path


def test_a_file_of_numpy_is_prepared_by_its_parts(tmp_path: Path) -> None:
    images, labels = made_images(60)
    changes = {"prepare.split": {"seed": 0, "validation": 0.2, "test": 0.2, "column": "split"}}
    made = project_of(tmp_path / "p", "data/raw/all.npz", **changes)
    parts = {"x_train": images[:45], "y_train": labels[:45, None], "x_test": images[45:]}
    write_npz(made.path / "data/raw/all.npz", **parts, y_test=labels[45:, None])
    run_stages(made, "prepare")
    test = load_arrays(made.path / "data/prepare/test")
    np.testing.assert_array_equal(test["image"][:, 0], images[45:])
    np.testing.assert_array_equal(test["target"], labels[45:])
    # No part is called validation: 20 of the 80 hundredths that are no test rows are.
    assert len(load_arrays(made.path / "data/prepare/validation")["key"]) == 12
    assert [f.name for f in read_schema(made.path / "data/prepare").features] == ["image"]


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({"a": np.zeros((2, 3, 3))}, "it holds a: images are called x or images"),
        ({"x": np.zeros((2, 9))}, "not float64 of (2, 9)"),
        ({"x": np.zeros((2, 3, 3)), "y": np.zeros(3)}, "2 images have labels of shape (3,)"),
        ({"x": np.zeros((2, 3, 3)), "images": np.zeros((2, 3, 3))}, "two of its arrays hold"),
        ({"x": np.zeros((2, 3, 3)), "x_test": np.zeros((2, 3, 3))}, "with and without the name"),
        ({"x_train": np.zeros((2, 3, 3)), "x_test": np.zeros((2, 4, 3))}, "its parts differ"),
        ({"x": np.array([None, {}])}, "allow_pickle=False"),
    ],
)
def test_arrays_that_make_no_table_are_told(
    tmp_path: Path, arrays: dict[str, npt.NDArray[np.generic]], says: str
) -> None:
    with pytest.raises(UserError) as caught:
        read_table(write_npz(tmp_path / "t.npz", **arrays), KEY)
    assert says in str(caught.value)


def test_a_file_that_is_no_npz_is_told(tmp_path: Path) -> None:
    whole = write_npz(tmp_path / "t.npz", x=np.zeros((2, 3, 3))).read_bytes()
    other = io.BytesIO()
    np.save(other, np.zeros(3))
    for content in (whole[:-30], b"PK\x03\x04", b"none", other.getvalue()):
        (tmp_path / "t.npz").write_bytes(content)
        with pytest.raises(UserError, match=r"cannot read .*t\.npz"):
            read_table(tmp_path / "t.npz", KEY)


def write_photos(folder: Path, num_rows: int) -> pl.DataFrame:
    """A table with paths of images in subfolders, and the images in sizes of their own."""
    images, labels = made_images(num_rows)
    names = [f"{number % 4}/{number:03}.png" for number in range(num_rows)]
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        whole = Image.fromarray(images[number]).resize((8 + number % 5, 10))
        whole.save(folder / name)
    shape = [f"s{number % 2}" for number in range(num_rows)]
    return pl.DataFrame({"photo": names, "shape": shape, "kind": [f"k{n}" for n in labels]})


def test_a_manifest_mixes_images_with_other_columns(tmp_path: Path) -> None:
    changes = {"prepare.target": "kind", "prepare.image": {"height": 5, "width": 4}}
    changes |= {"train.epochs": 40, "infer.input": "data/raw/new"}
    made = project_of(tmp_path / "p", "data/raw/photos", **changes)
    folder, new = made.path / "data/raw/photos", made.path / "data/raw/new"
    table = write_photos(folder, 120)
    (folder / "2/002.png").write_bytes(b"none")
    table.write_csv(folder / "manifest.csv")
    rows = write_photos(new, 12).drop("kind")
    more = pl.DataFrame({"photo": ["0/none.png", "../raw/photos/0/000.png", None], "shape": "s0"})
    from_root = str(new / rows["photo"][0])
    in_root = from_root.removeprefix(f"{made.path}/")
    whole = pl.DataFrame({"photo": [from_root, in_root, f"{in_root}.none"]})
    more = pl.concat([more, whole.with_columns(shape=pl.lit("s0"))])
    pl.concat([rows, more]).write_ndjson(new / "manifest.jsonl")
    run_stages(made, *ROAD, "infer")
    # One of 120 is broken: left out by name.
    (left,) = read_csv(made.path / "data/prepare/rejected.csv")
    assert (left["row"], left["column"]) == ("2", "photo")
    schema = read_schema(made.path / "data/prepare")
    assert {f.name: f.kind for f in schema.features} == {"photo": "image", "shape": "categorical"}
    predictions = pl.read_parquet(made.path / "data/infer/predictions.parquet")
    assert predictions["row"].to_list() == list(range(12))
    reasons = [row["reason"] for row in read_csv(made.path / "data/infer/rejected.csv")]
    assert reasons[0] == "there is no file 'data/raw/new/0/none.png'"
    assert "does not lie in data/raw/new, where DVC would see it" in reasons[1]
    assert reasons[2] == "there is no image"
    assert reasons.pop() == f"there is no file 'data/raw/new/{in_root}.none'"
    for reason in reasons[3:]:
        way = f"is no path from the table's folder, data/raw/new: write '{rows['photo'][0]}'"
        assert reason.endswith(way)
    assert len(reasons) == 5


def test_paths_in_a_table_alone_are_refused_where_dvc_would_not_see_them(tmp_path: Path) -> None:
    changes = {"prepare.target": "kind", "prepare.columns": {"photo": "image"}}
    changes |= {"prepare.image": {"height": 5, "width": 4}}
    made = project_of(tmp_path / "p", "data/raw/t.csv", **changes)
    table = write_photos(made.path / "data/raw", 30)
    table.write_csv(made.path / "data/raw/t.csv")
    with pytest.raises(UserError, match=r"put the table as manifest\.csv into their folder"):
        run_stages(made, "prepare")
    # On the command line a table alone may do: each path is below the table's folder.
    table.write_csv(made.path / "data/raw/manifest.csv")
    folder = made.path / "data/raw"
    assert read_table(folder, KEY).columns == ["photo", "shape", "kind"]


def test_bytes_in_a_table_are_images(tmp_path: Path) -> None:
    changes = {"prepare.target": "kind", "prepare.columns": {"photo": "image"}}
    made = project_of(tmp_path / "p", "data/raw/t.parquet", **changes)
    folder = tmp_path / "photos"
    table = write_photos(folder, 30)
    contents = [Image.open(folder / name).resize((4, 5)) for name in table["photo"]]
    files = []
    for image in contents:
        file = io.BytesIO()
        image.save(file, "PNG")
        files.append(file.getvalue())
    table = table.with_columns(photo=pl.Series(files, dtype=pl.Binary))
    table.write_parquet(made.path / "data/raw/t.parquet")
    run_stages(made, "prepare")
    schema = read_schema(made.path / "data/prepare")
    train = load_arrays(made.path / "data/prepare/train")
    found = next(iter(read_chunks(made.path / "data/raw/t.parquet", schema, KEY))).table["photo"]
    np.testing.assert_array_equal(
        np.array(found.to_list(), np.uint8)[train["key"]], train["image"][:, 0]
    )
    np.testing.assert_array_equal(train["image"][0, 0], np.array(contents[train["key"][0]]))


def test_train_and_test_folders_are_the_split(tmp_path: Path) -> None:
    changes = {"prepare.key": "path", "prepare.image": {"height": 5, "width": 4}}
    changes |= {"prepare.split": {"seed": 0, "validation": 0.2, "test": 0.2, "column": "split"}}
    made = project_of(tmp_path / "p", "data/raw/pets", **changes)
    images, labels = made_images(60)
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        part = "test" if number % 4 == 3 else "train"
        path = made.path / f"data/raw/pets/{part}/{10 * label}/{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    run_stages(made, "prepare")
    keys = {
        split: load_arrays(made.path / "data/prepare" / split)["key"].tolist()
        for split in ("train", "validation", "test")
    }
    assert {key.split("/")[0] for key in keys["test"]} == {"test"}
    assert len(keys["test"]) == 15
    assert {key.split("/")[0] for key in keys["train"] + keys["validation"]} == {"train"}
    assert len(keys["validation"]) == 12


def test_folders_of_parts_ask_for_the_line_that_splits_by_them(tmp_path: Path) -> None:
    made = project_of(tmp_path / "p", "data/raw/pets", **{"prepare.key": "path"})
    for part in ("train", "test"):
        for number in range(9):
            path = made.path / f"data/raw/pets/{part}/{number % 3}/{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("L", (4, 5), number).save(path)
    with pytest.raises(UserError, match=r"split: \{.*column: split") as caught:
        run_stages(made, "prepare")
    assert caught.value.problems[0].key == "prepare.split.column"


def test_classes_are_shown_in_the_order_of_their_numbers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("10", "2", "1", "a10", "a9"):
        (tmp_path / name).mkdir()
        Image.new("L", (4, 3)).save(tmp_path / name / "x.png")
    read_table(tmp_path, KEY)
    assert capsys.readouterr().out.endswith("has 5 classes: 1 1, 2 1, 10 1, a9 1, a10 1\n")
