"""Images as they are read: bits, channels, turns, sizes."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stages.common.errors import UserError
from stages.features.pixels import ImageError
from stages.features.schema import Decode
from tests.support.stages.images import load, read_folder, read_image, write_few, write_png


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
