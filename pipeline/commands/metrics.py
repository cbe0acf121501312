"""`reprise metrics`: the metrics of the last run as a table, with the gates on their values."""

import click
from rich.console import Console
from rich.table import Table

from pipeline.common.lockfile import describe_stale, find_stale, read_lock
from pipeline.metrics.gates import EVALUATE, PASS, judge_values, read_gates
from pipeline.metrics.metrics import format_value, read_metrics
from pipeline.run.run_lock import tell_run
from stages.common.errors import UserError
from stages.evaluate.params import Gate


def show_metrics() -> None:
    """Print every metric that `dvc.yaml` declares, and how the gates judge those of evaluate.

    Those of a stale stage are of another model or other data: they are marked, and not judged.
    Raises UserError when nothing has run yet.
    """
    tell_run()
    gates, stale = read_gates(), find_stale(read_lock())
    table = Table()
    table.add_column("stage")
    table.add_column("metric")
    table.add_column("value", justify="right")
    table.add_column("gate")
    for name, metrics in read_metrics().items():
        for index, (metric, value) in enumerate(metrics.items()):
            gate = gates.get(metric) if name == EVALUATE else None
            mark = " [yellow](stale)[/]" if name in stale else ""
            shown = "" if index else f"{name}{mark}"
            said = "" if gate is None or name in stale else _judged(metric, value, gate)
            table.add_row(shown, metric, format_value(value), said)
        table.add_section()
    if not table.rows:
        raise UserError("no stage has written metrics yet: run 'dvc repro'")
    Console().print(table)
    for name, writer in stale.items():
        click.echo(f"stale: {describe_stale(name, writer)}")


def _judged(metric: str, value: float, gate: Gate) -> str:
    lines = []
    if verdicts := judge_values({metric: gate}, {metric: value}):
        passed = all(verdict.result == PASS for verdict in verdicts)
        word = "[green]passed[/]" if passed else "[red]failed[/]"
        lines.append(f"{word}: {', '.join(verdict.gate for verdict in verdicts)}")
    if gate.not_worse_by is not None:
        lines.append(f"reprise gate: not worse by {gate.not_worse_by:g}")
    return "\n".join(lines)
