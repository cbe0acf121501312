"""Rows that the model can't be given: found one by one, the others stay together."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial

import numpy as np
import numpy.typing as npt
import polars as pl

from stages.common.errors import UserError, shorten
from stages.features.encode import encode
from stages.features.kind import kind_of
from stages.features.schema import Array, Feature, Schema, Statistics
from stages.features.spelling import explain_signs
from stages.features.written import are_numbers
from stages.formats.chunk import Chunk
from stages.formats.reading import Damage


def encode_whole(
    chunk: Chunk, schema: Schema, statistics: Statistics, key: str
) -> tuple[Chunk, dict[str, Array]]:
    """The rows of `chunk` that can be encoded, with their arrays; the others join `damaged`.

    A row without a key is damaged too: nothing would name its prediction.
    """
    found = {} if schema.key is None else _without_key(chunk, schema.key)
    arrays: dict[str, Array] | None = None
    if not found:
        with suppress(UserError):
            arrays = _encode(chunk.table, schema, statistics, key)
    if arrays is not None:
        return chunk, arrays
    for feature in schema.features:
        one = schema.model_copy(update={"features": [feature]})
        check = partial(_encode, schema=one, statistics=statistics, key=key)
        for index in _find_failing(chunk.table[feature.name], feature, check):
            if index not in found:
                found[index] = _damage(chunk, index, feature, schema.key)
    kept = [index for index in range(chunk.table.height) if index not in found]
    table = chunk.table[kept]
    damaged = sorted([*chunk.damaged, *found.values()], key=lambda each: each.row)
    return Chunk(table, chunk.rows[kept], damaged), _encode(table, schema, statistics, key)


def without_numberless(
    chunk: Chunk, arrays: dict[str, Array], scores: npt.NDArray[np.float64], schema: Schema
) -> tuple[Chunk, dict[str, Array], npt.NDArray[np.float64]]:
    """Whole rows, their arrays and scores, except rows of which a score is not finite: damaged.

    A number that float32 holds may still be too large for what the model makes of it.
    """
    known = np.isfinite(scores).all(axis=1)
    if known.all():
        return chunk, arrays, scores
    found = []
    columns = furthest_columns({k: a[~known] for k, a in arrays.items()}, schema)
    for index, column in zip(np.flatnonzero(~known).tolist(), columns, strict=True):
        reason = "the model's answer is not finite"
        if column is not None:
            reason = f"{chunk.table[column][index]!r} is too far from training: {reason}"
        named = None if schema.key is None else chunk.table[schema.key][index]
        found.append(Damage(int(chunk.rows[index]), reason, column, named))
    damaged = sorted([*chunk.damaged, *found], key=lambda each: each.row)
    kept = np.flatnonzero(known)
    whole = Chunk(chunk.table[kept], chunk.rows[kept], damaged)
    return whole, {kind: array[kept] for kind, array in arrays.items()}, scores[kept]


def furthest_columns(arrays: dict[str, Array], schema: Schema) -> list[str | None]:
    """The column of numbers of each row that is furthest from training's mean, if there is one."""
    num_rows = len(next(iter(arrays.values())))
    names = [feature.name for feature in schema.of_kind("numeric")]
    if not names:
        return [None] * num_rows
    # Behind the values stands where the gaps are.
    places = np.abs(arrays["numeric"][:, : len(names)].astype(np.float64)).argmax(axis=1)
    return [names[place] for place in places.tolist()]


def _encode(
    table: pl.DataFrame, schema: Schema, statistics: Statistics, key: str
) -> dict[str, Array]:
    return encode(table, schema, statistics, key) if table.height else {}


def _without_key(chunk: Chunk, name: str) -> dict[int, Damage]:
    gaps = chunk.table[name].is_null().arg_true()
    return {i: Damage(int(chunk.rows[i]), "it has no key", name) for i in gaps}


def _find_failing(
    column: pl.Series, feature: Feature, check: Callable[[pl.DataFrame], object]
) -> list[int]:
    """The numbers of the rows for whose value `check` stops, in their order."""
    if column.dtype.is_nested():
        return list(_failing(column.to_frame(), check))
    # Where many rows are wrong, to halve the table takes a millisecond for each of them: so texts
    # that are no numbers are looked for at once, and each other value once.
    is_known = pl.repeat(value=True, n=column.len(), eager=True)
    if kind_of(feature.kind).NUMBERS and column.dtype == pl.String:
        is_known = are_numbers(column, feature)
    values = column.filter(is_known).unique(maintain_order=True)
    wrong = values.gather(list(_failing(values.to_frame(), check)))
    found = ~is_known | column.is_in(wrong.implode(), nulls_equal=True)
    return found.arg_true().to_list()


def _failing(
    table: pl.DataFrame, check: Callable[[pl.DataFrame], object], start: int = 0
) -> Iterator[int]:
    """The numbers of the rows for which `check` stops: of each half that it stops for."""
    if table.height == 0:
        return
    try:
        check(table)
    except UserError:
        if table.height == 1:
            yield start
            return
        half = table.height // 2
        yield from _failing(table[:half], check, start)
        yield from _failing(table[half:], check, start + half)


def _damage(chunk: Chunk, index: int, feature: Feature, key: str | None) -> Damage:
    value = chunk.table[feature.name][index]
    if isinstance(value, pl.Series):
        value = value.to_list()
    must = kind_of(feature.kind).must(feature)
    named = None if key is None else chunk.table[key][index]
    reason = f"{shorten(repr(value))} is not {must}"
    if kind_of(feature.kind).NUMBERS and isinstance(value, str):
        reason += explain_signs(value, feature.decimal, feature.thousands, feature.unit)
    return Damage(int(chunk.rows[index]), reason, feature.name, named)
