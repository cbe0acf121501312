"""Columns of texts that look like something else: numbers, dates, names of the rows.

Each different text is a category of its own, which of measurements or of names teaches nothing:
that is said on the screen. What `prepare.columns` says of a column is meant so; of one with words
for gaps alone its other texts are judged.
"""

from collections.abc import Iterator, Mapping

import numpy as np
import numpy.typing as npt
import polars as pl

from stages.features.dates.columns import are_dates
from stages.features.numbers import Rows
from stages.features.schema import CODES, Feature, Schema
from stages.features.spelling import LEADING_ZERO, as_line, as_list, as_name
from stages.features.times import UNIX
from stages.prepare.columns.labels import say_labels
from stages.prepare.columns.looks import (
    DATE,
    LIKELY_GAPS,
    MAJORITY,
    MAX_CODES,
    NUMBER,
    SENTINELS,
    TEXTS,
    WRITTEN,
    are_codes,
    find_zeros,
    like,
    say_line,
    show_examples,
    texts_of,
)
from stages.prepare.columns.mixed import say_mixed
from stages.prepare.columns.parts import names_parts
from stages.prepare.columns.periods import find_periods, say_days, say_short_years
from stages.prepare.columns.units import find_unit
from stages.prepare.params import Column


def find_doubts(
    table: pl.DataFrame,
    schema: Schema,
    said: Mapping[str, str | Column],
    rows: Rows | None = None,
) -> Iterator[str]:
    """A line for each column that is probably not what it is taken for.

    `said` are the settings of columns: with more than words for gaps a column is meant so. `rows`
    (rows,) are the numbers of the rows in their table; None: from 0.
    """
    for feature in schema.features:
        column = table[feature.name]
        setting = said.get(feature.name, Column())
        if isinstance(setting, str) or _is_meant(setting):
            continue
        is_text = feature.kind in CODES and column.dtype in TEXTS
        mixed = say_mixed(column, feature, rows) if is_text else None
        if setting.missing is None and mixed is None:
            yield from _of_gaps(column, feature)
        if feature.kind == "numeric" and column.dtype.is_numeric():
            yield from _of_unix(column)
            yield from filter(None, [say_days(column, feature.missing_words or [])])
        if feature.kind == "datetime":
            yield from filter(None, [say_short_years(column, feature.format)])
        if not feature.name.strip():
            line = as_line(feature.name, "exclude")
            yield f"the column without a name is learned from; if it is none of yours, {line}"
        if mixed is not None:
            yield mixed
        elif is_text:
            yield from _of_texts(column, feature, rows)
        elif column.dtype.is_integer() and _counts_rows(column, rows):
            yield (
                f"'{feature.name}' numbers the rows ({column[0]}, {column[1]}, {column[2]}, …): a "
                "model learns the order of the file from it; name it in prepare.key, or leave it "
                f"out: {as_line(feature.name, 'exclude')}"
            )
    yield from _of_target(table[schema.target.name], schema)
    name = schema.target.name
    if not _is_meant(said.get(name, Column())) and (
        labels := say_labels(name, schema.target.classes or ())
    ):
        yield f"{labels}; if classes are meant, {as_line(name, 'categorical')}"
    for name in filter(None, (schema.key, schema.target.name)):
        if table[name].dtype in TEXTS:
            yield from _of_zeros(texts_of(table[name], rows), name)


def _is_meant(setting: str | Column) -> bool:
    """Check whether more is said of a column than its words for gaps."""
    return isinstance(setting, str) or bool(setting.model_fields_set - {"missing"})


def _of_target(column: pl.Series, schema: Schema) -> Iterator[str]:
    """Yield that each date of a target is a class of its own."""
    classes = schema.target.classes
    if classes is not None and are_dates(column):
        yield (
            f"the target '{column.name}' is dates, and each of the {len(classes)} is a class: to "
            "predict when, write a number of days or of seconds in the file"
        )


def _of_gaps(column: pl.Series, feature: Feature) -> Iterator[str]:
    """Yield what may stand for 'no value' in a column, and isn't said to."""
    counts: list[tuple[object, int]] = []
    if feature.missing_words is None and feature.kind in CODES and column.dtype in TEXTS:
        texts = texts_of(column)["text"]
        found = texts.filter(texts.str.to_lowercase().is_in(LIKELY_GAPS)).value_counts(sort=True)
        counts += found.sort("count", "text", descending=[True, False]).rows()
    elif feature.missing_words is None and column.dtype.is_numeric():
        counts += _sentinels(column)
    if counts:
        shown = ", ".join(f"{count} {word!r}" for word, count in counts)
        what = "categories" if feature.kind in CODES else "numbers"
        line = as_line(column.name, f"{{missing: {as_list([word for word, _ in counts])}}}")
        yield f"'{column.name}' holds {shown}, taken as {what}; if that is no value, {line}"


