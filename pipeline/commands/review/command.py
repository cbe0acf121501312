"""The commands that look at the last run: its page, its metrics, its report and its gates."""

import sys
from pathlib import Path

import click

from pipeline.common.mistakes import stop_at_mistakes

PAGE = Path(".reprise/show.html")


@click.command()
@click.option("--output", type=click.Path(), metavar="FILE", help=f"Else {PAGE}.")
def show(output: str | None) -> None:
    """Write the last run as one page: metrics, gates, curves, slices, mistakes; offline.

    It is one file without scripts, which loads nothing.
    """
    # A path is meant from where the command was given; it runs in the repository's root.
    stop_at_mistakes(_show)(PAGE if output is None else Path(output).absolute())


def _show(path: Path) -> None:
    from pipeline.report.show.show import write_show

    click.echo(f"wrote {write_show(path)}")


@click.command()
@stop_at_mistakes
def metrics() -> None:
    """Show the metrics of the last run, and the gates."""
    from pipeline.commands.metrics import show_metrics

    show_metrics()


@click.command()
@click.option("--base", metavar="REV", help="A branch, tag or commit; else where this one began.")
@click.option("--output", default=".", metavar="FOLDER", help="Where both files go.")
@stop_at_mistakes
def report(base: str | None, output: str) -> None:
    """Write report.md and report.html: what a change did, for a pull request."""
    from pipeline.report.build import make_report
    from pipeline.report.html import write_report

    for path in write_report(make_report(base), Path(output)):
        click.echo(f"wrote {path}")


@click.command()
@click.option("--base", metavar="REV", help="A branch, tag or commit; else where this one began.")
@click.option("--strict", is_flag=True, help="Exit with 2 when a gate is inconclusive.")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@stop_at_mistakes
def gate(base: str | None, strict: bool, as_json: bool) -> None:  # noqa: FBT001
    """Judge the last run by evaluate.gates; exit with 1 when a gate fails.

    Only gates against another revision (not_worse_by) look at the base.
    """
    from pipeline.commands.gate import show_gates

    sys.exit(show_gates(base, strict=strict, as_json=as_json))
