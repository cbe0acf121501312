"""Folders of images, as prepare reads them."""

import zlib
from pathlib import Path

import polars as pl
from PIL import Image

from stages.features.pixels import Form, Pixels, decode
from stages.features.schema import Decode
from stages.prepare.images import Images, load_images
from stages.prepare.table.table import in_memory
from tests.conftest import ROOT
from tests.support.samples import prepare_params
from tests.support.tables import read_table

DIGITS = pl.read_parquet(ROOT / "data/raw/digits.parquet").head(300)


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


def write_few(folder: Path, mode: str = "L") -> Path:
    for name in ("cat/1.png", "cat/2.png", "dog/1.png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new(mode, (4, 3)).save(folder / name)
    return folder


def write_png(path: Path, header: tuple[int, ...], rows: bytes) -> None:
    def chunk(name: bytes, content: bytes) -> bytes:
        whole = name + content
        return len(content).to_bytes(4) + whole + zlib.crc32(whole).to_bytes(4)

    start = header[0].to_bytes(4) + header[1].to_bytes(4) + bytes(header[2:])
    parts = [chunk(b"IHDR", start), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))
