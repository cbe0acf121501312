"""The work behind `reprise expect` on tables and suites: `python -m stages.tools.expect draft|…`.

It writes no file but the page of a check. What is wrong is told on standard error, and ends with 1.
"""

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import polars as pl

from stages.common.addresses import name_objects
from stages.common.counts import counted, either
from stages.common.errors import UserError, format_problem
from stages.common.yamlfile import with_location
from stages.prepare.expectations.fact_names import split_fact
from stages.prepare.expectations.great import load_classes, quiet
from stages.prepare.expectations.run import PAGE, OtherTable, check_expectations, check_files
from stages.prepare.expectations.sentences import sentence
from stages.prepare.expectations.suite import Rule, build_expectations, read_suite
from stages.tools.expect.draft import draft_suite
from stages.tools.expect.drift import draft_drift
from stages.tools.expect.source import PATH, open_source, read_section

# The page of a check, and the figures beside it.
FOLDER = Path(".reprise/expect")


def main() -> None:
    """Do what the first word says."""
    parser = argparse.ArgumentParser(prog="reprise expect")
    commands = parser.add_subparsers(dest="command", required=True)
    draft = commands.add_parser("draft")
    draft.add_argument("--table", type=Path)
    draft.add_argument("--drift", action="store_true")
    check = commands.add_parser("check")
    check.add_argument("path", nargs="?", type=Path)
    check.add_argument("--suite", type=Path)
    commands.add_parser("list").add_argument("suite", type=Path)
    commands.add_parser("try")
    commands_by_name: dict[str, Callable[..., None]] = {
        "draft": _draft,
        "check": _check,
        "list": _list,
        "try": _try,
    }
    options = vars(parser.parse_args())
    try:
        commands_by_name[options.pop("command")](**options)
    except UserError as error:
        for problem in error.problems:
            plain = replace(problem, key=None) if problem.key == PATH else with_location(problem)
            print(name_objects(format_problem(plain)), file=sys.stderr)
        sys.exit(1)


def _draft(table: Path | None, drift: bool) -> None:  # noqa: FBT001
    """Print rules that the table meets, as JSON."""
    with open_source(read_section(), table) as source:
        rules = (draft_drift if drift else draft_suite)(*source.describe())
    print(json.dumps(rules, ensure_ascii=False, default=str))


def _check(path: Path | None, suite: Path | None) -> None:
    """Hold a table to a suite, and say what prepare would."""
    section = read_section()
    if suite is None:
        if section.expectations is None:
            raise UserError(
                "prepare.expectations is null: there is no suite yet\n"
                "  reprise expect draft --write FILE   drafts one from the data"
            )
        suite = Path(section.expectations)
    name = section.source if path is None else str(path)
    FOLDER.mkdir(parents=True, exist_ok=True)
    left_out: list[str] = []
    with open_source(section, path) as source:
        columns = source.raw.columns

        def leaves_out(rule: Rule) -> bool:
            is_left = path is not None and _is_of_training(rule, section.target, columns)
            left_out.extend([rule.type] * is_left)
            return is_left

        other = OtherTable(FOLDER, leaves_out)
        of_files = check_files(source.raw, suite, Path(source.section.source), other)
        outcomes = check_expectations(source.load().table, suite, name, FOLDER, of_files, other)
    passed = sum(outcome.passed for outcome in outcomes)
    if left_out:
        rules = counted(len(left_out), "rule")
        verb = either(len(left_out), "is", "are")
        print(f"note: {rules} about the target or the number of rows {verb} left out")
    print(f"{name}: {passed} of {len(outcomes)} expectations of {suite} met ({FOLDER / PAGE})")


def _is_of_training(rule: Rule, target: str, columns: list[str]) -> bool:
    """Check whether a rule says nothing of new rows: of their number, or of what is predicted."""
    if rule.type.startswith("expect_table_row_count_"):
        return True
    return target not in columns and target in rule.columns.values()


def _list(suite: Path) -> None:
    """Print a line for each rule, with the number by which messages name it."""
    rules, problems = read_suite(suite)
    if problems:
        raise UserError(*problems)
    for place, rule in enumerate(rules):
        assert rule is not None
        said = rule.description or sentence(rule, "'{}'".format, str)
        print(f"{place:3}  {rule.severity:8}  {said}")


def _try() -> None:
    """Check one rule, given as JSON with the names of the columns, without its table."""
    given = json.load(sys.stdin)
    rule = Rule.model_validate(given["rule"])
    # Of a table that could not be looked at, any column may be there.
    own, known = rule.columns.values(), given["columns"]
    names = own if known is None else [*known, *(n for n in own if split_fact(n, known))]
    classes = load_classes()
    with quiet():
        try:
            build_expectations([rule], [], classes, dict.fromkeys(names, pl.String()), Path())
        except UserError as error:
            raise UserError(*(replace(problem, key=None) for problem in error.problems)) from None
    print(sentence(rule, "'{}'".format, str))


if __name__ == "__main__":
    main()
