"""`reprise import-query`, as it is called."""

from pathlib import Path

import click

from pipeline.common.mistakes import stop_at_mistakes


@click.command("import-query")
@click.argument("query", type=click.Path())
@click.option("--from", "variable", metavar="NAME", help="Variable with the database's address.")
@click.option("--to", type=click.Path(), help="The snapshot, *.parquet; else beside QUERY.")
@click.option("--force", is_flag=True, help="Replace a file there that is no snapshot of QUERY.")
def import_query(query: str, variable: str | None, to: str | None, force: bool) -> None:  # noqa: FBT001
    """Ask a database the query in the file QUERY, and keep its rows as Parquet in DVC.

    Once more, it takes the rows of today; the earlier ones stay in DVC's cache.
    """
    from pipeline.commands.sources.import_query import import_query

    # Paths are meant from where the command was given; it runs in the repository's root.
    output = None if to is None else Path(to).absolute()
    run = stop_at_mistakes(import_query)
    run(Path(query).absolute(), variable, output, force=force)
