"""The contact sheet: the pictures of the right rows, readable, the same bytes each time."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stages.evaluate.outputs import contact_sheet as sheets
from stages.evaluate.outputs.contact_sheet import (
    CELL,
    COLUMNS,
    MARGIN,
    MAX_PICTURES,
    SIDE,
    write_sheet,
)
from stages.evaluate.outputs.mistakes import Mistake
from stages.features.schema import Array
from tests.support.names import NAMES


def mistakes(rows: list[int]) -> list[Mistake]:
    return [Mistake(row, f"key {row}", "cat", "dog", 0.9, 0.05) for row in rows]


def drawn(path: Path, images: Array, rows: list[int]) -> Image.Image:
    write_sheet(path, images, mistakes(rows))
    return opened(path)


def opened(path: Path) -> Image.Image:
    with Image.open(path) as picture:
        return picture.convert("RGB")


def square(sheet: Image.Image, place: int) -> Image.Image:
    """The picture at a place, without its label."""
    left, top = place % COLUMNS * CELL[0] + MARGIN, place // COLUMNS * CELL[1] + MARGIN
    return sheet.crop((left, top, left + SIDE, top + SIDE))


@pytest.mark.parametrize("channels", [1, 3])
def test_small_pictures_are_enlarged_pixel_by_pixel(tmp_path: Path, channels: int) -> None:
    images = np.random.default_rng(0).integers(0, 256, (40, channels, 8, 8), dtype=np.uint8)
    images[7, :, 0, 0], images[7, :, 0, 1] = 0, 255
    rows = [7, 3, 39, *range(10, 20)]
    sheet = drawn(tmp_path / "s.png", images, rows)
    assert sheet.size == (COLUMNS * CELL[0], 2 * CELL[1])
    for place, row in enumerate(rows):
        shrunk = np.array(square(sheet, place).resize((8, 8), Image.Resampling.NEAREST))
        colours = np.broadcast_to(images[row].transpose(1, 2, 0), (8, 8, 3))
        assert (shrunk == colours).all(), row


def test_large_pictures_are_made_smaller_and_keep_their_shape(tmp_path: Path) -> None:
    # The left half is dark, the right half bright; twice as wide as high.
    images = np.zeros((2, 1, 200, 400), np.float32)
    images[:, :, :, 200:] = 3.5
    picture = np.array(square(drawn(tmp_path / "s.png", images, [1]), 0).convert("L"))
    high = SIDE // 2
    inside = picture[(SIDE - high) // 2 + 1 : (SIDE + high) // 2 - 1]
    assert (inside[:, : SIDE // 2 - 4] <= 8).all()
    assert (inside[:, SIDE // 2 + 4 :] >= 247).all()
    # Paper above and below.
    assert (picture[: (SIDE - high) // 2 - 1] == 255).all()


def test_one_scale_of_brightness_for_all(tmp_path: Path) -> None:
    images = np.zeros((3, 2, 4, 4), np.float32)
    images[0], images[1, 0], images[2] = -1.0, 1.0, 99.0
    sheet = drawn(tmp_path / "s.png", images, [0, 1])
    # The mean of two channels; the row that is not shown does not count.
    greys = [square(sheet, place).getpixel((50, 50))[0] for place in (0, 1)]  # type: ignore[index]
    assert greys == [0, 255]


def test_no_more_pictures_than_can_be_seen(tmp_path: Path) -> None:
    images = np.zeros((100, 1, 8, 8), np.uint8)
    sheet = drawn(tmp_path / "s.png", images, list(range(100)))
    assert sheet.size == (COLUMNS * CELL[0], MAX_PICTURES // COLUMNS * CELL[1])


def test_each_has_its_label(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[list[str]] = []

    def remember(mistake: Mistake, font: object) -> list[str]:
        said.append(label(mistake, font))  # type: ignore[arg-type]
        return said[-1]

    label = sheets._label
    monkeypatch.setattr(sheets, "_label", remember)
    shown = [
        Mistake(0, 1690, 3, 5, 0.49123, 0.4),
        Mistake(1, "b", "a very long name of a class", "short", 1.0, 0.0),
        Mistake(2, 7, 12.34567, -8.0, residual=20.34567),
    ]
    write_sheet(tmp_path / "s.png", np.zeros((3, 1, 8, 8), np.uint8), shown)
    assert said[0] == ["1690", "3 -> 5", "0.491"]
    assert said[1][1].startswith("a very")
    assert said[1][1].endswith("… -> short")
    assert said[2] == ["7", "12.35 -> -8", "+20.35"]
    # It is drawn: ink below the picture, on each of the three lines.
    sheet = np.array(opened(tmp_path / "s.png").convert("L"))
    for place in range(3):
        for line in range(3):
            top = MARGIN + SIDE + 2 + line * sheets.LINE
            left = place * CELL[0]
            assert (sheet[top : top + sheets.LINE, left : left + CELL[0]] < 128).any()


def test_without_pictures_or_mistakes_it_says_so(tmp_path: Path) -> None:
    write_sheet(tmp_path / "none.png", None, mistakes([0]))
    write_sheet(tmp_path / "right.png", np.zeros((3, 1, 8, 8), np.uint8), [])
    sizes = [opened(tmp_path / name).size for name in ("none.png", "right.png")]
    assert all(width > 100 and height < 50 for width, height in sizes)
    assert (tmp_path / "none.png").read_bytes() != (tmp_path / "right.png").read_bytes()


def test_the_same_mistakes_are_the_same_bytes(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (9, 3, 50, 30), dtype=np.uint8)
    for name in ("one.png", "two.png"):
        drawn(tmp_path / name, images, [8, 2])
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()
    drawn(tmp_path / "two.png", images, [2, 8])
    assert (tmp_path / "one.png").read_bytes() != (tmp_path / "two.png").read_bytes()


def test_keys_and_classes_may_have_any_name(tmp_path: Path) -> None:
    images = np.zeros((len(NAMES), 1, 8, 8), np.uint8)
    named = [Mistake(row, name, name, name, 0.9, 0.05) for row, name in enumerate(NAMES)]
    write_sheet(tmp_path / "s.png", images, named)
    num_rows = -(-len(NAMES) // COLUMNS)
    assert opened(tmp_path / "s.png").size == (COLUMNS * CELL[0], num_rows * CELL[1])
