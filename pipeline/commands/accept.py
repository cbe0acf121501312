"""Take changes of comments and formatting into `dvc.lock` without a rerun.

The syntax tree of every changed file is that of the version which `dvc.lock` knows, found by its
hash in git's history; all else must be as it was. Then a rerun would give the same outputs.
"""

from collections.abc import Sequence
from typing import Any

import click

from pipeline.common.dvc_repo import locked, open_repo, write_locks
from pipeline.plan.forecast import FRESH, Forecast, StageForecast
from pipeline.plan.plan import active_graph, in_order, named
from pipeline.plan.reasons import describe
from stages.common.errors import Problem, UserError


def accept(targets: Sequence[str]) -> None:
    """Accept the stages `targets`, or every stage that differs in comments alone.

    Raises UserError, and changes nothing, when one of `targets` differs in more, or when no
    stage can be accepted although some are stale.
    """
    with open_repo() as repo, locked(repo):
        order = in_order(repo, active_graph(repo), ())
        forecast = Forecast(repo, accepting=True)
        forecasts = {stage: forecast.judge(stage) for stage in order}
        stale = {
            stage: expected for stage, expected in forecasts.items() if expected.state != FRESH
        }
        chosen = named(targets, order) if targets else list(stale)
        ready = [stage for stage in chosen if stage in stale and _only_comments(stale[stage])]
        refused = [stage for stage in chosen if stage in stale and stage not in ready]
        problems = [_refuse(stage, stale[stage], forecast) for stage in refused]
        if problems and (targets or not ready):
            raise UserError(*problems)
        for stage in ready:
            _take(stage, forecasts[stage])
        for stage in ready:
            _save_run(repo, stage)
        write_locks(ready)
    for problem in problems:
        click.echo(problem.message)
    if ready:
        click.echo(f"accepted: {', '.join(s.addressing for s in ready)}; commit dvc.lock with it")
    else:
        click.echo("nothing to accept: no code has changed")


def _only_comments(expected: StageForecast) -> bool:
    return all(reason.kind == "comments" for reason in expected.reasons)


def _refuse(stage: Any, expected: StageForecast, forecast: Forecast) -> Problem:
    lines = [f"{stage.addressing} must run:"]
    for reason in expected.reasons:
        if reason.kind == "comments":
            continue
        lost = reason.kind == "file" and reason.what in forecast.reasons.lost
        why = ", and no commit has the version that dvc.lock knows" if lost else ""
        lines.append(f"  {describe(reason)}{why}")
    return Problem("\n".join(lines))


def _take(stage: Any, expected: StageForecast) -> None:
    """Put the inputs that were judged into the stage; not what lies there a moment later."""
    for dep in stage.deps:
        content = expected.inputs.get(dep.def_path)
        # Parameters, which are equal, stay as they are: shared values would become YAML aliases.
        if content is not None and content.meta is not None:
            dep.hash_info, dep.meta = content.hash, content.meta


def _save_run(repo: Any, stage: Any) -> None:
    """Let the run-cache know these outputs under the new inputs, as DVC does after a run."""
    if all(out.use_cache or out.metric or out.plot for out in stage.outs):
        repo.stage_cache.save(stage)
