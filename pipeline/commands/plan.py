"""The plan for a person (a table that fits 80 columns), for a program (JSON), for CI (a code)."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pipeline.common.dvc_repo import default_remote
from pipeline.params.check import check_params
from pipeline.params.schema_check import SCHEMA
from pipeline.plan.forecast import FRESH, RESTORABLE, STALE
from pipeline.plan.plan import Reason, StagePlan, describe, make_plan
from pipeline.plan.way import find_bars, find_sent
from stages.common.counts import counted
from stages.common.errors import UserError, format_problem

HERE = Path()
MAX_LINES = 6
MAX_NAMES = 10
COLOURS = {FRESH: "green", RESTORABLE: "cyan", STALE: "yellow"}


def show_plan(targets: Sequence[str], *, as_json: bool = False, check: bool = False) -> None:
    """Print what would run and why; with `check`, only whether `dvc.lock` is current.

    Raises UserError for mistakes in `params.yaml` and unknown stages, and, with `check`, when a
    stage is not fresh.
    """
    # Only a project with sections of Reprise has a schema of them.
    if SCHEMA.exists():
        check_params(fetched=False)
    plans = make_plan(targets, lock_only=check)
    stale = [plan for plan in plans if plan.state != FRESH]
    if as_json:
        click.echo(json.dumps([to_json(plan) for plan in plans], indent=2, ensure_ascii=False))
    elif not check:
        Console().print(to_table(plans))
        for line in [*sum_up(plans), *map(format_problem, find_bars(find_sent(plans), HERE))]:
            click.echo(line)
    elif stale:
        Console().print(to_table(stale))
    else:
        click.echo("dvc.lock is current")
    if check and stale:
        count = counted(len(stale), "stage is", "stages are")
        raise UserError(
            f"dvc.lock is not current: {count} stale\n"
            "  run 'dvc repro' and commit dvc.lock with what it changes"
        )


def to_json(plan: StagePlan) -> dict[str, object]:
    """A plan as plain values; each reason with its words as `text`."""
    reasons = [{**asdict(reason), "text": describe(reason)} for reason in plan.reasons]
    return {**asdict(plan), "reasons": reasons}


def to_table(plans: Sequence[StagePlan]) -> Table:
    """One row a stage."""
    table = Table()
    table.add_column("stage", overflow="fold")
    table.add_column("state", no_wrap=True)
    table.add_column("why", overflow="fold", ratio=1)
    table.add_column("last run", justify="right", no_wrap=True)
    for plan in plans:
        why = "\n".join(escape(line) for line in explain(plan.reasons))
        state = f"[{COLOURS[plan.state]}]{plan.state}[/]"
        where = f"\n[dim]in the work pool {escape(plan.work_pool)}[/]" if plan.work_pool else ""
        table.add_row(f"{escape(plan.name)}{where}", state, why, format_seconds(plan.last_seconds))
    return table


def explain(reasons: Sequence[Reason]) -> list[str]:
    """The reasons as a few lines: upstream stages on one, many outputs as a number."""
    upstream = [reason.what for reason in reasons if reason.kind == "upstream"]
    outputs: dict[str, list[Reason]] = {}
    lines = []
    for reason in reasons:
        if reason.kind == "output":
            outputs.setdefault(str(reason.new), []).append(reason)
        elif reason.kind != "upstream":
            lines.append(describe(reason))
    for state, group in outputs.items():
        shown = [describe(reason) for reason in group]
        lines += shown if len(group) < 3 else [f"{len(group)} outputs are {state}"]
    if upstream:
        lines.insert(0, f"upstream {', '.join(upstream)}")
    rest = len(lines) - MAX_LINES
    return lines if rest < 2 else [*lines[:MAX_LINES], f"and {rest} more"]


def sum_up(plans: Sequence[StagePlan]) -> list[str]:
    """A summary of what `dvc repro` would do, in at most a few lines."""
    stale = [plan for plan in plans if plan.state == STALE]
    waiting = [p for p in stale if all(reason.kind == "upstream" for reason in p.reasons)]
    groups = {
        "would run": [plan for plan in stale if plan not in waiting],
        "would run if what is upstream changes": waiting,
        "would come from the cache": [plan for plan in plans if plan.state == RESTORABLE],
    }
    lines = [f"{what}: {_names(group)}" for what, group in groups.items() if group]
    # Of a stage with other reasons too, or behind one, nothing can be accepted.
    if any({reason.kind for reason in plan.reasons} == {"comments"} for plan in stale):
        lines.append("'reprise accept' takes changes of comments alone, without a rerun")
    news = [
        reason.new or "" for plan in stale for reason in plan.reasons if reason.kind == "output"
    ]
    if any("not in the cache" in new for new in news) and default_remote(HERE) is not None:
        lines.append("'dvc pull' fetches outputs that a remote has")
    sources = [plan.name for plan in stale if plan.name.endswith(".dvc")]
    if any(new == "missing" for new in news) and sources:
        lines.append(f"bring back what is missing first: dvc pull {' '.join(sources)}")
    return lines or ["nothing would run"]


def _names(plans: Sequence[StagePlan]) -> str:
    names = [plan.name for plan in plans]
    rest = len(names) - MAX_NAMES
    return ", ".join(names[:MAX_NAMES]) + (f" and {rest} more" if rest > 0 else "")


def format_seconds(seconds: float | None) -> str:
    """A duration in the unit that suits it, nothing where none is known."""
    if seconds is None:
        return ""
    if seconds < 100:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
