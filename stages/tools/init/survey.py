"""A look at the whole of a source: the role of each column, the task, and what to write."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import polars as pl

from stages.common.config import validate
from stages.common.counts import either
from stages.common.errors import UserError
from stages.features.numbers import Rows
from stages.features.schema import Schema, Target
from stages.features.written import drop_words
from stages.prepare.columns.doubts import find_doubts
from stages.prepare.columns.infer_schema import find_feature, find_schema, names_rows
from stages.prepare.columns.looks import TEXTS, has_target
from stages.prepare.columns.parts import say_files
from stages.prepare.columns.strays import stray_gaps
from stages.prepare.columns.target import encode_classes, find_target
from stages.prepare.columns.units import describe_signs, find_unit, with_signs
from stages.prepare.columns.variants import find_variants
from stages.prepare.columns.written import gap_words, read_written, with_written
from stages.prepare.params import Column as Settings
from stages.prepare.params import PrepareParams
from stages.prepare.rows.keys import find_keys
from stages.prepare.rows.weights import describe_weights, find_weights
from stages.prepare.table.dots import signed_columns
from stages.prepare.table.long_table import apply_writing
from stages.prepare.table.open_table import open_table
from stages.prepare.table.sample import take_sample
from stages.prepare.table.table import Table
from stages.prepare.table.total import stop_at_total
from stages.tools.expect.draft import draft_suite
from stages.tools.init import roles
from stages.tools.init.choose import TEXT_VALIDATION, Facts, choose, texts_alone
from stages.tools.init.columns import (
    LEFT_OUT,
    Column,
    describe,
    say_kind,
    say_looks,
    say_words,
    stop_at_none,
)
from stages.tools.init.counts import Counts, count_all, find_equal, is_unique
from stages.tools.init.images import are_bytes, count_train, find_layout
from stages.tools.init.leaks import Numbers, as_answers, judge_leak
from stages.tools.init.manifest import judge_paths
from stages.tools.init.options import COLUMN, Options, Setting, check_named, with_gaps, words_alone
from stages.tools.init.repeats import judge_repeats
from stages.tools.init.target import say_tail, why_task
from stages.tools.init.times import describe_time, judge_groups, stop_at_few_groups
from stages.tools.init.values import all_values, prepare_values

CLASSES = "classification"
# Of a table that memory does not hold, the parts lie here meanwhile.
FOLDER = Path(".reprise")
# Columns that the command line or their names ask for.
NAMED = ("key", "group", "time")


def survey(options: Options) -> dict[str, Any]:
    """The findings and the values to write, as JSON holds them.

    Raises UserError for a source that can't be read, and for columns that it does not have.
    """
    FOLDER.mkdir(exist_ok=True)
    with TemporaryDirectory(dir=FOLDER, prefix="init-") as folder:
        return _survey(options, Path(folder))


def _survey(options: Options, folder: Path) -> dict[str, Any]:
    notes: list[str] = []
    said = options.settings()
    signed = signed_columns(_as_params(said, options).columns)
    table = open_table(Path(options.source), "PATH", folder, notes.append, as_text=signed)
    check_named(table.schema, options, said)
    sample = take_sample(table, [])
    settings, reasons = _settings(sample.table, options, said, has_commas=table.has_commas)
    params = _as_params(settings, options)
    table, sample, written, lines = apply_writing(table, sample, params)
    stop_at_total(table, "PATH")
    find_keys(table, options.key)
    layout = find_layout(table, sample.table, params, notes)
    table, looked = layout.table, layout.looked
    counts = count_all(table)
    if looked.height < table.height:
        notes.append(f"note: what columns are is judged by {looked.height:,} rows")
    usable = np.concatenate([has_target(p).to_numpy() for p in table.column_parts(options.target)])
    if num_gaps := int((~usable).sum()):
        what = f"{num_gaps:,} of {table.height:,} rows {either(num_gaps, 'has', 'have')} no"
        notes.append(f"note: {what} '{options.target}': left out, by drop_missing_target: true")
    labelled = table.where(usable)
    source_rows = np.flatnonzero(usable)
    words = gap_words(options.target, params)
    parts = labelled.column_parts(options.target)
    target = find_target(parts, options.task or "auto", source_rows, words)
    rows, is_seen = sample.rows[: looked.height], has_target(looked[options.target])
    seen, seen_rows = looked.filter(is_seen), rows[is_seen.to_numpy()]
    answers = as_answers(seen[options.target], is_class=target.classes is not None)
    columns = []
    for column in looked.iter_columns():
        if column.name in reasons:
            line = _left_out(column, reasons[column.name])
        else:
            known = layout.columns.get(column.name)
            line = known or _look_at(
                column, rows, seen, answers, target, options, table, counts, said, settings
            )
            line = replace(line, setting=with_gaps(line.setting, settings.get(column.name)))
            if (
                isinstance(line.setting, dict)
                and "unit" in line.setting
                and line.setting != said.get(line.name)
            ):
                line = replace(line, why=f"{line.why}; {describe_signs(line.setting)}")
        gaps, distinct = counts.gaps[column.name], counts.distinct[column.name]
        columns.append(replace(line, missing=gaps, distinct=distinct))
    columns = list(_without_copies(columns, looked, table, said))
    stop_at_none(columns)
    prepare = prepare_values(columns, options, target, has_gaps=not usable.all())
    if options.target in written and written[options.target].decimal is not None:
        # A class that stands as a text would stay one by its name; here texts became numbers.
        prepare["task"] = options.task or "auto"
    params = PrepareParams.model_validate(prepare | layout.prepare)
    schema = with_written(find_schema(seen, params, target, seen_rows), written)
    if params.weight is not None:
        weights = find_weights(labelled.column(params.weight), source_rows)
        lines.append(describe_weights(params.weight, weights))
    if texts_alone(schema):
        split = params.split.model_copy(update={"validation": TEXT_VALIDATION})
        params = params.model_copy(update={"split": split})
    groups = None if options.group is None else counts.distinct[options.group]
    stop_at_few_groups(groups, params)
    order = judge_groups(labelled, params)
    lines += say_tail(seen[options.target], target)
    num_train = count_train(layout, labelled.height, params)
    found = {choice.key for choice in layout.choices}
    chosen = choose(_facts(schema, labelled, num_train, groups, options.group))
    choices = [*layout.choices, *(choice for choice in chosen if choice.key not in found)]
    return {
        "source": options.source,
        "num_rows": table.height,
        "notes": [*notes, *lines],
        "columns": [asdict(column) for column in columns],
        "warnings": [
            *(line for column in columns for line in column.warnings),
            *order,
            *([] if params.split.column else say_files(Path(options.source))),
            *find_doubts(seen, schema, params.columns, seen_rows),
            *find_variants(seen, schema, params),
        ],
        "task": {
            "name": target.task,
            "why": why_task(seen[options.target], target, options, counts),
        },
        "choices": [asdict(choice) for choice in choices],
        "values": all_values(prepare, choices),
        "expectations": draft_suite(table, schema),
    }


def _settings(
    table: pl.DataFrame, options: Options, said: Mapping[str, Setting], *, has_commas: bool
) -> tuple[dict[str, Setting], dict[str, str]]:
    """The settings with which prepare can read each column; the reasons of those it can't."""
    settings, reasons = dict(said), {}
    for column in table.iter_columns():
        # What has a type is read as it is.
        if column.name == options.key or (column.name not in said and column.dtype not in TEXTS):
            continue
        if column.name not in said and (
            found := stray_gaps(column, may_be_most=column.name != options.target)
        ):
            settings[column.name] = {"missing": found}
        words = words_alone(settings.get(column.name))
        unit = None
        if words is not None and column.name not in (options.group, options.time):
            unit = find_unit(drop_words(column, list(map(str, words)), numbers=False))
        if unit is not None and (column.name != options.target or options.task != CLASSES):
            kind = {} if column.name == options.weight else {"kind": "numeric"}
            gaps = {"missing": words} if words else {}
            settings[column.name] = setting = {**kind, "unit": unit, **gaps}
        params = _as_params(settings, options)
        try:
            _, written, _ = read_written(table.select(column.name), params, has_commas=has_commas)
            if unit is not None and settings.get(column.name) is setting:
                settings[column.name] = with_signs(setting, written[column.name])
        except UserError as error:
            if column.name in (options.target, options.weight, *said):
                raise
            settings[column.name] = "exclude"
            reasons[column.name] = error.problems[0].message
    return settings, reasons


