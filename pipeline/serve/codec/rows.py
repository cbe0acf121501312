"""Rows by column name to the inputs of the bundle, and its outputs to predictions by row."""

from collections.abc import Callable, Container, Iterator
from itertools import chain, compress, islice
from operator import itemgetter
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.serve.codec.problems import MAX_DETAILS, Detail, RequestError, show, wrong_rows
from pipeline.serve.codec.signature import Input, Signature
from stages.common.errors import did_you_mean
from stages.features.kind import kind_of
from stages.features.kinds.numeric import COMPUTABLE, bounds
from stages.features.spelling import is_word, word_numbers

Arrays = dict[str, npt.NDArray[Any]]
Row = dict[str, object]
# A longer number would not come back as it was sent.
KEY = "a text, a truth, null or a number, which as a whole one fits into 64 bits"
# What NumPy reads as `numeric.read_values` does.
PLAIN = {float, int, bool, type(None)}


def make_encoder(signature: Signature) -> Callable[[list[Row]], Arrays]:
    """The function from rows to feeds by the input's name, each (rows, ...).

    It raises RequestError 422 with the row and the column of what is wrong.
    """
    numeric = [each for each in signature.inputs if _is_plain(each)]
    others = [each for each in signature.inputs if not _is_plain(each)]
    encode_numbers = _numbers_encoder(numeric) if numeric else None
    key, wanted = signature.key, {each.column for each in signature.inputs}

    def encode(rows: list[Row]) -> Arrays:
        try:
            feeds = {} if encode_numbers is None else encode_numbers(rows)
            for each in others:
                feeds[each.name] = _read_column(rows, each)
            if key is not None and not all(_is_key(row.get(key)) for row in rows):
                raise ValueError(KEY)
        except (KeyError, ValueError, TypeError, OverflowError):
            # A name in a file may have blanks around it, which are no part of the column's.
            plain = [_strip_names(row, wanted) for row in rows]
            if any(new is not row for new, row in zip(plain, rows, strict=True)):
                return encode(plain)
            # Which rows they are is looked for only now.
            raise wrong_rows(_find_wrong(rows, signature.inputs, key)) from None
        return feeds

    return encode


def _strip_names(row: Row, wanted: Container[str]) -> Row:
    """The row without blanks around the names of columns, as lines of text are read; or itself.

    Those that are `wanted` with their blanks keep them.
    """
    if not isinstance(row, dict) or all(name in wanted or name == name.strip() for name in row):
        return row
    plain = {name if name in wanted else name.strip(): value for name, value in row.items()}
    return plain if len(plain) == len(row) else row


def _is_plain(each: Input) -> bool:
    """Check whether it is a number, and no number stands for a gap."""
    return each.kind == "numeric" and not word_numbers(each.missing_words)


def _numbers_encoder(inputs: list[Input]) -> Callable[[list[Row]], Arrays]:
    """All columns of numbers at once: a table is mostly that, and most values are numbers."""
    # Of one column alone it would give a value in place of a tuple.
    pick = itemgetter(*(each.column for each in inputs), *(each.column for each in inputs[:1]))
    names = [each.name for each in inputs]
    low, high = np.array([bounds(each) for each in inputs]).reshape(-1, 2).T[:, :, None]

    def encode(rows: list[Row]) -> Arrays:
        values = list(chain.from_iterable(map(pick, rows)))
        kinds = set(map(type, values))
        if not kinds <= PLAIN:
            return {each.name: _read_column(rows, each) for each in inputs}
        # Twice as fast, but it knows no None.
        flat = (
            np.array(values, np.float64) if type(None) in kinds else np.fromiter(values, np.float64)
        )
        table = flat.reshape(len(rows), -1).T[:-1].copy()
        fits = (table >= low) & (table <= high)
        # Gaps fit nowhere.
        if not fits.all() and not (fits | ~np.isfinite(table)).all():
            raise ValueError(COMPUTABLE)
        return dict(zip(names, table, strict=True))

    return encode


def check_rows(content: object, max_rows: int) -> list[Row]:
    """The rows in a request's body. Raises RequestError where it has none, or too many."""
    rows = content.get("rows") if isinstance(content, dict) else None
    if not isinstance(rows, list):
        raise RequestError(422, 'the body must be {"rows": [{"column": value, …}, …]}')
    if not rows:
        raise RequestError(422, "rows must hold at least one row")
    if len(rows) > max_rows:
        raise too_many_rows(len(rows), max_rows)
    return rows


def too_many_rows(num_rows: int, max_rows: int) -> RequestError:
    """The refusal of more rows than a request may have."""
    return RequestError(
        413, f"{num_rows} rows are more than the {max_rows} that a request may have"
    )


def _read_column(rows: list[Row], each: Input) -> npt.NDArray[Any]:
    column, words, numbers = each.column, each.missing_words, each.kind == "numeric"
    values = [row[column] for row in rows]
    if words:
        values = [None if is_word(v, words, numbers=numbers) else v for v in values]
    return kind_of(each.kind).read_values(each, values)


def _is_key(value: object) -> bool:
    """Check that JSON can give a key back as it came."""
    if isinstance(value, int):
        return -(2**63) <= value < 2**64
    return value is None or isinstance(value, str | float)


def _find_wrong(rows: list[Row], inputs: list[Input], key: str | None) -> list[Detail]:
    """The first wrong places, row by row."""
    details: list[Detail] = []
    for index, row in enumerate(rows):
        if not isinstance(row, dict):
            message = f"{show(row)} is not a row: it must be an object of columns"
            details.append(Detail(index, "", message))
        else:
            # A row may lack thousands of columns, and what is meant takes long to guess.
            details += islice(_find_in_row(index, row, inputs), MAX_DETAILS)
            if key is not None and not _is_key(row.get(key)):
                details.append(Detail(index, key, f"{show(row[key])} is not {KEY}"))
        if len(details) >= MAX_DETAILS:
            break
    assert details, "a row was refused for no reason"
    return details


def _find_in_row(index: int, row: Row, inputs: list[Input]) -> Iterator[Detail]:
    for each in inputs:
        column = each.column
        if column in row:
            try:
                _read_column([row], each)
            except (ValueError, TypeError) as error:
                yield Detail(index, column, f"{show(row[column])} is not {error}")
            continue
        known = {each.column for each in inputs}
        others = [name for name in row if name not in known][:MAX_DETAILS]
        meant = did_you_mean(column, others)
        found = "" if meant is None else f"; '{meant}' is no column of this model"
        message = f"it is missing (a gap is null){found}"
        yield Detail(index, column, message, None if meant is None else column)


def decode(signature: Signature, outputs: list[npt.NDArray[Any]], rows: list[Row]) -> list[Row]:
    """A prediction for each row: its key if there is one, the prediction, the probabilities.

    With the interval or the set of classes where the model has one.
    """
    found: list[Row] = [{"prediction": value} for value in outputs[0].tolist()]
    names = signature.class_names
    for output, values in zip(signature.outputs[1:], outputs[1:], strict=True):
        for answer, value in zip(found, values.tolist(), strict=True):
            if output.name == "probabilities":
                answer[output.name] = dict(zip(names, value, strict=True))
            elif output.name == "in_set":
                answer["set"] = list(compress(signature.classes or (), value))
            else:
                answer[output.name] = value
    key = signature.key
    if key is None:
        return found
    return [
        {key: row[key], **answer} if key in row else answer
        for row, answer in zip(rows, found, strict=True)
    ]
