"""The arrays of the splits, encoded part by part, each part written into its own rows of them."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl

from stages.features.encode import encode
from stages.features.numbers import Rows
from stages.features.schema import Array, Schema, Statistics
from stages.parallel.mapper import Mapper
from stages.prepare.arrays import Layout, write_rows
from stages.prepare.columns.infer_schema import SOURCE
from stages.prepare.columns.target import encode_target
from stages.prepare.images import Images
from stages.prepare.rows.assign import Assigned
from stages.prepare.rows.keys import Keys
from stages.prepare.rows.split import SPLITS, Codes
from stages.prepare.rows.twins import Twins, find_twins, write_twins
from stages.prepare.rows.weights import Weights
from stages.prepare.table.table import Shard, mapper_for


@dataclass(frozen=True)
class Target:
    """The folders for arrays, and the way to them; `sizes` are the rows of each split in all."""

    out: Path
    twins: Path
    schema: Schema
    statistics: Statistics
    keys: Keys
    sizes: tuple[int, ...]


@dataclass(frozen=True)
class Piece:
    """A part of the table, and of each of its rows the split, the weight, the group, (rows,).

    `source_rows` (rows,) are their numbers in the source; `starts` are the rows of each split that
    lie before it.
    """

    shard: Shard
    codes: Codes
    source_rows: Rows
    weights: Weights | None
    groups: Rows | None
    starts: tuple[int, ...]


def write_arrays(
    images: Images,
    assigned: Assigned,
    keys: Keys,
    schema: Schema,
    statistics: Statistics,
    out: Path,
    folder: Path,
    mapper: Mapper,
) -> list[Twins]:
    """Encode and write each split; return what to say of each that repeats an earlier one's rows.

    `folder` is for what is gone when the stage ends.
    """
    twins = folder / "twins"
    twins.mkdir(parents=True, exist_ok=True)
    sizes = tuple(int(assigned.of(split).sum()) for split in SPLITS)
    for split in SPLITS:
        (out / split).mkdir()
    target = Target(out.resolve(), twins.resolve(), schema, statistics, keys, sizes)
    layouts: dict[str, Layout] = {}
    pieces = _cut(images, assigned)
    for found in mapper_for(images.table, mapper).map(partial(encode_piece, target), pieces):
        for name, layout in found.items():
            assert layouts.setdefault(name, layout) == layout, f"{name}: {layout}"
    return list(find_twins(twins, out, SPLITS, has_key=schema.key is not None))


def _cut(images: Images, assigned: Assigned) -> Iterator[Piece]:
    starts = np.zeros(len(SPLITS), np.int64)
    for shard in images.table.each_part():
        rows = slice(shard.start, shard.start + sum(shard.table.heights))
        codes = assigned.codes[rows]
        yield Piece(
            shard,
            codes,
            images.in_source(np.arange(rows.start, rows.stop)),
            None if assigned.weights is None else assigned.weights[rows],
            None if assigned.groups is None else assigned.groups[rows],
            tuple(starts.tolist()),
        )
        starts += np.bincount(codes, minlength=len(SPLITS))[: len(SPLITS)]


def encode_piece(target: Target, piece: Piece) -> dict[str, Layout]:
    """Encode the rows of a part, and write them into the arrays of their splits."""
    schema = target.schema
    names = [*input_columns(schema), schema.target.name]
    part, _ = piece.shard.read(names)
    layouts: dict[str, Layout] = {}
    for code, split in enumerate(SPLITS):
        is_own = piece.codes == code
        own = part.filter(pl.Series(is_own))
        arrays = _encode(target, piece, own, is_own)
        start = piece.starts[code]
        layouts |= write_rows(target.out / split, arrays, start, target.sizes[code])
        write_twins(target.twins, split, arrays, own, schema, start)
    return layouts


def _encode(target: Target, piece: Piece, own: pl.DataFrame, is_own: Array) -> dict[str, Array]:
    schema, statistics = target.schema, target.statistics
    arrays = encode(own, schema, statistics, SOURCE)
    arrays["target"] = encode_target(own[schema.target.name], schema, statistics)
    arrays["key"] = target.keys.of(own, piece.source_rows[is_own])
    if piece.weights is not None:
        arrays["weight"] = piece.weights[is_own]
    if piece.groups is not None:
        arrays["group"] = piece.groups[is_own]
    return arrays


def input_columns(schema: Schema) -> list[str]:
    """The columns of new rows: the key's, if there is one, and those of the features."""
    return [*([] if schema.key is None else [schema.key]), *(f.name for f in schema.features)]