def _as_params(settings: Mapping[str, Setting], options: Options) -> PrepareParams:
    """The section `prepare` so far."""
    values = prepare_values([], options, None, has_gaps=False)
    return validate(PrepareParams, values | {"columns": settings, "key": options.key}, "prepare")


def _look_at(
    column: pl.Series,
    rows: Rows,
    seen: pl.DataFrame,
    answers: Numbers,
    target: Target,
    options: Options,
    table: Table,
    counts: Counts,
    said: Mapping[str, Setting],
    settings: Mapping[str, Setting],
) -> Column:
    """The role of one column, by the first rule that fits.

    `rows` (rows,) are the numbers of its values in the source, `seen` those rows that have a
    target and `answers` (rows,) these targets, `table` is all, `counts` are of it, and `said` are
    the settings of the command line, `settings` those found, too.
    """
    name = column.name
    if name == target.name:
        what = "a class" if target.classes is not None else "an amount"
        return describe(column, "target", f"--target; {what}")
    if name == options.time:
        return describe_time(column, said.get(name))
    for option in ("key", "group", "weight"):
        if name == getattr(options, option):
            return describe(column, option, f"--{option}")
    if name in said:
        return _as_said(column, _as_params(said, options).column(name))
    if paths := judge_paths(column, Path(options.source), target.name):
        return paths
    if names_rows(column):
        return _left_out(column, "row labels of pandas or R", is_known=True)
    if options.key is None and roles.is_key(column, rows) and is_unique(table, name):
        return describe(column, "key", "one value each, by its name or as their number")
    if seen.height < column.len() and seen[name].n_unique() < 2:
        return _left_out(column, "one value in every row that has a target")
    if counts.is_constant(name):
        return _left_out(column, "one value in every row: nothing to learn")
    if roles.counts_up(column, rows):
        return _left_out(column, "numbers the rows: the order of the file")
    try:
        feature = find_feature(column, Settings(missing=words_alone(settings.get(name))))
    except UserError as error:
        return _left_out(column, say_looks(column) or error.problems[0].message)
    if feature.kind == "categorical" and roles.names_hardly_repeat(column):
        num, total = column.drop_nulls().n_unique(), column.count()
        why = f"{num:,} different texts in {total:,} rows: categories that say nothing of new rows"
        return _left_out(column, say_looks(column) or f"{why}{say_words(column)}")
    line = describe(column, feature.kind, say_kind(feature, column))
    return judge_repeats(column, judge_leak(line, seen[name], answers), options)


