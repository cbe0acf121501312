"""The command `reprise tune`: the search that runs, or the last one."""

import os
import sys

import click

from pipeline.common.mistakes import stop_at_mistakes


@click.command()
@click.option("--watch", is_flag=True, help="On a terminal, go on until the search ends.")
@click.option("--work", is_flag=True, help="Train trials of a search that another machine runs.")
@stop_at_mistakes
def tune(watch: bool, work: bool) -> None:  # noqa: FBT001
    """Show the best trials of the search that runs, or of the last one.

    With --work this machine helps a search that shares its trials through REPRISE_STUDY.
    """
    if work:
        # In place of this process: who ends that ends the work.
        os.execv(sys.executable, [sys.executable, "-m", "stages.tools.search.worker"])  # noqa: S606
    from pipeline.commands.search.table import show_search

    show_search(watch=watch)