def _of_unix(column: pl.Series) -> Iterator[str]:
    """Yield a line on numbers that are all seconds since 1970, of 2001 to 2033, or milliseconds."""
    numbers = _numbers(column)
    counts = {
        form: int(((1e9 * each <= numbers) & (numbers <= 2e9 * each)).sum())
        for form, (each, _) in UNIX.items()
    }
    if not len(numbers) or sum(counts.values()) < len(numbers):
        return
    form = max(counts, key=lambda each: counts[each])
    line = as_line(column.name, f"{{kind: datetime, format: {form}}}")
    meant = f"if numbers are meant, {as_line(column.name, 'numeric')}"
    if all(counts.values()):
        shown = " and ".join(f"{counts[form]} {name}" for form, (_, name) in UNIX.items())
        yield (
            f"'{column.name}' seems to hold {shown} since 1970, taken as numbers alike: write all "
            f"of them as {UNIX[form][1]} in the file, and {line}; {meant}"
        )
    else:
        yield (
            f"'{column.name}' seems to hold {UNIX[form][1]} since 1970, taken as numbers; if they "
            f"are dates, {line}; {meant}"
        )


def _numbers(column: pl.Series) -> npt.NDArray[np.float64]:
    """The numbers of a column without its gaps."""
    values: npt.NDArray[np.float64] = column.cast(pl.Float64).to_numpy()
    return values[~np.isnan(values)]


def _sentinels(column: pl.Series) -> list[tuple[object, int]]:
    """Numbers such as -999 that stand alone: below all others, which have no sign, or far above."""
    numbers = _numbers(column)
    found: list[tuple[object, int]] = []
    for word in SENTINELS:
        is_word = numbers == word
        count = int(is_word.sum())
        if count < 2 or count == len(numbers):
            continue
        others = numbers[~is_word]
        low, high = others.min(), others.max()
        if (word < 0 <= low) or (word > 0 and high < word / 10):
            found.append((word, count))
    return found


def _of_texts(column: pl.Series, feature: Feature, rows: Rows | None) -> Iterator[str]:
    """Yield what is to be said of a column of categories."""
    texts = texts_of(column, rows)
    most = MAJORITY * texts.height
    num_different = texts["text"].n_unique()
    categories = f"{num_different} categories"
    known = feature.missing_words or []
    meant = f"if that is meant, {say_line(column.name, known, 'categorical')}"
    left_out = f"or {as_line(column.name, 'exclude')}"
    zeros, dates = like(texts, LEADING_ZERO), like(texts, DATE)
    plain = like(texts, NUMBER) & ~zeros
    numbers = (plain | like(texts, WRITTEN)) & ~dates & ~zeros
    if names_parts(column):
        yield (
            f"'{column.name}' names the parts of a data set, and is learned from as {categories}: "
            f"{show_examples(texts)}; if it says which row is for what, write "
            f"prepare.split: {{seed: 0, validation: 0.15, test: 0.2, column: {as_name(column.name)}"
            f"}}, {left_out}; {meant}"
        )
    elif period := find_periods(texts["text"]):
        what, remedy = period
        yield (
            f"'{column.name}' holds {what}, taken as {categories}: {show_examples(texts)}; "
            f"{remedy}, {left_out}; {meant}"
        )
    elif dates.sum() > most:
        yield (
            f"'{column.name}' holds dates, taken as {categories}: "
            f"{show_examples(texts.filter(dates))}{_others(texts.filter(~dates))}; put what "
            f"matters of them into columns of numbers, {left_out}; {meant}"
        )
    elif unit := find_unit(texts["text"]):
        line = say_line(column.name, known, "numeric", unit)
        yield (
            f"'{column.name}' holds numbers with the unit '{unit}', taken as {categories}: "
            f"{show_examples(texts)}; if they measure something, {line}, {left_out}; {meant}"
        )
    elif numbers.sum() > most and not find_zeros(texts).height:
        # Those first that can't be read as they stand.
        written = numbers & ~plain
        first = show_examples(texts.filter(written if written.any() else plain))
        remedy = f"write them as 1234.5 in the file, {left_out}"
        if plain.all():
            remedy = f"if they measure something, {say_line(column.name, known, 'numeric')}"
        yield (
            f"'{column.name}' holds numbers as texts, taken as {categories}: {first}"
            f"{_others(texts.filter(~numbers))}; {remedy}; {meant}"
        )
    elif num_different > max(MAX_CODES, most):
        yield (
            f"'{column.name}' has {num_different} different texts in {texts.height} rows: "
            f"{show_examples(texts)}; such categories say little of new rows: if they name the "
            f"row, {as_line(column.name, 'exclude')}; {meant}"
        )
    yield from _of_zeros(texts, column.name)


def _of_zeros(texts: pl.DataFrame, name: str) -> Iterator[str]:
    zeros = find_zeros(texts)
    if zeros.height:
        remedy = "; if they measure something, write them without these zeros in the file"
        yield (
            f"'{name}' is kept as text, for its leading zeros: {show_examples(zeros)}"
            f"{'' if are_codes(texts) else remedy}"
        )


def _counts_rows(column: pl.Series, rows: Rows | None) -> bool:
    """Check whether the values go up by one from row to row, as no measurement does.

    `rows` (rows,) are the numbers of the rows in their table; None: from 0.
    """
    if column.len() <= MAX_CODES or column.null_count():
        return False
    numbers = np.arange(column.len()) if rows is None else rows
    ahead = column.cast(pl.Int128) - pl.Series(numbers, dtype=pl.Int128)
    return ahead.n_unique() == 1


def _others(others: pl.DataFrame) -> str:
    return f", and {others.height} others: {show_examples(others)}" if others.height else ""
