"""The suite's expectations, run on the table by Great Expectations; the page of the results.

A critical one that is not met stops the stage; a warning is printed.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from stages.common.addresses import name_objects
from stages.common.errors import Problem, UserError
from stages.common.files import write_json
from stages.parallel.mapper import Mapper
from stages.prepare.expectations.fact_names import OF_IMAGES
from stages.prepare.expectations.great import judge_frame, load_classes, quiet
from stages.prepare.expectations.html import MAX_COLUMNS_SHOWN, render
from stages.prepare.expectations.long.facts import Facts
from stages.prepare.expectations.long.judge import facts_for, judge_long
from stages.prepare.expectations.long.pieces import is_short, take_rows
from stages.prepare.expectations.manifest import named_facts, with_facts
from stages.prepare.expectations.result import Outcome, offending_rows, read_outcome
from stages.prepare.expectations.sentences import sentence
from stages.prepare.expectations.suite import Rule, build_expectations, read_suite, used_columns
from stages.prepare.table.table import Table

# Outside the stage's outputs, which a failure rolls back.
FAILED_PAGE = Path(".reprise/expectations.html")
MAX_FAILURES_SHOWN = 5
MAX_WARNINGS_SHOWN = 10
MAX_EXAMPLES_PRINTED = 3
PAGE = "expectations.html"


@dataclass(frozen=True)
class OtherTable:
    """Another table than the one that prepare reads.

    `folder` is for its page, `leaves_out` tells rules that are not meant for it.
    """

    folder: Path
    leaves_out: Callable[[Rule], bool]


def check_files(
    table: Table, suite: Path | None, source: Path, other: OtherTable | None = None
) -> list[Outcome]:
    """Hold the files and texts of `table`, before they are read, to the rules about facts of them.

    Raises UserError where something critical is not met: then no image need be read.
    """
    if suite is None:
        return []
    rules, problems = read_suite(suite)
    named = {} if problems else named_facts(rules, table.columns)
    if not named:
        return []
    rules = [
        rule if rule is not None and set(rule.columns.values()) & set(named) else None
        for rule in rules
    ]
    folder = source if source.is_dir() else source.parent
    table = with_facts(table, named, folder)
    outcomes, facts = _outcomes(table, rules, [], suite, _files_of(table, named))
    failed_page = FAILED_PAGE if other is None else other.folder / PAGE
    _stop_at_failures(table, outcomes, facts, suite, name_objects(str(source)), failed_page)
    return outcomes


def check_expectations(
    table: Table,
    suite: Path | None,
    source: str,
    folder: Path,
    before: Sequence[Outcome] = (),
    other: OtherTable | None = None,
    mapper: Mapper | None = None,
) -> list[Outcome]:
    """Hold `table`, read from `source`, to `suite`; write expectations.json and .html to `folder`.

    None expects nothing. `before` are the outcomes of its files. Prints a line for each warning.
    Raises UserError for a suite that is wrong, and when something critical is not met; the page is
    then `.reprise/expectations.html`, or of another table than prepare's that of its folder.
    """
    rules, problems = ([], []) if suite is None else read_suite(suite)
    known = {outcome.place for outcome in before}
    for place, rule in enumerate(rules):
        if place in known or (rule and other and other.leaves_out(rule)):
            rules[place] = None
    outcomes, facts = _outcomes(table, rules, problems, suite, {}, mapper)
    outcomes = sorted([*before, *outcomes], key=lambda outcome: outcome.place)
    warned = [outcome for outcome in outcomes if outcome.status == "warning"]
    for outcome in warned[:MAX_WARNINGS_SHOWN]:
        print(f"warning  {_one_line(outcome)}")
    if len(warned) > MAX_WARNINGS_SHOWN:
        print(f"warning  and {len(warned) - MAX_WARNINGS_SHOWN} more of {suite}")
    failed_page = FAILED_PAGE if other is None else other.folder / PAGE
    _stop_at_failures(table, outcomes, facts, suite, source, failed_page)
    # The page of an earlier failure would now tell what is no longer so.
    failed_page.unlink(missing_ok=True)
    page = render(table, outcomes, source, str(suite or "nothing"), facts)
    (folder / PAGE).write_text(page, encoding="utf-8")
    counts = {
        "rows": table.height,
        "columns": len(table.columns),
        "expectations": len(outcomes),
        "passed": len(outcomes) - len(warned),
        "warnings": len(warned),
    }
    write_json(folder / "expectations.json", counts)
    return outcomes


def _outcomes(
    table: Table,
    rules: list[Rule | None],
    problems: list[Problem],
    suite: Path | None,
    files: Mapping[str, str],
    mapper: Mapper | None = None,
) -> tuple[list[Outcome], Mapping[str, Facts]]:
    """The outcome of each rule, and the facts of columns of a table that is not looked at whole."""
    there = [rule for rule in rules if rule is not None]
    expectations: list[Any] = []
    if suite is not None and (there or problems):
        expectations = _build(rules, problems, table, suite)
    facts: Mapping[str, Facts] = {}
    if not is_short(table):
        # Of a table in memory, the page has each column whole.
        shown = [] if table.is_whole else table.columns[:MAX_COLUMNS_SHOWN]
        facts = facts_for(table, there, shown, mapper)
    return _judge(table, there, expectations, facts, files, mapper) if expectations else [], facts


def _stop_at_failures(
    table: Table,
    outcomes: list[Outcome],
    facts: Mapping[str, Facts],
    suite: Path | None,
    source: str,
    page: Path,
) -> None:
    if not any(outcome.status == "failed" for outcome in outcomes):
        return
    assert suite is not None
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(render(table, outcomes, source, str(suite), facts), encoding="utf-8")
    raise _stop(outcomes, suite, source, page)


def _files_of(table: Table, named: Mapping[str, tuple[str, str]]) -> dict[str, str]:
    """The columns of paths, by the facts of their files."""
    return {
        name: column
        for name, (column, fact) in named.items()
        if fact in OF_IMAGES and table.schema[column] == pl.String
    }


def _build(
    rules: list[Rule | None], problems: list[Problem], table: Table, suite: Path
) -> list[Any]:
    """Great Expectations' object of each rule. Raises UserError for a suite that is wrong."""
    classes = load_classes()
    with quiet():
        try:
            return build_expectations(rules, problems, classes, table.schema, suite)
        except UserError as error:
            raise _of_other_table(error, rules, table.columns, suite) from None


