"""`reprise gate`: all of `evaluate.gates`, those against another revision too."""

import json
from collections.abc import Sequence
from dataclasses import asdict

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pipeline.common.lockfile import read_lock
from pipeline.metrics.gates import (
    EVALUATE,
    FAIL,
    INCONCLUSIVE,
    PASS,
    Verdict,
    judge_all,
    judge_values,
    needs_base,
    overall,
    read_gates,
    stale_evaluate,
)
from pipeline.metrics.metrics import read_metrics
from pipeline.report.base import find_base
from pipeline.report.build import compare_with
from pipeline.run.run_lock import tell_run

COLOURS = {PASS: "green", FAIL: "red", INCONCLUSIVE: "yellow"}
EXIT_FAIL, EXIT_INCONCLUSIVE = 1, 2


def show_gates(revision: str | None, *, strict: bool, as_json: bool) -> int:
    """Judge the last run, print what each gate says, return the exit code.

    It is 0 when nothing fails, 1 when a gate does; with `strict` 2 when one is inconclusive.
    `revision` is the base revision, for which only gates against a base look. Raises UserError when
    there is no such revision.
    """
    tell_run()
    gates, metrics = read_gates(), read_metrics().get(EVALUATE, {})
    stale = stale_evaluate(read_lock())
    verdicts = judge_values(gates, metrics, stale)
    base = commit = None
    missing: list[str] = []
    if needs_base(gates) or revision is not None:
        base, commit = find_base(revision)
    if base is not None and commit is not None and needs_base(gates):
        comparison, missing = compare_with(base, commit)
        verdicts = judge_all(gates, metrics, comparison, missing, stale)
    result = overall(verdicts)
    if as_json:
        listed = [asdict(verdict) for verdict in verdicts]
        found = {"result": result, "base": base, "commit": commit, "gates": listed}
        click.echo(json.dumps(found, ensure_ascii=False, indent=2))
    else:
        _print(verdicts, base, commit, missing)
    if result == FAIL:
        return EXIT_FAIL
    return EXIT_INCONCLUSIVE if strict and result == INCONCLUSIVE else 0


def _print(
    verdicts: Sequence[Verdict], base: str | None, commit: str | None, missing: Sequence[str]
) -> None:
    if not verdicts:
        click.echo("params.yaml has no gates: evaluate.gates is empty")
        return
    if base is not None and commit is not None:
        click.echo(f"against {base} ({commit[:10]})")
    table = Table()
    for column, justify in (("metric", "left"), ("value", "right"), ("gate", "left")):
        table.add_column(column, justify=justify)  # type: ignore[arg-type]
    table.add_column("verdict")
    table.add_column("why")
    for each in verdicts:
        verdict = Text(each.result, style=COLOURS[each.result])
        why = "predictions are missing, see below" if each.why in missing else each.why
        # One below the other, which leaves room for the reason.
        value = each.written_value().replace(", ", "\n")
        table.add_row(each.metric, value, each.gate, verdict, Text(why))
    Console().print(table)
    # Commands to copy are broken by no cell.
    for line in missing:
        click.echo(line)
