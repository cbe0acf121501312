"""The command `reprise tune`: the search that runs, or the last one."""

import click

from pipeline.common.mistakes import stop_at_mistakes


@click.command()
@click.option("--watch", is_flag=True, help="On a terminal, go on until the search ends.")
@stop_at_mistakes
def tune(watch: bool) -> None:  # noqa: FBT001
    """Show the best trials of the search that runs, or of the last one."""
    from pipeline.commands.search.table import show_search

    show_search(watch=watch)