def _judge(
    table: Table,
    rules: list[Rule],
    expectations: list[Any],
    facts: Mapping[str, Facts],
    files: Mapping[str, str],
    mapper: Mapper | None = None,
) -> list[Outcome]:
    """The outcome of each rule, in their order; `files` are the columns that name files."""
    if is_short(table):
        results = judge_frame(_needed(table, rules), expectations)
    else:
        results = judge_long(table, rules, expectations, facts, mapper)
    rows = [offending_rows(result) for result in results]
    shown = [
        [
            *dict.fromkeys(
                (*(files[n] for n in rule.columns.values() if n in files), *rule.columns.values())
            )
        ]
        for rule in rules
    ]
    named = {name for names, own in zip(shown, rows, strict=True) if own for name in names}
    numbers = np.array([row for own in rows for row in own], np.int64)
    taken = take_rows(table, named, numbers) if numbers.size else pl.DataFrame()
    outcomes, start = [], 0
    for place, (rule, result, own) in enumerate(zip(rules, results, rows, strict=True)):
        contents = taken[start : start + len(own)].select(shown[place] if own else [])
        outcome = read_outcome(rule, result, own, contents)
        outcomes.append(replace(outcome, place=expectations[place].meta["place"]))
        start += len(own)
    return outcomes


def _needed(table: Table, rules: list[Rule]) -> pl.DataFrame:
    """The columns that rules are about, and of the others the names alone."""
    named = {name for rule in rules for name in used_columns(rule, table.columns)}
    columns = {
        name: table.column(name)
        if name in named
        else pl.Series(name, [0], dtype=pl.UInt8).new_from_index(0, table.height)
        for name in table.columns
    }
    return pl.DataFrame(columns)


def _of_other_table(
    error: UserError, rules: list[Rule | None], columns: Collection[str], suite: Path
) -> UserError:
    """`error`, after the one edit that mends it where most columns that the suite names are not."""
    named = {name for rule in rules if rule is not None for name in rule.columns.values()}
    absent = sorted(named - set(columns))
    if 2 * len(absent) <= len(named):
        return error
    shown = ", ".join(repr(name) for name in absent[:MAX_FAILURES_SHOWN])
    message = (
        f"{suite} speaks of columns that the table has not ({shown}): write null until there are "
        "expectations of this table"
    )
    first = Problem(message, "prepare.expectations", str(suite), ("null", "a file"))
    return UserError(first, *error.problems[: MAX_FAILURES_SHOWN - 1])


def _one_line(outcome: Outcome) -> str:
    """The expectation, and what was found instead."""
    text = outcome.rule.description or sentence(outcome.rule, "'{}'".format, str)
    text += f": {outcome.finding}"
    if outcome.examples:
        text += f", such as {'; '.join(outcome.examples[:MAX_EXAMPLES_PRINTED])}"
    return text


def _stop(outcomes: list[Outcome], suite: Path, source: str, page: Path) -> UserError:
    failed = [outcome for outcome in outcomes if outcome.status == "failed"]
    problems: list[Problem | str] = [
        f"{source} does not meet {suite}: {len(failed)} critical of {len(outcomes)} failed"
    ]
    for outcome in failed[:MAX_FAILURES_SHOWN]:
        problems.append(Problem(_one_line(outcome), key=f"{outcome.place}.type", file=str(suite)))
    if len(failed) > MAX_FAILURES_SHOWN:
        problems.append(f"and {len(failed) - MAX_FAILURES_SHOWN} more")
    named = f"{source} (prepare.source)" if page == FAILED_PAGE else source
    problems.append(
        f"all of them, and every column at a glance: {page}\n"
        f"correct {named}, or say in {suite} what you really expect"
    )
    return UserError(*problems)
