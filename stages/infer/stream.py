"""Predictions from a file of new rows, chunk by chunk, for the stage and the command."""

import functools
import platform
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl
import torch

from stages.common.counts import counted
from stages.common.errors import Problem, UserError
from stages.features.encode import encode
from stages.features.schema import Array, Schema
from stages.formats.chunk import Chunk
from stages.formats.images.folder import PATH
from stages.formats.read import read_chunks
from stages.formats.reading import Damage, Noticed
from stages.infer.explain import Explanations, explain, in_words
from stages.infer.notes import Notes
from stages.infer.rejected import encode_whole, without_numberless
from stages.model.attribution import Attribution
from stages.model.predictor import Predictor, load_predictor, predictor_digest
from stages.model.threads import one_thread
from stages.parallel.mapper import Mapper
from stages.parallel.thread_map import map_in_order, num_threads

# A file that begins with as many rows that no model here takes is another kind of file.
MAX_DAMAGED_FIRST = 16_384
MAX_DAMAGED_SHOWN = 3
# The column of row numbers, where rows have no key.
ROW = "row"


@dataclass(frozen=True)
class Part:
    """Predictions of some rows, in the file's order, and the rows among them that were set aside.

    `predictions` is what `Predictor.predict` returns.
    """

    predictions: pl.DataFrame
    damaged: list[Damage]

    def renumbered(self, numbers: npt.NDArray[np.int64]) -> "Part":
        """The same rows, each by the number (rows of the file,) that it has in another file."""
        table = self.predictions
        if ROW in table.columns:
            table = table.with_columns(pl.Series(ROW, numbers[table[ROW].to_numpy()]))
        return Part(table, [replace(each, row=int(numbers[each.row])) for each in self.damaged])


@dataclass(frozen=True)
class Trained:
    """The folder `data` of a trained model, as `load_predictor` takes it.

    `digest` is that of all files that it reads there. The instructions of the processor that torch
    makes use of decide the last bits of a prediction.
    """

    data: Path
    coverage: float | None
    digest: str
    instructions: str = field(default_factory=torch.backends.cpu.get_cpu_capability)


@dataclass(frozen=True)
class Cluster:
    """The workers of a cluster, and where each finds the model."""

    mapper: Mapper
    trained: Trained


@dataclass(frozen=True)
class Work:
    """All that is done with each chunk; `key` is the parameter that names the file."""

    key: str
    text_keys: bool
    explained: bool


class KeysDifferError(Exception):
    """Keys were whole numbers so far, and one is not: all of them are texts."""


def predict_file(
    path: Path,
    predictor: Predictor,
    notes: Notes,
    noticed: Noticed,
    key: str,
    *,
    text_keys: bool = False,
    explanations: Explanations | None = None,
    cluster: Cluster | None = None,
) -> Iterator[Part]:
    """The predictions of a file's rows, part by part; `key` is the parameter that names it.

    `noticed` is told what the reader has to say, `notes` what the rows have that training had not.
    With `explanations`, which takes in how good they are, a column says what moved each. A key
    that stands twice is predicted twice. Raises UserError when the file can't be read, when it
    lacks a column, and when no row of its beginning is one that the model takes; KeysDifferError
    when `text_keys` is needed.
    """
    kind: pl.DataType | None = None
    num_damaged = 0
    explained = explanations is not None
    chunks = read_chunks(path, predictor.schema, key, noticed)
    work = Work(key, text_keys=text_keys, explained=explained)
    # Explaining puts a hook into the model, which two threads at once would share.
    # No operator is split while the chunks have the cores.
    with one_thread():
        if cluster is not None and not explained:
            results = cluster.mapper.map(partial(_predict_there, cluster.trained, work), chunks)
        else:
            predict = partial(_predict, predictor, work)
            results = map_in_order(predict, chunks, 1 if explained else num_threads())
        for done in results:
            num_damaged += len(done.damaged)
            if kind is None and done.notes is None and num_damaged >= MAX_DAMAGED_FIRST:
                break
            if done.notes is not None:
                dtype = done.predictions.dtypes[0]
                kind = kind or dtype
                if dtype != kind:
                    raise KeysDifferError
                notes.merge(done.notes)
            if explanations is not None and done.attribution is not None:
                explanations.add(done.attribution)
            yield Part(done.predictions, done.damaged)
    if kind is None:
        _stop(done, num_damaged, predictor, path, key)


@dataclass(frozen=True)
class _Done:
    """A chunk of which all is known. Without a prediction it has no notes, but the rows as read."""

    damaged: list[Damage]
    predictions: pl.DataFrame
    notes: Notes | None = None
    attribution: Attribution | None = None
    unpredicted: pl.DataFrame | None = None


