"""The signs of numbers in new rows, where a file has others than training: `22,5` for `22.5`.

A column of texts is read with other signs where they are the only ones in which every text of the
whole file is a number, as prepare decides it; nan and inf are numbers in all. A file that mixes
them keeps those of training: rows that do not have these are set aside. The first chunk shows
whether a file has other signs: one text there is enough for the column, and where only later ones
have them, their rows are set aside.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import combinations

import polars as pl

from stages.common.errors import Problem, UserError, shorten
from stages.features.kind import kind_of
from stages.features.schema import Feature, Schema
from stages.features.spelling import PLAIN_SIGNS, WRITINGS, Signs, number_pattern, show_signs
from stages.features.written import drop_feature_words, drop_unit, read_numbers
from stages.formats.chunk import Chunk

_NO_DIGITS = r"(?i)^[+-]?(?:nan|inf|infinity)$"


def find_differing(table: pl.DataFrame, schema: Schema) -> list[Feature]:
    """The columns of numbers with a text that other signs than those of training make a number."""
    return [
        feature
        for feature in schema.features
        if kind_of(feature.kind).NUMBERS and _differs(table[feature.name], feature)
    ]


def _differs(column: pl.Series, feature: Feature) -> bool:
    texts = _bare(column, feature).drop_nulls()
    others = texts.filter(~texts.str.contains(number_pattern(*_trained(feature))))
    return any(others.str.contains(number_pattern(*signs)).any() for signs in WRITINGS)


def as_texts(schema: Schema, features: Iterable[Feature]) -> Schema:
    """`schema` by which readers give the values of these columns as texts."""
    return with_signs(schema, {feature.name: _trained(feature) for feature in features})


def with_signs(schema: Schema, signs: Mapping[str, Signs]) -> Schema:
    """`schema` with other signs of numbers, by the column's name."""
    features = []
    for feature in schema.features:
        decimal, thousands = signs.get(feature.name, (feature.decimal, feature.thousands))
        changes = {"decimal": decimal, "thousands": thousands}
        features.append(feature.model_copy(update=changes))
    return schema.model_copy(update={"features": features})


def find_signs(chunks: Iterable[Chunk], features: list[Feature], key: str) -> dict[str, Signs]:
    """The signs of each of these columns by its name, except where those of training are kept.

    Raises UserError where two fit all texts of the file, and give other numbers.
    """
    found = [_Fitting(feature) for feature in features]
    for chunk in chunks:
        for fitting in found:
            _narrow(fitting, chunk)
    problems = [problem for fitting in found if (problem := _ambiguous(fitting, key)) is not None]
    if problems:
        raise UserError(*problems)
    return {fitting.feature.name: fitting.signs[0] for fitting in found if fitting.signs}


def read_signed(table: pl.DataFrame, schema: Schema, signs: Mapping[str, Signs]) -> pl.DataFrame:
    """The table with numbers for the texts of columns that have these signs."""
    return table.with_columns(
        read_numbers(drop_feature_words(each, table[each.name]), *signs[each.name], each.unit)
        for each in schema.features
        if each.name in signs and table[each.name].dtype == pl.String
    )


def tell_signs(schema: Schema, signs: Mapping[str, Signs]) -> Iterator[str]:
    """Yield a line for each column that has other signs than training."""
    for feature in schema.features:
        if feature.name in signs:
            found = show_signs(*signs[feature.name], feature.unit)
            trained = show_signs(*_trained(feature), feature.unit)
            yield f"'{feature.name}' holds numbers written as {found}, in training as {trained}"


@dataclass
class _Fitting:
    """The signs that fit all texts of a column so far, and where two of them give other numbers.

    `differing` has the text and the number of its row.
    """

    feature: Feature
    signs: list[Signs] = field(default_factory=lambda: [PLAIN_SIGNS, *WRITINGS])
    differing: dict[tuple[Signs, Signs], tuple[str, int]] = field(default_factory=dict)


def _narrow(fitting: _Fitting, chunk: Chunk) -> None:
    """Keep the signs that fit the texts of a chunk, too."""
    column = chunk.table[fitting.feature.name]
    if column.dtype != pl.String:
        return
    texts = _bare(column, fitting.feature)
    lost = texts.is_null() & drop_feature_words(fitting.feature, column).is_not_null()
    if lost.any():
        fitting.signs = []
    filled = texts.filter(~texts.str.contains(_NO_DIGITS))
    fitting.signs = [s for s in fitting.signs if filled.str.contains(number_pattern(*s)).all()]
    values = {signs: read_numbers(texts, *signs) for signs in fitting.signs}
    for pair in combinations(fitting.signs, 2):
        differs = (values[pair[0]] != values[pair[1]]).arg_true()
        if len(differs) and pair not in fitting.differing:
            place = int(differs[0])
            fitting.differing[pair] = str(column[place]), int(chunk.rows[place])


def _ambiguous(fitting: _Fitting, key: str) -> Problem | None:
    """The question which of two ways of writing is meant; None where all give the same numbers."""
    pair = next((p for p in combinations(fitting.signs, 2) if p in fitting.differing), None)
    if pair is None:
        return None
    feature, (text, row) = fitting.feature, fitting.differing[pair]
    bare = _bare(pl.Series(feature.name, [text]), feature)
    one, other = (f"{read_numbers(bare, *signs)[0]:g}" for signs in pair)
    trained = show_signs(*_trained(feature), feature.unit)
    message = (
        f"the column '{feature.name}' holds numbers that are not written as in training, "
        f"{trained}, and may be read in two ways: {shorten(repr(text))} (row {row}) is {one} or "
        f"{other}; write them as {trained} in the file"
    )
    return Problem(message, key=key)


def _trained(feature: Feature) -> Signs:
    return PLAIN_SIGNS if feature.decimal is None else (feature.decimal, feature.thousands)


def _bare(column: pl.Series, feature: Feature) -> pl.Series:
    """The texts without words for gaps and without the unit; of a column of numbers none."""
    if column.dtype != pl.String:
        return pl.Series(column.name, [None], pl.String)
    texts = drop_feature_words(feature, column)
    return texts if feature.unit is None else drop_unit(texts, feature.unit)