def _as_said(column: pl.Series, said: Settings) -> Column:
    """The line of a column that the command line decides. Raises UserError where it can't be so."""
    if said.kind == "exclude":
        return _left_out(column, COLUMN, is_known=True)
    feature = find_feature(column, said)
    return describe(column, feature.kind, f"{COLUMN}; {say_kind(feature, column)}")


def _left_out(column: pl.Series, why: str, *, is_known: bool = False) -> Column:
    """A column that nothing is learned from; `is_known`: prepare leaves it out by itself."""
    first, *_ = why.split("\n")
    line = describe(column, LEFT_OUT, first, None if is_known else "exclude")
    return line if first == why else replace(line, warnings=[why])


def _without_copies(
    columns: list[Column], looked: pl.DataFrame, table: Table, said: Collection[str]
) -> Iterator[Column]:
    """The columns; a copy of an earlier one is left out if not `said`, and one key is enough."""
    learned = [c.name for c in columns if c.role not in (LEFT_OUT, "target", "weight")]
    copies = dict(find_equal(table, list(roles.find_copies(looked.select(learned)))))
    key = next((c.name for c in columns if c.role == "key"), None)
    for column in columns:
        if column.role == "key" and column.name != key:
            why = roles.say_another_key(column.name)
            yield replace(column, role=LEFT_OUT, why=why, setting="exclude")
        elif column.name in copies and column.role not in NAMED and column.name not in said:
            why = f"the same in each row as '{copies[column.name]}'"
            yield replace(column, role=LEFT_OUT, why=why, setting="exclude")
        else:
            yield column


def _facts(
    schema: Schema, table: Table, num_train: int, groups: int | None, group: str | None
) -> Facts:
    codes = encode_classes(table.column_parts(schema.target.name), schema)
    rarest = None if codes is None else float(np.bincount(codes).min()) / table.height
    images = (table.column_parts(feature.name) for feature in schema.of_kind("image"))
    has_pixels = all(are_bytes(part) for parts in images for part in parts)
    return Facts(schema, num_train, rarest, groups, has_pixels, group)
