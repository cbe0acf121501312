"""Which column is what: kinds and the task, from the types and values of the table."""

import re
from collections.abc import Callable
from operator import itemgetter

import polars as pl

from stages.common.errors import Problem, UserError, wrong_name
from stages.features.columns import as_category, as_numeric, check_categories, undecided
from stages.features.kind import ARRAY, BY_TYPE, kind_of
from stages.features.kinds.datetime import with_format
from stages.features.schema import KINDS, Class, Feature, FeatureKind, Schema, Target
from stages.features.spelling import as_line
from stages.formats.text.header import numbered
from stages.prepare.doubts import TEXTS, stop_at_strays
from stages.prepare.params import Column, PrepareParams

SOURCE = "prepare.source"
# An integer target with at most this many values, each on average in 20 rows, is a class.
MAX_INTEGER_CLASSES = 20
MIN_ROWS_PER_CLASS = 3
# Beyond it float64 has no longer a number of its own for each whole number.
MAX_WHOLE = 2**53
# Names that pandas and R give to the column of a frame's row labels.
_LABELS = re.compile(r"|Unnamed: 0(\.\d+)?|__index_level_\d+__")


def find_schema(table: pl.DataFrame, params: PrepareParams) -> Schema:
    """The schema of `table`, with what only the train split may say (gaps, categories) left open.

    Raises UserError with every column that has to be decided by hand.
    """
    _check_names(table, params)
    target = find_target(table[params.target], params.task)
    features: list[Feature] = []
    problems: list[Problem] = []
    for column in table.iter_columns():
        if column.name in (params.target, params.key):
            continue
        said = params.column(column.name)
        is_apart = column.name in params.ties().values() or names_rows(column)
        if said.kind == "exclude" or (said.kind is None and is_apart):
            continue
        try:
            features.append(find_feature(column, said))
        except UserError as error:
            problems += error.problems
    if problems:
        raise UserError(*problems)
    if not features:
        raise UserError(Problem("no column is left to learn from", key="prepare.columns"))
    images = [feature.name for feature in features if feature.is_array]
    if len(images) > 1:
        message = f"there are {len(images)} image columns ({', '.join(images)}); a model takes one"
        raise UserError(Problem(message + ": exclude the others", key="prepare.columns"))
    headerless = table.width if table.columns == numbered(table.width) else None
    return Schema(key=params.key, features=features, target=target, headerless=headerless)


def names_rows(column: pl.Series) -> bool:
    """Check whether a column holds the row labels that pandas and R write beside the others.

    They are known by their names, and by their values: no two are alike.
    """
    if _LABELS.fullmatch(column.name) is None:
        return False
    labels = column.dtype.is_integer() or column.dtype == pl.String
    return column.name.startswith("__") or (labels and not column.is_duplicated().any())


def _check_names(table: pl.DataFrame, params: PrepareParams) -> None:
    problems = []
    named = {"prepare.target": params.target}
    named |= {} if params.key is None else {"prepare.key": params.key}
    named |= {f"prepare.columns.{name}": name for name in params.columns}
    named |= params.ties()
    for key, name in named.items():
        if name not in table.columns:
            message = f"{params.source} has no column '{name}'"
            problems.append(wrong_name(message, name, table.columns, key))
    if params.key in ("prediction", "target") or str(params.key).startswith("probability_"):
        message = f"a column '{params.key}' stands beside the key in predictions.parquet"
        message += ": rename the key in the file, or leave it out (null)"
        problems.append(Problem(message, key="prepare.key", value=params.key))
    for key, name in params.ties().items():
        if name == params.target:
            problems.append(Problem("the target can't divide the rows", key=key, value=name))
    if params.key == params.target:
        problems.append(Problem("the key can't be the target", key="prepare.key"))
    if problems:
        raise UserError(*problems)


def find_feature(column: pl.Series, said: Column) -> Feature:
    """Describe a column as of the kind that is said, or of the one that it looks like.

    Raises UserError where it can't be told.
    """
    named = "datetime" if said.format is not None else said.kind
    kind = kind_of(named or guess_kind(column))
    key = f"prepare.columns.{column.name}"
    if kind.TYPE != ARRAY and column.null_count() == column.len():
        message = f"the column '{column.name}' is empty: exclude it"
        raise UserError(Problem(message, key=key, allowed=("exclude",)))
    if said.format is not None:
        return with_format(column, said.format)
    return kind.infer(column, key)


