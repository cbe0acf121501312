"""Folders of images: classes and parts, what is left out, what is refused."""

import os
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image

from stages.common.errors import UserError
from stages.prepare.images import load_images
from stages.prepare.table.table import in_memory
from tests.support.samples import prepare_params
from tests.support.stages.images import DIGITS, load, read_folder, write_few


def test_a_class_is_the_first_folder_of_the_path(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
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
    assert "lie in folders" not in capsys.readouterr().out
    (folder / "dog/terrier").mkdir()
    Image.new("RGB", (4, 3), "red").save(folder / "dog/terrier/1.png")
    read_folder(folder)
    said = "the images of 1 class (dog) lie in folders of their own (deep, terrier): if these are "
    assert said in capsys.readouterr().out
    for side in ("deep", "terrier"):
        (folder / "cat" / side).mkdir()
        Image.new("RGB", (4, 3), "red").save(folder / "cat" / side / "1.png")
    read_folder(folder)
    assert "lie in folders" not in capsys.readouterr().out


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


def test_a_size_without_files_is_told(tmp_path: Path) -> None:
    DIGITS.write_parquet(tmp_path / "t.parquet")
    params = prepare_params(source=str(tmp_path / "t.parquet"), image={"height": 9, "width": 9})
    with pytest.raises(UserError, match=r"no column of .* holds image files") as caught:
        load_images(in_memory(DIGITS), DIGITS, params)
    assert caught.value.problems[0].key == "prepare.image"