def _predict_there(trained: Trained, work: Work, chunk: Chunk) -> _Done:
    """Predict a chunk on a worker, which keeps the model for the next one."""
    predictor = _load(trained)
    # No operator is split while the chunks have the cores.
    with one_thread():
        return _predict(predictor, work, chunk)


@functools.lru_cache(maxsize=1)
def _load(trained: Trained) -> Predictor:
    if predictor_digest(trained.data, trained.coverage) != trained.digest:
        raise UserError(
            f"a worker finds another model in {trained.data}/train, or other files of it in "
            f"{trained.data}/prepare, than this process: it needs the same disk, under the same "
            "path"
        )
    if (own := torch.backends.cpu.get_cpu_capability()) != trained.instructions:
        raise UserError(
            f"a worker's torch computes with the instructions {own} ({platform.node()}), and that "
            f"of this process with {trained.instructions}: set ATEN_CPU_CAPABILITY to the same for "
            "all of them, or leave that machine out"
        )
    return load_predictor(trained.data, coverage=trained.coverage)


def _predict(predictor: Predictor, work: Work, chunk: Chunk) -> _Done:
    whole, arrays = encode_whole(chunk, predictor.schema, predictor.statistics, work.key)
    if not whole.table.height:
        return _Done(whole.damaged, pl.DataFrame(), unpredicted=chunk.table)
    scores = _scores(predictor, chunk, whole, arrays)
    whole, arrays, scores = without_numberless(whole, arrays, scores, predictor.schema)
    if not whole.table.height:
        return _Done(whole.damaged, pl.DataFrame(), unpredicted=chunk.table)
    keys = _keys(whole, predictor.schema, text_keys=work.text_keys)
    predictions = predictor.decode(scores).insert_column(0, keys)
    notes = Notes(predictor.schema, predictor.statistics)
    notes.add(whole.table, arrays)
    if not work.explained:
        return _Done(whole.damaged, predictions, notes)
    found = explain(predictor, arrays, predictions)
    explained = predictions.with_columns(in_words(found))
    return _Done(whole.damaged, explained, notes, found)


def _scores(
    predictor: Predictor, chunk: Chunk, whole: Chunk, arrays: dict[str, Array]
) -> npt.NDArray[np.float64]:
    """The scores of the whole rows, each computed in the place where it stands in the file.

    The last bits of a product may depend on the number of rows and on the row's place among
    them: so damaged rows keep theirs, with zeros, and change no other row's prediction.
    """
    num_rows = len(chunk.rows) + len(chunk.damaged)
    if len(whole.rows) == num_rows:
        return predictor.scores(arrays)
    first = min([*chunk.rows[:1].tolist(), *(damage.row for damage in chunk.damaged)])
    places = whole.rows - first
    spread = {}
    for kind, array in arrays.items():
        spread[kind] = np.zeros((num_rows, *array.shape[1:]), array.dtype)
        spread[kind][places] = array
    scores: npt.NDArray[np.float64] = predictor.scores(spread)[places]
    return scores


def _stop(done: _Done, num_damaged: int, predictor: Predictor, path: Path, key: str) -> None:
    """Stop with what is wrong with a file of whose beginning no row can be predicted."""
    damaged = done.damaged
    # Of one column that is another than training's, that says it best.
    is_one = len({damage.column for damage in damaged}) == 1
    if is_one and done.unpredicted is not None and done.unpredicted.height:
        encode(done.unpredicted, predictor.schema, predictor.statistics, key)
    lines = [f"none of the first {counted(num_damaged, 'row')} can be predicted"]
    for damage in damaged[:MAX_DAMAGED_SHOWN]:
        where = "" if damage.column is None else f"'{damage.column}': "
        lines.append(f"row {damage.row}: {where}{damage.reason}")
    raise UserError(Problem("; ".join(lines), key, str(path)))


def _keys(chunk: Chunk, schema: Schema, *, text_keys: bool) -> pl.Series:
    """Int64 where all keys of the chunk are whole numbers that it holds, else text.

    Images from a folder have a path where the model has no key. A feature of that name is none.
    """
    name = schema.key
    if name is None:
        has_path = PATH in chunk.table.columns
        if not has_path or any(feature.name == PATH for feature in schema.features):
            return pl.Series(ROW, chunk.rows)
        name = PATH
    column = chunk.table[name]
    if column.dtype.is_integer() and not text_keys:
        narrow = column.cast(pl.Int64, strict=False)
        if not narrow.null_count():
            return narrow
    return column.cast(pl.String)
