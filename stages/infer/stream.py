"""From a file of new rows to predictions, chunk by chunk: what the stage and the command share."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from stages.common.encode import encode
from stages.common.errors import Problem, UserError
from stages.common.predict import Predictor
from stages.infer.chunks import CHUNK_ROWS, Chunk, Damage, read_chunks
from stages.infer.damage import encode_whole
from stages.infer.notes import Notes


@dataclass(frozen=True)
class Part:
    """Predictions of some rows, in the file's order, and the rows among them that were set aside.

    `predictions` is what `Predictor.predict` returns.
    """

    predictions: pl.DataFrame
    damaged: list[Damage]


class KeysDifferError(Exception):
    """Keys were whole numbers so far, and one is not: all of them are texts."""


def predict_file(
    path: Path, predictor: Predictor, notes: Notes, key: str, *, text_keys: bool = False
) -> Iterator[Part]:
    """The predictions of a file's rows, part by part; `key` is the parameter that names it.

    A key that stands twice is predicted twice. Raises UserError when the file can't be read, when
    it lacks a column, and when no row of its beginning is one that the model takes; KeysDifferError
    when `text_keys` is needed.
    """
    kind: pl.DataType | None = None
    num_damaged = 0
    for chunk in read_chunks(path, predictor.schema, key):
        whole, arrays = encode_whole(chunk, predictor.schema, predictor.statistics, key)
        num_damaged += len(whole.damaged)
        if kind is None and num_damaged >= CHUNK_ROWS:
            break
        predictions = pl.DataFrame()
        if whole.table.height:
            keys = _keys(whole, predictor.schema.key, text_keys=text_keys)
            kind = kind or keys.dtype
            if keys.dtype != kind:
                raise KeysDifferError
            notes.add(whole.table, arrays)
            predictions = predictor.decode(predictor.scores(arrays)).insert_column(0, keys)
        yield Part(predictions, whole.damaged)
    if kind is None:
        _stop(chunk, whole.damaged, num_damaged, predictor, path, key)


def _stop(
    chunk: Chunk,
    damaged: list[Damage],
    num_damaged: int,
    predictor: Predictor,
    path: Path,
    key: str,
) -> None:
    """Stop with what is wrong with a file of whose beginning no row can be predicted."""
    if chunk.table.height:
        encode(chunk.table, predictor.schema, predictor.statistics, key)
    where = f"'{damaged[0].column}': " if damaged[0].column else ""
    message = f"none of the first {num_damaged} rows can be predicted: {where}{damaged[0].reason}"
    raise UserError(Problem(message, key, str(path)))


def _keys(chunk: Chunk, name: str | None, *, text_keys: bool) -> pl.Series:
    """Int64 where all keys of the chunk are whole numbers that it holds, else text."""
    if name is None:
        return pl.Series("row", chunk.rows)
    column = chunk.table[name]
    if column.dtype.is_integer() and not text_keys:
        narrow = column.cast(pl.Int64, strict=False)
        if not narrow.null_count():
            return narrow
    return column.cast(pl.String)