def guess_kind(column: pl.Series) -> FeatureKind:
    """The kind that is surest of a column, the first of several. Raises UserError for none."""
    sure, kind = max(((kind_of(kind).guess(column), kind) for kind in KINDS), key=itemgetter(0))
    if not sure:
        raise undecided(column, f"is of type {column.dtype}, which no model here reads")
    _stop_at_long(column, f"prepare.columns.{column.name}")
    if sure <= BY_TYPE and column.dtype in TEXTS:
        stop_at_strays(column)
    if kind == "categorical":
        check_categories(column)
    return kind


def _stop_at_long(column: pl.Series, key: str) -> None:
    """Raise UserError at whole numbers of which a model would take several for one."""
    if not column.dtype.is_integer():
        return
    wide = column.cast(pl.Int128)
    long = ((wide > MAX_WHOLE) | (wide < -MAX_WHOLE)).fill_null(value=False)
    if long.any():
        row = int(long.arg_true()[0])
        message = (
            f"the column '{column.name}' looks like an id: {long.sum()} of its whole numbers are "
            f"beyond 2^53, such as {column[row]} (row {row}), where a model takes neighbours for "
            "one"
        )
        if key == "prepare.target":
            raise UserError(Problem(message, key=key, value=column.name))
        message += f"; leave it out: {as_line(column.name, 'exclude')}, or name it in prepare.key"
        raise UserError(Problem(message, key=key, allowed=("exclude", "numeric", "categorical")))


def find_target(column: pl.Series, task: str) -> Target:
    """The task and the classes. Raises UserError for gaps, and where there is nothing to learn."""
    if column.dtype.is_nested():
        message = f"the target '{column.name}' is of type {column.dtype}, not a class or a value"
        raise UserError(Problem(message, key="prepare.target", value=column.name))
    if column.dtype.is_float():
        column = as_numeric(column, "prepare.target")
    if column.null_count():
        rows = column.is_null().arg_true().head(5).to_list()
        message = (
            f"the target '{column.name}' is empty in {column.null_count()} rows "
            f"(the first: {rows}); write drop_missing_target: true to leave them out, or put them "
            "in"
        )
        raise UserError(Problem(message, key="prepare.drop_missing_target", value="false"))
    if task == "auto":
        task = _guess_task(column)
    if task == "regression":
        _stop_at_long(column, "prepare.target")
        as_numeric(column, "prepare.target")
        if column.n_unique() < 2:
            raise UserError(_constant(column))
        return Target(name=column.name, task="regression")
    return Target(name=column.name, task="classification", classes=_find_classes(column))


def _guess_task(column: pl.Series) -> str:
    if column.dtype.is_float() or column.dtype == pl.Decimal:
        return "regression"
    if column.dtype.is_integer():
        num_values = column.n_unique()
        few = num_values <= min(MAX_INTEGER_CLASSES, column.len() // 20)
        return "classification" if few else "regression"
    return "classification"


def _find_classes(column: pl.Series) -> list[Class]:
    """The classes in sorted order; of whole numbers, booleans or texts."""
    as_class: Callable[[object], Class] = str
    if column.dtype == pl.Boolean:
        as_class = bool
    elif column.dtype.is_integer():
        as_class = int  # type: ignore[assignment]
    else:
        column = as_category(column)
    counts = {as_class(value): count for value, count in column.value_counts().rows()}
    if len(counts) < 2:
        raise UserError(_constant(column))
    rare = sorted((str(name), n) for name, n in counts.items() if n < MIN_ROWS_PER_CLASS)
    if rare:
        shown = ", ".join(f"'{name}' ({n})" for name, n in rare[:5])
        message = (
            f"{len(rare)} classes of the target '{column.name}' have fewer than "
            f"{MIN_ROWS_PER_CLASS} rows, too few for three splits: {shown}"
        )
        message += "; is it a number to predict? Then the task is regression"
        allowed = ("auto", "regression", "classification")
        raise UserError(Problem(message, key="prepare.task", allowed=allowed))
    return sorted(counts)


def _constant(column: pl.Series) -> Problem:
    message = f"the target '{column.name}' is {column[0]!r} in every row: nothing to learn"
    return Problem(message, key="prepare.target", value=column.name)
