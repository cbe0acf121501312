"""The command `reprise doctor`."""

import sys
from pathlib import Path

import click

from pipeline.common.mistakes import stop_at_mistakes
from stages.common.errors import UserError


@click.command()
@click.option("--fix", is_flag=True, help="Do what mends something and harms nothing.")
@click.option("--training", is_flag=True, help="Measure the training, whatever it looks like.")
@click.option("--fast", is_flag=True, help="Measure nothing: no torch is started.")
@click.option("--network", is_flag=True, help="Ask remotes and servers that are elsewhere, too.")
@click.option("--log", "log", metavar="FILE", help="Say what the text of a run means ('-': stdin).")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@click.option("--write-page", is_flag=True, help="Write docs/troubleshooting.md, and nothing else.")
def doctor(
    fix: bool,  # noqa: FBT001
    training: bool,  # noqa: FBT001
    fast: bool,  # noqa: FBT001
    network: bool,  # noqa: FBT001
    log: str | None,
    as_json: bool,  # noqa: FBT001
    write_page: bool,  # noqa: FBT001
) -> None:
    """Say what is wrong with this machine, its set-up and the last run, and what mends it.

    It ends with 1 when something will fail.
    """
    # The file is meant from where the command was given; it runs in the repository's root.
    path = None if log is None or log == "-" else Path(log).absolute()
    measure = "none" if fast else "all" if training else "needed"
    run = stop_at_mistakes(_run)
    run(
        path,
        from_stdin=log == "-",
        measure=measure,
        network=network,
        fix=fix,
        as_json=as_json,
        page=write_page,
    )


def _run(
    path: Path | None,
    *,
    from_stdin: bool,
    measure: str,
    network: bool,
    fix: bool,
    as_json: bool,
    page: bool,
) -> None:
    from pipeline.commands.doctor.table import show, to_json
    from pipeline.doctor.examine import apply_fixes, examine
    from pipeline.doctor.finding import Options
    from pipeline.doctor.page import PAGE, write_page

    if page:
        click.echo(f"wrote {PAGE}" if write_page() else f"{PAGE} is up to date")
        return
    text = sys.stdin.read() if from_stdin else None
    if path is not None:
        if not path.is_file():
            raise UserError(f"there is no file {path}")
        text = path.read_text(encoding="utf-8", errors="replace")
    options = Options(network, measure, text)  # type: ignore[arg-type]
    areas = examine(options)
    if fix and (done := list(apply_fixes(areas))):
        click.echo("\n".join(done), err=as_json)
        # What is measured was measured; the rest is looked at as it is now.
        areas = examine(Options(network, "none", text))
    if as_json:
        click.echo(to_json(areas))
    else:
        show(areas)
    if any(finding.level == "wrong" for area in areas for finding in area.findings):
        sys.exit(1)
