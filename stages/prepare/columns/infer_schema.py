"""Which column is what: kinds and the task, from the types and values of the table."""

import re
from collections.abc import Sequence
from operator import itemgetter

import polars as pl

from stages.common.errors import Problem, UserError, wrong_name
from stages.features.columns import check_categories, undecided
from stages.features.kind import ARRAY, BY_TYPE, kind_of
from stages.features.kinds.datetime import with_format
from stages.features.numbers import Rows
from stages.features.schema import KINDS, Feature, FeatureKind, Schema, Target
from stages.features.spelling import as_line
from stages.formats.text.header import numbered
from stages.prepare.columns.looks import TEXTS
from stages.prepare.columns.strays import stop_at_strays, stop_at_words_among_dates
from stages.prepare.columns.target import LongNumbers, find_target
from stages.prepare.params import Column, PrepareParams

SOURCE = "prepare.source"
# Names that pandas, or both, and R give to the column of a frame's row labels.
_LABELS = re.compile(r"|Unnamed: 0(\.\d+)?|__index_level_\d+__")
_R_LABELS = re.compile(r"[Rr]ow[._]?names?")


def find_schema(
    table: pl.DataFrame,
    params: PrepareParams,
    target: Target | None = None,
    rows: Rows | None = None,
) -> Schema:
    """The schema of `table`, with what only the train split may say (gaps, categories) left open.

    `target` is that of all rows, of which `table` has those of the numbers `rows`; None: all.

    Raises UserError with every column that has to be decided by hand.
    """
    check_names(table.columns, params)
    target = target or find_target([table[params.target]], params.task)
    features: list[Feature] = []
    problems: list[Problem] = []
    for column in table.iter_columns():
        if column.name in (params.target, params.key, params.weight):
            continue
        said = params.column(column.name)
        is_apart = column.name in params.ties().values() or names_rows(column)
        if said.kind == "exclude" or (said.named_kind is None and is_apart):
            continue
        try:
            words = params.missing if said.missing is None else said.missing
            said = said.model_copy(update={"missing": words})
            features.append(find_feature(column, said, rows))
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
    return Schema(
        key=params.key,
        features=features,
        target=target,
        headerless=headerless,
        weight=params.weight,
        ordered=params.ordered,
    )


def names_rows(column: pl.Series) -> bool:
    """Check whether a column holds the row labels that pandas and R write beside the others.

    They are known by their names, and by their values: no two are alike.
    """
    is_r = _R_LABELS.fullmatch(column.name) is not None
    if not is_r and _LABELS.fullmatch(column.name) is None:
        return False
    # R's may be such as 12.3, the third visit of the twelfth patient.
    is_number = column.dtype.is_numeric() if is_r else column.dtype.is_integer()
    labels = is_number or column.dtype == pl.String
    return column.name.startswith("__") or (labels and not column.is_duplicated().any())


def check_names(columns: Sequence[str], params: PrepareParams) -> None:
    """Raise UserError for columns that parameters name, and that do not exist or exclude others."""
    problems = []
    for key, name in params.names_by_key().items():
        if name not in columns:
            message = f"{params.source} has no column '{name}'"
            problems.append(wrong_name(message, name, columns, key))
    ends = () if params.task == "classification" else ("low", "high")
    taken = ("prediction", "target", *ends, *([] if params.weight is None else ["weight"]))
    if params.key in taken or str(params.key).startswith(("probability_", "in_set_")):
        message = f"a column '{params.key}' stands beside the key in predictions.parquet"
        message += ": rename the key in the file, or leave it out (null)"
        problems.append(Problem(message, key="prepare.key", value=params.key))
    for key, name in params.ties().items():
        if name == params.target:
            problems.append(Problem("the target can't divide the rows", key=key, value=name))
    if params.key == params.target:
        problems.append(Problem("the key can't be the target", key="prepare.key"))
    problems += params.find_conflicts()
    if problems:
        raise UserError(*problems)


def find_feature(column: pl.Series, said: Column, rows: Rows | None = None) -> Feature:
    """Describe a column as of the kind that is said, or of the one that it looks like.

    Raises UserError where it can't be told.
    """
    named = "datetime" if said.format is not None else said.named_kind
    words = said.missing or ()
    name = named or guess_kind(column, rows, words)
    kind = kind_of(name)
    key = f"prepare.columns.{column.name}"
    if kind.TYPE != ARRAY and column.null_count() == column.len():
        message = f"the column '{column.name}' is empty: exclude it"
        raise UserError(Problem(message, key=key, allowed=("exclude",)))
    if name == "datetime":
        if column.dtype in TEXTS and not said.calendar:
            stop_at_words_among_dates(column, said.format, rows, words)
        found = with_format(column, said.format, words)
        return found.model_copy(update={"calendar": said.calendar})
    found = kind.infer(column, key)
    if said.places is not None and found.kind != "text":
        message = f"places are for texts, and the column '{column.name}' is {found.kind}"
        raise UserError(Problem(message, f"{key}.places", str(said.places)))
    return found.model_copy(update={"places": said.places})


def _has_files(record: pl.Struct) -> bool:
    """Check for a field `bytes`, as the tables of Hugging Face's datasets have it."""
    return any(field.name == "bytes" and field.dtype == pl.Binary for field in record.fields)


def guess_kind(
    column: pl.Series, rows: Rows | None = None, words: Sequence[object] = ()
) -> FeatureKind:
    """The kind that is surest of a column, the first of several. Raises UserError for none.

    `words` are those for gaps, which the column no longer has.
    """
    sure, kind = max(((kind_of(kind).guess(column), kind) for kind in KINDS), key=itemgetter(0))
    if not sure:
        line = as_line(column.name, "image")
        if column.dtype == pl.Binary:
            raise undecided(column, f"holds bytes: if they are files of images, {line}")
        if isinstance(column.dtype, pl.Struct) and _has_files(column.dtype):
            one = f"pl.col({column.name!r}).struct.field('bytes').alias({column.name!r})"
            raise undecided(
                column,
                f"holds records with the bytes of a file: keep these, in Polars "
                f"table.with_columns({one}); if they are images, {line}",
            )
        if column.dtype == pl.Struct:
            remedy = f"flatten it before, in Polars: table.unnest({column.name!r}) (docs/files.md)"
            raise undecided(column, f"holds records: {remedy}")
        if column.dtype == pl.Duration:
            remedy = f"in Polars: pl.col({column.name!r}).dt.total_seconds(fractional=True)"
            raise undecided(
                column, f"holds durations: write a number of seconds in the file, {remedy}"
            )
        raise undecided(column, f"is of type {column.dtype}, which no model here reads")
    long = LongNumbers()
    long.add(column)
    long.stop(f"prepare.columns.{column.name}")
    if sure <= BY_TYPE and column.dtype in TEXTS:
        stop_at_strays(column, rows, words)
    if kind == "categorical":
        check_categories(column)
    return kind
