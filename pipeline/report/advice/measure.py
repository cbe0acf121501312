"""The measuring itself, in a process of its own, and the pages that follow it."""

import subprocess
import sys

from pipeline.common.atomic import write_whole
from pipeline.report.advice.content import REPORT, read_report
from pipeline.report.advice.markdown import to_markdown
from pipeline.report.advice.page import to_html


def measure_advice(budget_seconds: float, *, quiet: bool = False) -> int:
    """Measure and write the report; return the exit code of the process that measures.

    It loads torch, says what it does, and with `quiet` leaves standard output alone.
    """
    arguments = ["--budget-seconds", f"{budget_seconds:g}"]
    command = [sys.executable, "-m", "stages.tools.advise", *arguments]
    done = subprocess.run(command, stdout=sys.stderr if quiet else None, check=False)
    if done.returncode == 0:
        write_pages()
    return done.returncode


def write_pages() -> str:
    """Write the pages of the last report beside it; return that in Markdown."""
    report = read_report()
    text = to_markdown(report)
    write_whole(REPORT.with_suffix(".md"), text)
    write_whole(REPORT.with_suffix(".html"), to_html(report))
    return text
