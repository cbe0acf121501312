"""Folders of images: classes and parts, what is left out, sizes, training and predicting."""

import io
import os
import socket
import zlib
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image

from stages.common.errors import UserError
from stages.common.files import read_csv
from stages.features.pixels import KNOWN, Form, ImageError, Pixels, decode
from stages.features.schema import Decode, load_arrays
from stages.formats.images.folder import find_files
from stages.infer.write import PredictionSummary, write_predictions
from stages.model.predictor import Predictor, load_predictor
from stages.prepare.images import Images, load_images
from stages.prepare.table.table import in_memory
from tests.conftest import ROOT, Project
from tests.support.samples import mixed_table, prepare_params, run_stages, small_project
from tests.support.tables import read_table

KEY = "infer.input"
DIGITS = pl.read_parquet(ROOT / "data/raw/digits.parquet").head(300)
PIXELS = np.array(DIGITS["image"].to_list(), np.uint8)


def load(folder: Path, **changes: object) -> Images:
    """The images of a folder as prepare has them."""
    settings = {"source": str(folder), "key": "path", "target": "label"}
    params = prepare_params(**{**settings, **changes})
    table = read_table(folder, "prepare.source")
    return load_images(in_memory(table), table, params)


def read_folder(folder: Path) -> pl.DataFrame:
    return load(folder).table.frame()


def read_image(path: Path, channels: int, size: tuple[int, int], **how: int) -> Pixels:
    shape = size if channels == 1 else (*size, channels)
    return decode(path, Form(shape, Decode.model_validate(how)))


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


