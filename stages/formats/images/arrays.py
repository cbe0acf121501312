"""Images as arrays with their labels, from a pair of IDX files or one file of NumPy's (.npz)."""

import gzip
import math
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from stages.features.encode import check_columns
from stages.features.schema import Schema
from stages.formats.chunk import Chunk, chunk_rows, needed_columns, take_columns
from stages.formats.images.folder import IMAGE, LABEL, PARTS, SPLIT
from stages.formats.images.idx_files import find_idx_pairs
from stages.formats.part import Part
from stages.formats.reading import Damage, Noticed

Array = npt.NDArray[np.generic]
# The third byte of an IDX file names its type; all are big-endian.
_IDX_TYPES = {8: "u1", 9: "i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}
_IMAGE_NAMES = ("x", "image", "images", "data")
_LABEL_NAMES = ("y", "label", "labels", "target", "targets")


def read(path: Path, key: str, _noticed: Noticed) -> tuple[pl.DataFrame, list[Damage]]:
    """The columns `image` and `label`, and `split` where there are parts."""
    return _read(path, key), []


def parts(path: Path, key: str, noticed: Noticed, _as_text: frozenset[str]) -> Iterator[Part]:
    """All rows as one part."""
    yield Part(*read(path, key, noticed))


def chunks(path: Path, schema: Schema, key: str, _noticed: Noticed) -> Iterator[Chunk]:
    """The columns of `schema`; the labels need not be there."""
    table = _read(path, key)
    check_columns(table, schema, key)
    num_rows = chunk_rows(schema)
    for start in range(0, table.height, num_rows):
        part = take_columns(
            table[start : start + num_rows].select(needed_columns(schema)), schema, key
        )
        yield Chunk(part, np.arange(start, start + part.height))


def _read(path: Path, key: str) -> pl.DataFrame:
    """All rows, the parts one after the other."""
    tables = []
    found = _of_npz(path) if path.is_file() else _of_idx(path, key)
    for part, (images, labels) in found.items():
        columns = {IMAGE: _as_images(images)}
        if labels is not None:
            columns[LABEL] = _as_labels(labels, len(images))
        table = pl.DataFrame({name: pl.Series(values) for name, values in columns.items()})
        tables.append(table if part is None else table.with_columns(pl.lit(part).alias(SPLIT)))
    if len({tuple(table.schema.items()) for table in tables}) > 1:
        raise ValueError("its parts differ in the shape or the type of their arrays")
    return pl.concat(tables)


def _as_images(images: Array) -> Array:
    if images.ndim not in (3, 4) or images.dtype.kind not in "uif":
        way = ""
        if images.ndim == 2 and images.dtype.kind in "uif":
            way = (
                "; of a table of numbers polars.DataFrame(x).with_columns(label=y)"
                ".write_parquet('table.parquet') makes one; pixels side by side become images by "
                "x.reshape(len(x), height, width)"
            )
        raise ValueError(
            f"images must be numbers of shape (rows, height, width) or with channels, not "
            f"{images.dtype} of {images.shape}{way}"
        )
    return np.ascontiguousarray(images.astype(images.dtype.newbyteorder("=")))


def _as_labels(labels: Array, num_rows: int) -> Array:
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.shape != (num_rows,):
        raise ValueError(f"{num_rows} images have labels of shape {labels.shape}")
    if labels.dtype.kind not in "uifbU":
        raise ValueError(f"labels must be numbers or texts, not {labels.dtype}")
    return labels if labels.dtype.kind in "bU" else labels.astype(labels.dtype.newbyteorder("="))


def _of_idx(folder: Path, key: str) -> dict[str | None, tuple[Array, Array | None]]:
    return {
        pair.part: (read_idx(pair.images), None if pair.labels is None else read_idx(pair.labels))
        for pair in find_idx_pairs(folder, key)
    }


def read_idx(path: Path) -> Array:
    """The array of an IDX file, also of a compressed one. Raises ValueError where it is none."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            content = file.read()
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(f"{path.name} is damaged: {error}") from None
    dtype = np.dtype(_IDX_TYPES.get(content[2], "V1")) if len(content) > 3 else np.dtype("V1")
    if content[:2] != b"\0\0" or dtype.kind == "V":
        raise ValueError(f"{path.name} is no IDX file: it does not begin as one")
    start = 4 + 4 * content[3]
    shape = tuple(np.frombuffer(content[4:start], ">u4").tolist()) if len(content) >= start else ()
    if len(shape) != content[3] or len(content) - start != math.prod(shape) * dtype.itemsize:
        raise ValueError(
            f"{path.name} is damaged: {len(content) - start:,} bytes do not hold {dtype.name} of "
            f"{shape}"
        )
    return np.frombuffer(content, dtype, offset=start).reshape(shape)


def _of_npz(path: Path) -> dict[str | None, tuple[Array, Array | None]]:
    """The images and labels of each part that the names of the arrays tell."""
    found: dict[str | None, dict[str, Array]] = {}
    try:
        with path.open("rb") as opened:
            file = np.load(opened, allow_pickle=False)
            if not isinstance(file, np.lib.npyio.NpzFile):
                raise ValueError("it is one array of np.save, without names: use np.savez")
            names = list(file.files)
            for name in names:
                part, what = read_name(name)
                if what is None:
                    continue
                if what in found.setdefault(part, {}):
                    raise ValueError(f"two of its arrays hold {what}s: {', '.join(names)}")
                found[part][what] = file[name]
    except (zipfile.BadZipFile, EOFError, zlib.error, AttributeError) as error:
        raise ValueError(f"it is damaged, or no file of np.savez: {error}") from None
    shown = ", ".join(names)
    if not found or any(IMAGE not in arrays for arrays in found.values()):
        raise ValueError(
            f"it holds {shown}: images are called x or images, their labels y or labels, of a part "
            "x_train, y_train, test_images and so on"
        )
    if len(found) > 1 and None in found:
        raise ValueError(f"it holds {shown}, with and without the name of a part")
    if len(found) == 1:
        (arrays,) = found.values()
        found = {None: arrays}
    order = ["train", "validation", "test", None]
    return {
        part: (found[part][IMAGE], found[part].get(LABEL))
        for part in sorted(found, key=order.index)
    }


def read_name(name: str) -> tuple[str | None, str | None]:
    """The part and the column that an array's name tells."""
    words = name.lower().split("_")
    parts = [PARTS[word] for word in words if word in PARTS]
    rest = [word for word in words if word not in PARTS]
    if len(rest) != 1 or len(parts) > 1:
        return None, None
    what = IMAGE if rest[0] in _IMAGE_NAMES else LABEL if rest[0] in _LABEL_NAMES else None
    return (parts[0] if parts else None), what
