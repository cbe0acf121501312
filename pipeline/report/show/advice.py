"""The last advice, where it is of the recipe of this run."""

from collections.abc import Iterator

from pipeline.report.advice.content import REPORT, read_report
from pipeline.report.advice.page import draw_section
from pipeline.report.show.outputs import Run


def advice(run: Run) -> Iterator[str]:
    """Yield what would help next, if it was measured for the values of `params.yaml` as they are.

    It is no part of a run's outputs: it may be older or newer than they are.
    """
    if not REPORT.exists():
        return
    report = read_report()
    if all(run.params.get(name) == value for name, value in report.content["params"].items()):
        yield from draw_section(report)