def write_few(folder: Path, mode: str = "L") -> Path:
    for name in ("cat/1.png", "cat/2.png", "dog/1.png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new(mode, (4, 3)).save(folder / name)
    return folder


def test_a_class_is_the_first_folder_of_the_path(tmp_path: Path) -> None:
    folder = write_few(tmp_path / "pets")
    (folder / "dog/deep/er").mkdir(parents=True)
    Image.new("RGB", (4, 3), "red").save(folder / "dog/deep/er/9.jpeg", quality=95)
    (folder / ".git").mkdir()
    (folder / "cat/.DS_Store").write_text("x")
    (folder / "README.md").write_text("x")
    table = read_folder(folder)
    assert table["path"].to_list() == ["cat/1.png", "cat/2.png", "dog/1.png", "dog/deep/er/9.jpeg"]
    assert table["label"].to_list() == ["cat", "cat", "dog", "dog"]
    # One in colour makes all of them so.
    assert table["image"].dtype == pl.Array(pl.UInt8, (3, 4, 3))


def test_a_folder_that_can_not_be_trained_on_says_why(tmp_path: Path) -> None:
    def says(text: str, key: str = "prepare.source") -> None:
        with pytest.raises(UserError) as caught:
            read_folder(folder)
        assert caught.value.problems[0].key == key
        assert text in caught.value.problems[0].message

    folder = write_few(tmp_path / "pets")
    (folder / "owl").mkdir()
    says(f"the class {folder}/owl has no images")
    Image.new("L", (30, 40)).save(folder / "owl/1.png")
    says(f"{folder}/cat/1.png is 4×3, and {folder}/owl/1.png is 30×40", "prepare.image")
    says("write image: {height: 8, width: 8}", "prepare.image")
    (folder / "owl/1.png").write_bytes(b"no image")
    says(
        "1 of 4 images in 'image' can't be used, more than 1%: row 3 (owl/1.png): it can't be read"
    )
    Image.new("L", (4, 3)).save(folder / "owl.png")
    says(f"{folder}/owl.png lies in no class")
    folder = tmp_path / "empty"
    folder.mkdir()
    says(f"{folder} has no images")


@pytest.mark.parametrize(
    ("paths", "says"),
    [
        (["train/a.png", "test/a.png"], "test/a.png lies in no class"),
        (["train/cat/a.png", "extra/cat/a.png"], "beside them extra, which is none"),
        (["Train/cat/a.png", "Train/dog/"], "the class .*/Train/dog has no images"),
        (["train/cat/a.png", "test/"], "the part .*/test has no images"),
    ],
)
def test_parts_of_a_data_set_that_are_not_whole_are_told(
    tmp_path: Path, paths: list[str], says: str
) -> None:
    for path in paths:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        if path.endswith("/"):
            (tmp_path / path).mkdir()
        else:
            Image.new("L", (4, 3)).save(tmp_path / path)
    with pytest.raises(UserError, match=says) as caught:
        read_folder(tmp_path)
    assert caught.value.problems[0].key == "prepare.source"


def test_parts_of_a_data_set_become_a_column(tmp_path: Path) -> None:
    for path in ("Training/cat/1.png", "val/cat/1.png", "test/dog/deep/2.png"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (4, 3)).save(tmp_path / path)
    table = load(tmp_path, columns={"split": "exclude"}).table.frame()
    assert table["split"].to_list() == ["train", "test", "validation"]
    assert table["label"].to_list() == ["cat", "dog", "cat"]


def test_a_class_may_be_called_as_a_split_is(tmp_path: Path) -> None:
    for path in ("train/1.png", "plane/1.png", "__MACOSX/cat/1.png"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (4, 3)).save(tmp_path / path)
    assert read_folder(tmp_path)["label"].to_list() == ["plane", "train"]


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


@pytest.mark.parametrize("name", [b"cat/\xff.png", b"\xe9t\xe9/1.png"])
def test_a_name_that_is_not_utf_8_is_told(tmp_path: Path, name: bytes) -> None:
    folder = write_few(tmp_path / "pets")
    path = os.path.join(os.fsencode(folder), name)  # noqa: PTH118 - bytes
    os.makedirs(os.path.dirname(path), exist_ok=True)  # noqa: PTH103, PTH120
    with open(path, "wb"):  # noqa: PTH123
        pass
    with pytest.raises(
        UserError, match=r"the name b'.*\\x.*' in .* is not UTF-8: rename it"
    ) as caught:
        read_folder(folder)
    str(caught.value).encode()


def test_what_is_changed_of_an_image_is_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_few(tmp_path / "pets", "RGBA")
    Image.new("CMYK", (4, 3)).save(folder / "cat/3.jpg")
    frames = [Image.new("L", (4, 3), level) for level in (0, 255)]
    frames[0].save(folder / "cat/4.png", save_all=True, append_images=frames[1:])
    (folder / "README.md").write_text("x")
    table = read_folder(folder)
    assert np.array(table["image"][3].to_list()).max() == 0
    assert capsys.readouterr().out.splitlines() == [
        f"note: 1 file in {folder} is no image: left aside (README.md)",
        f"note: {folder} has 2 classes: cat 4, dog 1",
        "note: 1 of 5 images in 'image' are in CMYK: converted to RGB",
        "note: 3 of 5 images in 'image' are transparent: laid over white",
        "note: 1 of 5 images in 'image' have several frames: the first is read",
    ]


def test_images_of_16_bits_are_scaled_by_the_bits_that_the_data_set_uses(tmp_path: Path) -> None:
    folder = write_few(tmp_path / "pets")
    deep = np.array([[0, 16, 4095]], np.uint16).repeat(3, 0)
    deep = np.hstack([deep, deep[:, :1]])
    Image.fromarray(deep).save(folder / "cat/3.png")
    images = load(folder)
    assert np.array(images.table.frame()["image"][2].to_list())[0].tolist() == [0, 1, 255, 0]
    assert images.decode["image"] == Decode(depth=12)
    # A new one is scaled alike, and one beyond is refused: it would come out too bright.
    assert read_image(folder / "cat/3.png", 1, (3, 4), depth=12)[0].tolist() == [0, 1, 255, 0]
    Image.fromarray(deep * 16).save(folder / "cat/4.tif")
    with pytest.raises(ImageError, match="from 0 to 65520, and what can be read is 0 to 4095"):
        read_image(folder / "cat/4.tif", 1, (3, 4), depth=12)
    images = load(folder)
    assert images.decode["image"] == Decode(depth=16)
    assert np.array(images.table.frame()["image"][3].to_list())[0].tolist() == [0, 1, 255, 0]


def test_colours_of_16_bits_that_use_few_of_them_are_refused(tmp_path: Path) -> None:
    folder = write_few(tmp_path / "pets")
    rows = b"".join(b"\0" + (4095).to_bytes(2) * 12 for _ in range(3))
    write_png(folder / "cat/3.png", (4, 3, 16, 2, 0, 0, 0), rows)
    with pytest.raises(UserError, match=r"the 1 image of 16 bits in colour .* than 4095 of 65535"):
        read_folder(folder)


def write_png(path: Path, header: tuple[int, ...], rows: bytes) -> None:
    def chunk(name: bytes, content: bytes) -> bytes:
        whole = name + content
        return len(content).to_bytes(4) + whole + zlib.crc32(whole).to_bytes(4)

    start = header[0].to_bytes(4) + header[1].to_bytes(4) + bytes(header[2:])
    parts = [chunk(b"IHDR", start), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))


