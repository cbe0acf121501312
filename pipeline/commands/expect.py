"""`reprise expect`: what the table must be like, drafted, edited, and held against rows."""

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from pipeline.common.mistakes import stop_at_mistakes
from stages.common.errors import Problem, UserError

TOOL = "stages.tools.expect"
SEVERITIES = ("critical", "warning")


@click.group()
def expect() -> None:
    """Draft, edit and check the suite: what the table must be like."""


@expect.command()
@click.option("--table", type=click.Path(), help="Other rows than those of prepare.source.")
@click.option("--write", type=click.Path(), metavar="FILE", help="Into a new file; else shown.")
@click.option("--drift", is_flag=True, help="What new rows must be like: warnings of a change.")
def draft(table: str | None, write: str | None, drift: bool) -> None:  # noqa: FBT001
    """Draft a suite from what the data is today.

    A file that is written is that of prepare.expectations, if there was none; never with --drift.
    """
    stop_at_mistakes(_draft)(_absolute(table), _absolute(write), drift=drift)


@expect.command("list")
@click.option("--suite", type=click.Path(), help="Another than that of prepare.expectations.")
def list_rules(suite: str | None) -> None:
    """List the rules in words, each with its number."""
    stop_at_mistakes(_list)(_absolute(suite))


@expect.command()
@click.argument("kind", metavar="TYPE")
@click.argument("arguments", nargs=-1, metavar="[NAME=VALUE]...")
@click.option("--column", help="The column that it is about.")
@click.option("--min", "min_value", help="Short for min_value=…")
@click.option("--max", "max_value", help="Short for max_value=…")
@click.option("--mostly", help="Short for mostly=…: the share of the rows that must be so.")
@click.option("--severity", type=click.Choice(SEVERITIES), default="warning", show_default=True)
@click.option("--suite", type=click.Path(), help="Another than that of prepare.expectations.")
def add(
    kind: str, arguments: tuple[str, ...], severity: str, suite: str | None, **short: str | None
) -> None:
    """Add a rule to the suite, such as `values_to_be_between --column age --min 0`.

    TYPE is Great Expectations' own name, of which `expect_` and `expect_column_` may be left out.
    """
    named = [f"{name}={value}" for name, value in short.items() if value is not None]
    stop_at_mistakes(_add)(kind, [*named, *arguments], severity, _absolute(suite))


@expect.command()
@click.argument("number", type=int)
@click.option("--suite", type=click.Path(), help="Another than that of prepare.expectations.")
def remove(number: int, suite: str | None) -> None:
    """Remove the rule NUMBER, as `list` numbers it, and the comment right above it."""
    stop_at_mistakes(_remove)(number, _absolute(suite))


@expect.command()
@click.argument("path", required=False, type=click.Path())
@click.option("--suite", type=click.Path(), help="Another than that of prepare.expectations.")
def check(path: str | None, suite: str | None) -> None:
    """Hold the source, or the rows in PATH, to the suite; exit with 1 at something critical.

    Of other rows than the source's neither their number is judged nor a target that they lack.
    """
    stop_at_mistakes(_check)(_absolute(path), _absolute(suite))


def _draft(table: Path | None, write: Path | None, *, drift: bool) -> None:
    from pipeline.commands.suite_file import suite_text
    from pipeline.common.atomic import write_output

    if write is not None and write.exists():
        raise UserError(f"{_shown(write)} is there already: name another file, or remove it")
    words = [] if table is None else [f"--table={_shown(table)}"]
    done = _run("draft", *words, *(["--drift"] if drift else []), capture=True)
    of = _section()["source"] if table is None else _shown(table)
    title = f"{Path(of).name} as `reprise expect draft{' --drift' if drift else ''}` found it"
    text = suite_text(title, json.loads(done))
    if write is None:
        click.echo(text, nl=False)
        return
    write_output(write, text, "--write")
    click.echo(f"wrote {_shown(write)}")
    if drift:
        click.echo(f"next: reprise expect check NEW_ROWS --suite {_shown(write)}")
    else:
        _name_suite(write)


def _list(suite: Path | None) -> None:
    _run("list", str(_suite(suite)))


