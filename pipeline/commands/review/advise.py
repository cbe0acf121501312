"""The command `reprise advise`: measure what to improve first, show it, write it."""

import re
import sys
from collections.abc import Mapping
from typing import Any

import click

from pipeline.common.mistakes import stop_at_mistakes
from stages.common.errors import UserError
from stages.common.params import PARAMS
from stages.common.yamlfile import read_yaml

UNITS = {"s": 1, "m": 60, "h": 3600}
BUDGET = re.compile(r"(\d+(?:\.\d+)?)([smh])")


@click.command()
@click.option("--budget", default="10m", show_default=True, help="Time, such as 90s, 10m or 1h.")
@click.option("--apply", "number", type=click.IntRange(min=1), help="Write one to params.yaml.")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@stop_at_mistakes
def advise(budget: str, number: int | None, as_json: bool) -> None:  # noqa: FBT001
    """Measure what to improve first: data, model, loss or optimizer.

    It trains the recipe with one thing changed at a time, on folds of the train and validation
    rows, and writes .reprise/advise/report.html, .md and .json. Killed, it goes on where it was.
    """
    from pipeline.params.check import check_params
    from pipeline.report.advice.content import REPORT, read_report
    from pipeline.report.advice.markdown import show
    from pipeline.report.advice.measure import measure_advice

    if number is not None:
        given = click.get_current_context().get_parameter_source
        if as_json or given("budget") is click.core.ParameterSource.COMMANDLINE:
            raise UserError("--apply writes an advice that is there: it takes no other option")
        apply_advice(number)
        return
    seconds = read_budget(budget)
    check_params()
    if code := measure_advice(seconds, quiet=as_json):
        sys.exit(code)
    if as_json:
        click.echo(REPORT.read_text(encoding="utf-8"), nl=False)
        return
    show(read_report())
    click.echo(f"wrote {REPORT.with_suffix('.html')}, .md and .json")


def read_budget(text: str, source: str = "--budget") -> float:
    """The seconds that `text` stands for; `source` is where it stands. Raises UserError."""
    found = BUDGET.fullmatch(text)
    if found is None or float(found[1]) == 0:
        raise UserError(f"{source} {text}: it must be a time such as 90s, 10m or 1h")
    return float(found[1]) * UNITS[found[2]]


def apply_advice(number: int) -> None:
    """Write an advice of the last report to params.yaml. Raises UserError where there is none."""
    from pipeline.params.overrides import apply_overrides_to_file
    from pipeline.report.advice.content import read_report

    report = read_report()
    advice = report.advice
    tree = read_yaml(PARAMS) or {}
    if any(tree.get(name) != value for name, value in report.content["params"].items()):
        raise UserError(
            f"--apply {number}: params.yaml has changed since the advice: run 'reprise advise'"
        )
    if number > len(advice):
        numbers = f"it has 1 to {len(advice)}" if advice else "it has none"
        raise UserError(f"--apply {number}: the last report has no such advice; {numbers}")
    applies: Mapping[str, Any] = advice[number - 1]["applies"]
    if not applies:
        raise UserError(
            f"--apply {number}: '{advice[number - 1]['change']}' is work for a person: there is "
            "no line for it in params.yaml"
        )
    for line in apply_overrides_to_file(applies, f"--apply {number}"):
        click.secho(line, fg={"+": "green", "-": "red", "@": "cyan"}.get(line[:1]))
    click.echo("'dvc repro' trains with it; 'reprise report' says what it did to the test rows")