def test_every_kind_of_file_becomes_the_channels_that_are_wanted(tmp_path: Path) -> None:
    path = tmp_path / "one.png"

    def pixel(image: Image.Image, channels: int) -> list[int]:
        image.save(path)
        return read_image(path, channels, (2, 2)).reshape(4, -1)[0].tolist()

    red = Image.new("RGB", (2, 2), "red")
    assert pixel(red, 3) == [255, 0, 0]
    assert pixel(red, 1) == [76]
    assert pixel(red.convert("P"), 3) == [255, 0, 0]
    assert pixel(red, 4) == [255, 0, 0, 255]
    clear = Image.new("RGBA", (2, 2), (255, 0, 0, 0))
    assert pixel(clear, 3) == [255, 255, 255]
    assert pixel(clear, 1) == [255]
    assert pixel(clear, 4) == [255, 0, 0, 0]
    assert pixel(Image.new("LA", (2, 2), (7, 255)), 1) == [7]
    assert pixel(Image.new("1", (2, 2), 1), 1) == [255]
    deep = Image.fromarray(np.full((2, 2), 513 * 64, np.uint16))
    assert pixel(deep, 1) == [128]
    assert pixel(deep, 3) == [128, 128, 128]


def test_an_image_is_turned_as_its_camera_says(tmp_path: Path) -> None:
    image = Image.new("L", (4, 2), 0)
    image.paste(255, (0, 0, 2, 2))
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(tmp_path / "a.jpg", exif=exif, quality=95)
    found = read_image(tmp_path / "a.jpg", 1, (4, 2))
    assert (found[:2] > 200).all()
    assert (found[2:] < 50).all()
    with pytest.raises(ImageError, match="it is 2×4 pixels, not 4×2"):
        read_image(tmp_path / "a.jpg", 1, (2, 4))


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


def test_a_picture_that_claims_a_giant_size_is_not_decoded(tmp_path: Path) -> None:
    for side, says in ((60_000, "it can't be read: Image size"), (9000, "9000×9000 pixels, more")):
        write_png(tmp_path / "giant.png", (side, side, 8, 0, 0, 0, 0), b"")
        with pytest.raises(ImageError, match=says):
            read_image(tmp_path / "giant.png", 1, (side, side))


def test_images_of_all_sizes_are_cut_around_their_middle_and_scaled(tmp_path: Path) -> None:
    folder = write_few(tmp_path / "pets")
    wide = Image.new("L", (90, 30), 0)
    wide.paste(200, (30, 0, 60, 30))
    wide.save(folder / "cat/3.png")
    wide.rotate(90, expand=True).convert("RGB").save(folder / "dog/4.jpg", quality=95)
    images = load(folder, image={"height": 6, "width": 6})
    pixels = np.array(images.table.frame()["image"].to_list())
    assert pixels.shape == (5, 6, 6, 3)
    assert images.decode["image"] == Decode(resize=True)
    # Of three squares the middle one is left.
    assert (pixels[2] == 200).all()
    assert (abs(pixels[4].astype(int) - 200) <= 3).all()
    # New ones come the same way.
    found = read_image(folder / "cat/3.png", 3, (6, 6), resize=True)
    np.testing.assert_array_equal(found, pixels[2])


def test_a_photograph_is_scaled_without_aliasing(tmp_path: Path) -> None:
    stripes = np.zeros((512, 512), np.uint8)
    stripes[:, ::2] = 255
    for name in ("a.png", "a.jpg"):
        Image.fromarray(stripes).save(tmp_path / name, quality=95)
        found = read_image(tmp_path / name, 1, (32, 32), resize=True)
        assert (abs(found.astype(int) - 127) <= 3).all()


def test_a_size_without_files_is_told(tmp_path: Path) -> None:
    DIGITS.write_parquet(tmp_path / "t.parquet")
    params = prepare_params(source=str(tmp_path / "t.parquet"), image={"height": 9, "width": 9})
    with pytest.raises(UserError, match=r"no column of .* holds image files") as caught:
        load_images(in_memory(DIGITS), DIGITS, params)
    assert caught.value.problems[0].key == "prepare.image"
