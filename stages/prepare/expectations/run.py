"""The suite's expectations, run on the table by Great Expectations; the page of the results.

A critical one that is not met stops the stage; a warning is printed.
"""

import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl
import polars.selectors as cs

from stages.common.errors import Problem, UserError
from stages.common.files import write_json
from stages.prepare.expectations.html import render
from stages.prepare.expectations.result import Outcome, read_outcome
from stages.prepare.expectations.sentences import sentence
from stages.prepare.expectations.suite import Rule, build_expectations, is_nested, read_suite
from stages.prepare.table.table import Table

if TYPE_CHECKING:
    import pandas

# Outside the stage's outputs, which a failure rolls back.
FAILED_PAGE = Path(".reprise/expectations.html")
MAX_FAILURES_SHOWN = 5
MAX_WARNINGS_SHOWN = 10
MAX_EXAMPLES_PRINTED = 3


def check_expectations(table: Table, suite: Path | None, source: str, folder: Path) -> None:
    """Hold `table`, read from `source`, to `suite`; write expectations.json and .html.

    None expects nothing. Prints a line for each warning. Raises UserError for a suite that is
    wrong, and when something critical is not met; the page is then `.reprise/expectations.html`.
    """
    outcomes: list[Outcome] = []
    if suite is not None:
        rules, problems = read_suite(suite)
        outcomes = _run(_needed(table, rules), rules, problems, suite) if rules else []
    warned = [outcome for outcome in outcomes if outcome.status == "warning"]
    for outcome in warned[:MAX_WARNINGS_SHOWN]:
        print(f"warning  {_one_line(outcome)}")
    if len(warned) > MAX_WARNINGS_SHOWN:
        print(f"warning  and {len(warned) - MAX_WARNINGS_SHOWN} more of {suite}")
    page = render(table, outcomes, source, str(suite or "nothing"))
    if any(outcome.status == "failed" for outcome in outcomes):
        FAILED_PAGE.parent.mkdir(exist_ok=True)
        FAILED_PAGE.write_text(page, encoding="utf-8")
        assert suite is not None
        raise _stop(outcomes, suite, source)
    # The page of an earlier failure would now tell what is no longer so.
    FAILED_PAGE.unlink(missing_ok=True)
    (folder / "expectations.html").write_text(page, encoding="utf-8")
    counts = {
        "rows": table.height,
        "columns": len(table.columns),
        "expectations": len(outcomes),
        "passed": len(outcomes) - len(warned),
        "warnings": len(warned),
    }
    write_json(folder / "expectations.json", counts)


def _needed(table: Table, rules: list[Rule | None]) -> pl.DataFrame:
    """The columns that rules are about, and of the others the names alone."""
    if table.is_whole:
        return table.frame()
    named = {name for rule in rules if rule is not None for name in rule.columns.values()}
    columns = {
        name: table.column(name)
        if name in named
        else pl.Series(name, [0], dtype=pl.UInt8).new_from_index(0, table.height)
        for name in table.columns
    }
    return pl.DataFrame(columns)


def _run(
    table: pl.DataFrame, rules: list[Rule | None], problems: list[Problem], suite: Path
) -> list[Outcome]:
    """The outcome of each rule, in their order. Raises UserError for a suite that is wrong."""
    if sys.flags.optimize > 1:
        raise UserError(
            "Great Expectations needs docstrings, which PYTHONOPTIMIZE=2 (python -OO) leaves out\n"
            "  unset PYTHONOPTIMIZE, or set it to 1"
        )
    with warnings.catch_warnings():
        # Deprecations between it and its own libraries, none of them the user's to mend.
        warnings.simplefilter("ignore")
        # Seconds of import: only a suite that holds something waits for it.
        import great_expectations as gx
        from great_expectations.expectations import registry

        names = sorted(registry.list_registered_expectation_implementations())
        classes = {name: registry.get_expectation_impl(name) for name in names}
        try:
            expectations = build_expectations(rules, problems, classes, table, suite)
        except UserError as error:
            raise _of_other_table(error, rules, table, suite) from None
        context = gx.get_context(mode="ephemeral")
        context.variables.progress_bars = {"globally": False, "metric_calculations": False}
        asset = context.data_sources.add_pandas("pandas").add_dataframe_asset("table")
        batch = asset.add_batch_definition_whole_dataframe("whole").get_batch(
            {"dataframe": _to_pandas(table)}
        )
        whole = gx.ExpectationSuite(name="suite", expectations=expectations)
        # SUMMARY: counts, and the first rows that offend, which the table then tells about.
        results = batch.validate(whole, result_format="SUMMARY").results
    # They come back in another order.
    by_place = {result.expectation_config.meta["place"]: result for result in results}
    whole_rules = [rule for rule in rules if rule is not None]
    return [read_outcome(rule, by_place[place], table) for place, rule in enumerate(whole_rules)]