def _add(kind: str, arguments: Sequence[str], severity: str, suite: Path | None) -> None:
    from pipeline.commands.suite_file import suite_text, with_rule
    from pipeline.common.atomic import write_whole
    from pipeline.params.source_head import read_head

    section = _section()
    path = suite or _named_suite(section)
    is_new = path is None
    if path is None:
        source = Path(section["source"])
        path = source.with_name(f"{source.stem}.expectations.yaml")
    rule = {"type": _full_name(kind, arguments), **_parse(arguments), "severity": severity}
    head = read_head(Path(section["source"]))
    given = {"rule": rule, "columns": None if head is None else [*head.columns]}
    said = _run("try", given=json.dumps(given, default=str), capture=True).strip()
    if path.exists():
        write_whole(path, with_rule(path, rule))
    else:
        write_whole(path, suite_text(f"{Path(section['source']).name} must be so", [rule]))
    click.echo(f"{_shown(path)}: {severity}: {said}")
    if is_new:
        _name_suite(path)


def _remove(number: int, suite: Path | None) -> None:
    from pipeline.commands.suite_file import read_rules, without_rule
    from pipeline.common.atomic import write_whole

    path = _suite(suite)
    text = without_rule(path, number)
    rule = read_rules(path)[number]
    write_whole(path, text)
    what = rule.get("type", rule) if isinstance(rule, Mapping) else rule
    click.echo(f"{_shown(path)}: without {what} ({number})")


def _check(path: Path | None, suite: Path | None) -> None:
    words = [] if path is None else [_shown(path)]
    _run("check", *words, *([] if suite is None else [f"--suite={_shown(suite)}"]))


def _run(*words: str, given: str | None = None, capture: bool = False) -> str:
    """The output of the tool, where it is captured; it says itself what is wrong."""
    done = subprocess.run(
        [sys.executable, "-m", TOOL, *words],
        input=given,
        stdout=subprocess.PIPE if capture else None,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(done.returncode)
    return done.stdout or ""


def _section() -> Mapping[str, Any]:
    from stages.common.params import PARAMS
    from stages.common.yamlfile import read_yaml

    section = (read_yaml(PARAMS) or {}).get("prepare")
    if not isinstance(section, Mapping) or not isinstance(section.get("source"), str):
        raise UserError(Problem("prepare.source must name a table", "prepare.source"))
    return section


def _named_suite(section: Mapping[str, Any]) -> Path | None:
    """The suite of `params.yaml`."""
    named = section.get("expectations")
    return None if named is None else Path(str(named))


def _suite(suite: Path | None) -> Path:
    path = suite or _named_suite(_section())
    if path is None:
        raise UserError(
            "prepare.expectations is null: there is no suite yet\n"
            "  reprise expect draft --write FILE   drafts one from the data"
        )
    return path


def _name_suite(path: Path) -> None:
    """Let `params.yaml` name a new suite, if it names none."""
    from pipeline.params.overrides import apply_overrides_to_file

    if _named_suite(_section()) is None:
        apply_overrides_to_file({"prepare.expectations": _shown(path)}, "reprise expect")
        click.echo(f"params.yaml: prepare.expectations: {_shown(path)}")


def _full_name(kind: str, arguments: Sequence[str]) -> str:
    """Great Expectations' name: of a rule about columns that of `values_to_be_unique` is longer."""
    if kind.startswith("expect_"):
        return kind
    is_longer = any(word.startswith("column=") for word in arguments) or kind.startswith("pair_")
    is_named = kind.startswith(("column_", "table_", "multicolumn_", "compound_", "select_"))
    return f"expect_column_{kind}" if is_longer and not is_named else f"expect_{kind}"


def _parse(arguments: Sequence[str]) -> dict[str, Any]:
    """`NAME=VALUE`, of which the value is YAML."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    found: dict[str, Any] = {}
    for argument in arguments:
        name, equals, text = argument.partition("=")
        if not equals or not name:
            raise UserError(f"an argument is NAME=VALUE, such as min_value=0, not '{argument}'")
        try:
            found[name] = text if name == "column" else YAML(typ="safe").load(text)
        except (YAMLError, ValueError, RecursionError):
            raise UserError(f"{argument}: '{text}' is not valid YAML") from None
    return found


def _absolute(path: str | None) -> Path | None:
    """The path as it is meant from where the command was given; it runs elsewhere."""
    return None if path is None else Path(path).absolute()


def _shown(path: Path) -> str:
    """The path from the repository's root, where it lies in there."""
    root = Path.cwd().resolve()
    whole = path.resolve()
    return str(whole.relative_to(root) if whole.is_relative_to(root) else path)
