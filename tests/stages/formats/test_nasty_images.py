"""Image files as people have them, one row each: through prepare, predict and serve alike."""

import base64
import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image

from pipeline.serve.codec.rows import make_encoder
from pipeline.serve.codec.signature import Input
from stages.features.pixels import Pixels
from stages.features.schema import Decode, Feature, Schema, Target
from stages.formats.read import read_chunks
from stages.prepare.images import load_images
from stages.prepare.table.table import in_memory
from tests.support.samples import prepare_params
from tests.support.serving import signature
from tests.support.tables import read_table

SIZE = (6, 8)
LEFT = (250, 30, 10)
RIGHT = (10, 60, 240)


def halves(mode: str = "RGB") -> Image.Image:
    """An image of which the left half is red, and the right one blue."""
    image = Image.new("RGB", SIZE[::-1], RIGHT)
    image.paste(LEFT, (0, 0, SIZE[1] // 2, SIZE[0]))
    return image.convert(mode)


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    content = io.BytesIO()
    image.save(content, kind, **options)
    return content.getvalue()


def turned() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return saved(halves().rotate(90, expand=True), "PNG", exif=exif)


def cmyk(*, adobe: bool) -> bytes:
    """The halves in CMYK; without Adobe's marker the numbers are not inverted."""
    image = halves("CMYK")
    if adobe:
        return saved(image, "JPEG", quality=100, subsampling=0)
    content = saved(Image.eval(image, lambda value: 255 - value), "JPEG", quality=100)
    place = content.index(b"\xff\xee")
    length = int.from_bytes(content[place + 2 : place + 4])
    return content[:place] + content[place + 2 + length :]


def ycck() -> bytes:
    """The halves in YCCK: Adobe's marker says 2, and the inks stand there as YCbCr."""
    *inks, black = halves("CMYK").split()
    bands = Image.merge("RGB", inks).convert("YCbCr").split()
    # Pillow writes what it takes for inks inverted.
    inverted = [Image.eval(band, lambda value: 255 - value) for band in bands]
    content = saved(Image.merge("CMYK", (*inverted, black)), "JPEG", quality=100)
    place = content.index(b"Adobe")
    return content[: place + 11] + b"\x02" + content[place + 12 :]


def transparent(mode: str) -> bytes:
    """The right half is black, and is not to be seen."""
    image = halves("RGBA")
    image.paste((0, 0, 0, 0), (SIZE[1] // 2, 0, *SIZE[::-1]))
    if mode == "P":
        image = image.quantize(8)
    return saved(image, "PNG")


def animated() -> bytes:
    frames = [halves("P"), Image.new("P", SIZE[::-1], 0)]
    return saved(frames[0], "GIF", save_all=True, append_images=frames[1:])


def deep(kind: str, bits: int) -> bytes:
    top = (1 << bits) - 1
    values = np.full(SIZE, top // 4, np.uint16)
    values[:, : SIZE[1] // 2] = top
    return saved(Image.fromarray(values), kind)


def corners(pixels: Pixels) -> list[list[int]]:
    """The colours of the left and of the right half."""
    whole = np.atleast_3d(pixels)
    return [whole[0, 0].astype(int).tolist(), whole[-1, -1].astype(int).tolist()]


# Number in the list of situations, file, colours of both halves, and what may be rounded.
READ: list[tuple[int, str, Callable[[], bytes], list[list[int]], int]] = [
    (20, "turned.png", turned, [[*LEFT], [*RIGHT]], 0),
    (21, "deep.png", lambda: deep("PNG", 16), [[255], [63]], 0),
    (21, "deep.tiff", lambda: deep("TIFF", 16), [[255], [63]], 0),
    (21, "twelve.png", lambda: deep("PNG", 12), [[255], [63]], 0),
    (21, "ten.tif", lambda: deep("TIFF", 10), [[255], [63]], 0),
    (22, "adobe.jpg", lambda: cmyk(adobe=True), [[*LEFT], [*RIGHT]], 4),
    (22, "no_adobe.jpg", lambda: cmyk(adobe=False), [[*LEFT], [*RIGHT]], 12),
    (22, "ycck.jpg", ycck, [[*LEFT], [*RIGHT]], 12),
    (23, "alpha.png", lambda: transparent("RGBA"), [[*LEFT], [255, 255, 255]], 0),
    (23, "palette.png", lambda: transparent("P"), [[*LEFT], [255, 255, 255]], 8),
    (23, "moving.gif", animated, [[*LEFT], [*RIGHT]], 51),
    (25, "upper.JPG", lambda: saved(halves(), "JPEG", quality=100), [[*LEFT], [*RIGHT]], 4),
    (25, "webp.jpg", lambda: saved(halves(), "WEBP", lossless=True), [[*LEFT], [*RIGHT]], 0),
    (25, "no_suffix", lambda: saved(halves(), "PNG"), [[*LEFT], [*RIGHT]], 0),
    (25, "windows.bmp", lambda: saved(halves(), "BMP"), [[*LEFT], [*RIGHT]], 0),
]
BROKEN: list[tuple[int, str, Callable[[], bytes], str]] = [
    (24, "cut.jpg", lambda: saved(noise(), "JPEG")[:-300], "image file is truncated"),
    (24, "cut.png", lambda: saved(noise(), "PNG")[:-300], "truncated"),
    (24, "empty.png", lambda: b"", "it is no PNG"),
    (25, "page.jpg", lambda: b"<!doctype html><p>404", "it is no PNG"),
]


def noise() -> Image.Image:
    values = np.random.default_rng(0).integers(0, 255, (64, 64, 3)).astype(np.uint8)
    return Image.fromarray(values)


def trained_on(folder: Path, **changes: object) -> tuple[pl.DataFrame, Feature]:
    """The rows that prepare makes of a folder, and the column as new rows find it described."""
    settings = {"source": str(folder), "key": "path", "target": "label", **changes}
    source = read_table(folder, "prepare.source")
    images = load_images(in_memory(source), source, prepare_params(**settings))
    table = images.table.frame()
    dtype = table["image"].dtype
    assert isinstance(dtype, pl.Array)
    shape = dtype.shape
    layout, turned = ("HW", [1, *shape]) if len(shape) == 2 else ("HWC", [shape[2], *shape[:2]])
    feature = Feature.model_validate(
        {"name": "image", "kind": "image", "shape": turned, "layout": layout}
        | {"decode": images.decode["image"]}
    )
    return table, feature


def predicted(folder: Path, feature: Feature) -> tuple[list[Pixels], list[str]]:
    """The pixels of new rows, and the reasons of those that are set aside."""
    schema = Schema(key="path", features=[feature], target=Target(name="y", task="regression"))
    chunks = list(read_chunks(folder, schema, "FILE"))
    pixels = [np.array(row) for chunk in chunks for row in chunk.table["image"].to_list()]
    return pixels, [damage.reason for chunk in chunks for damage in chunk.damaged]


def served(content: bytes, feature: Feature, shape: tuple[int, ...]) -> Pixels:
    decode = (feature.decode or Decode()).model_dump()
    values = {"name": "image", "column": "image", "kind": "image", "shape": ["rows", *shape]}
    encode = make_encoder(signature(Input.model_validate({**values, "decode": decode})))
    rows = json.loads(json.dumps([{"image": base64.b64encode(content).decode()}]))
    return encode(rows)["image"][0].astype(np.uint8)


@pytest.mark.parametrize(
    ("number", "name", "make", "colours", "rounded"), READ, ids=[case[1] for case in READ]
)
def test_an_image_is_read_alike_everywhere(
    tmp_path: Path,
    number: int,
    name: str,
    make: Callable[[], bytes],
    colours: list[list[int]],
    rounded: int,
) -> None:
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / name).write_bytes(make())
    table, feature = trained_on(tmp_path)
    pixels = np.array(table["image"][0].to_list(), np.uint8)
    assert pixels.shape[:2] == SIZE
    found = corners(pixels)
    assert np.abs(np.array(found) - np.array(colours)).max() <= rounded, found
    (new,), reasons = predicted(tmp_path, feature)
    assert reasons == []
    np.testing.assert_array_equal(new, pixels)
    np.testing.assert_array_equal(served(make(), feature, pixels.shape), pixels)


@pytest.mark.parametrize(
    ("number", "name", "make", "reason"), BROKEN, ids=[case[1] for case in BROKEN]
)
def test_a_broken_image_is_named_everywhere(
    tmp_path: Path, number: int, name: str, make: Callable[[], bytes], reason: str
) -> None:
    (tmp_path / "cat").mkdir()
    for place in range(120):
        noise().save(tmp_path / f"cat/{place:03}.png")
    (tmp_path / "cat" / name).write_bytes(make())
    table, feature = trained_on(tmp_path)
    assert table.height == 120
    pixels, reasons = predicted(tmp_path, feature)
    assert len(pixels) == 120
    assert [reason in text for text in reasons] == [True]
    with pytest.raises(Exception, match=r"row 0, column 'image'") as caught:
        served(make(), feature, (64, 64, 3))
    assert reason in str(caught.value)