def _of_other_table(
    error: UserError, rules: list[Rule | None], table: pl.DataFrame, suite: Path
) -> UserError:
    """`error`, after the one edit that mends it where most columns that the suite names are not."""
    named = {name for rule in rules if rule is not None for name in rule.columns.values()}
    absent = sorted(named - set(table.columns))
    if 2 * len(absent) <= len(named):
        return error
    shown = ", ".join(repr(name) for name in absent[:MAX_FAILURES_SHOWN])
    message = (
        f"{suite} speaks of columns that the table has not ({shown}): write null until there are "
        "expectations of this table"
    )
    first = Problem(message, "prepare.expectations", str(suite), ("null", "a file"))
    return UserError(first, *error.problems[: MAX_FAILURES_SHOWN - 1])


def _to_pandas(table: pl.DataFrame) -> "pandas.DataFrame":
    """`table` as a pandas frame with every column and row in place.

    Arrays, records and bytes become a hash of their content: enough to tell what is missing
    and what stands twice, which is all that a suite may ask of them. Numbers of more than 64 bits
    (long ids, mostly) become texts.
    """
    flat = table.with_columns(
        cs.decimal().cast(pl.Float64), cs.by_dtype(pl.Int128, pl.UInt128).cast(pl.String)
    )
    for column in table.iter_columns():
        if is_nested(column.dtype):
            texts = column.hash().cast(pl.String)
            flat = flat.with_columns(texts.set(column.is_null(), None).alias(column.name))
    frame = flat.to_pandas()
    for column in flat.iter_columns():
        # With gaps, pandas turns whole numbers into float64, and so two long ids into one; by way
        # of objects it does not.
        if column.dtype.is_integer() and column.null_count():
            objects = column.to_pandas(use_pyarrow_extension_array=True).astype(object)
            frame[column.name] = objects.astype(str(column.dtype))
    return frame


def _one_line(outcome: Outcome) -> str:
    """The expectation, and what was found instead."""
    text = outcome.rule.description or sentence(outcome.rule, "'{}'".format, str)
    text += f": {outcome.finding}"
    if outcome.examples:
        text += f", such as {'; '.join(outcome.examples[:MAX_EXAMPLES_PRINTED])}"
    return text


def _stop(outcomes: list[Outcome], suite: Path, source: str) -> UserError:
    failed = [(place, o) for place, o in enumerate(outcomes) if o.status == "failed"]
    problems: list[Problem | str] = [
        f"{source} does not meet {suite}: {len(failed)} critical of {len(outcomes)} failed"
    ]
    for place, outcome in failed[:MAX_FAILURES_SHOWN]:
        problems.append(Problem(_one_line(outcome), key=f"{place}.type", file=str(suite)))
    if len(failed) > MAX_FAILURES_SHOWN:
        problems.append(f"and {len(failed) - MAX_FAILURES_SHOWN} more")
    problems.append(
        f"all of them, and every column at a glance: {FAILED_PAGE}\n"
        f"correct {source} (prepare.source), or say in {suite} what you really expect"
    )
    return UserError(*problems)
