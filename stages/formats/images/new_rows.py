"""Image files of new rows, by path or as bytes, to arrays as training had them."""

from functools import partial
from pathlib import Path

import numpy as np
import polars as pl

from stages.common.errors import Problem, UserError
from stages.features.numbers import image_shape
from stages.features.pixels import Form, ImageError, Pixels, decode
from stages.features.schema import Decode, Feature, Schema
from stages.formats.chunk import Chunk
from stages.formats.images.folder import PATH
from stages.formats.images.load import FILES, Source, map_sources, source_of
from stages.formats.reading import Damage


def load_chunk(chunk: Chunk, schema: Schema, path: Path, key: str) -> Chunk:
    """A chunk of `path` in which image files have become arrays; others join the damaged rows.

    Paths are those below `path`, or below the folder of that table. Raises UserError where the
    model was trained on arrays that no image file can hold, and for files that DVC does not see.
    """
    for feature in schema.features:
        dtype = chunk.table[feature.name].dtype
        if feature.kind != "image" or dtype not in FILES:
            continue
        if not feature.eight_bit:
            message = (
                f"'{feature.name}' names image files, and the model was trained on arrays with "
                "other values than the 0 to 255 of a file: give it arrays"
            )
            raise UserError(Problem(message, key, str(path)))
        if dtype == pl.String:
            check_seen(path, feature.name, key)
        chunk = _load(chunk, feature, path if path.is_dir() else path.parent, schema.key)
    return chunk


def check_seen(path: Path, column: str, key: str) -> None:
    """Raise UserError for paths in a table that `params.yaml` names: DVC would see that alone."""
    if key.startswith(("prepare.", "infer.")) and not path.is_dir():
        message = (
            f"the column '{column}' of {path} names image files, of which DVC sees none: put the "
            f"table as manifest{path.suffix} into their folder, and name that folder here"
        )
        raise UserError(Problem(message, key, str(path)))


def _load(chunk: Chunk, feature: Feature, folder: Path, key: str | None) -> Chunk:
    form = Form(image_shape(feature), feature.decode or Decode())
    sources = [source_of(value, folder) for value in chunk.table[feature.name]]
    kept: list[int] = []
    images: list[Pixels] = []
    damaged = list(chunk.damaged)
    name = key or PATH
    # Where that column names the images, it is what the reason has.
    is_known = name in chunk.table.columns and name != feature.name
    names = chunk.table[name] if is_known else None
    for place, found in enumerate(map_sources(partial(_decode, form=form), sources)):
        if isinstance(found, ImageError):
            row = int(chunk.rows[place])
            named = None if names is None else names[place]
            damaged.append(Damage(row, str(found), feature.name, named))
        else:
            kept.append(place)
            images.append(found)
    empty = pl.Series(feature.name, [], pl.Array(pl.UInt8, form.shape))
    arrays = pl.Series(feature.name, np.stack(images)) if images else empty
    table = chunk.table[kept].with_columns(arrays)
    return Chunk(table, chunk.rows[kept], sorted(damaged, key=lambda each: each.row))


def _decode(_number: int, source: Source, *, form: Form) -> Pixels | ImageError:
    if isinstance(source, ImageError):
        return source
    try:
        return decode(source, form)
    except ImageError as error:
        return error
