"""Advice as a task of a run, for those who ask for it, after stages that all ended well."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from prefect import get_run_logger, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.states import Cancelled, Completed, Failed

from pipeline.run.console import Console
from pipeline.run.execute import Supervisors, run_command

NAME = "advise"


@dataclass(frozen=True)
class AdviceAsked:
    """Advice that is asked for: the time to measure, and what writes the pages.

    `write_pages` returns the report as Markdown.
    """

    budget_seconds: float
    write_pages: Callable[[], str]


def run_advice(asked: AdviceAsked, supervisors: Supervisors, console: Console) -> None:
    """Measure what to improve first, as a task of the current flow run.

    Its report is an artifact of the run. That it fails takes nothing back from the run.
    """

    def advise() -> State[Any]:
        logger = get_run_logger()

        def say(line: str) -> None:
            logger.info("%s", line)
            console.line(NAME, line)

        budget = f"{asked.budget_seconds:g}"
        command = [sys.executable, "-m", "stages.tools.advise", "--budget-seconds", budget]
        end = run_command(NAME, command, supervisors, say)
        if supervisors.ended:
            return Cancelled(message="ended together with its run")
        if end.code:
            why = end.tail[-1] if end.tail else end.reason
            console.note(f"no advice: {why}")
            return Failed(message=why)
        text = asked.write_pages()
        create_markdown_artifact(text, key=NAME, description="What to improve first")
        console.note("wrote .reprise/advise/report.html")
        return Completed(message=f"{asked.budget_seconds:g} s")

    body = task(name=NAME, cache_policy=NO_CACHE, persist_result=False)(advise)
    body(return_state=True)
