"""The command `reprise`. Each subcommand imports what it needs, so that all start quickly."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import click

from pipeline.commands.doctor.command import doctor
from pipeline.commands.expect import expect
from pipeline.commands.review.advise import advise as advise_command
from pipeline.commands.review.advise import read_budget
from pipeline.commands.review.command import gate, metrics, report, show
from pipeline.commands.search.command import tune
from pipeline.commands.sources.command import import_query
from pipeline.common.mistakes import stop_at_mistakes
from stages.common.errors import UserError
from stages.common.telemetry import switch_off_telemetry
from stages.common.terminal import keep_printing


@stop_at_mistakes
def _run_module(name: str, *arguments: str) -> None:
    """Run code of the stages as a process, so that torch is not loaded here; end as it ends."""
    sys.exit(subprocess.run([sys.executable, "-m", name, *arguments], check=False).returncode)


class _Commands(click.Group):
    """The commands, whose output no reader and no alphabet can break, help included."""

    def main(self, *arguments: Any, **options: Any) -> Any:
        keep_printing()
        return super().main(*arguments, **options)


def _say_once(
    _context: click.Context, option: click.Parameter, values: tuple[str, ...]
) -> str | None:
    """The value of an option that stands for one column. Raises BadParameter for several."""
    if len({*values}) < 2:
        return values[0] if values else None
    message = f"it is one column, and not {' and '.join(values)}"
    if option.name == "target":
        message += ": a model has one target; leave each other one out by --column NAME=exclude"
    raise click.BadParameter(message)


_ONCE: dict[str, Any] = {"multiple": True, "callback": _say_once, "metavar": "COLUMN"}


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="reprise", prog_name="reprise")
def main() -> None:
    """Check, run and review the pipeline that `dvc repro` runs."""
    switch_off_telemetry()


@main.command()
@stop_at_mistakes
def check() -> None:
    """Validate the whole of params.yaml and the files that it names."""
    from pipeline.commands.sources.notes import note_sources
    from pipeline.common.rwlock import mend_rwlock
    from pipeline.params.check import check_params
    from stages.runtime.installed import check_noted

    mend_rwlock(click.echo)
    check_noted()
    check_params()
    click.echo("\n".join([*note_sources(), "params.yaml is fine"]))


@main.command()
@click.argument("stages", nargs=-1)
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@click.option("--check", is_flag=True, help="Only whether dvc.lock is current; exit with 1 if not.")
@stop_at_mistakes
def plan(stages: tuple[str, ...], as_json: bool, check: bool) -> None:  # noqa: FBT001
    """Show what would run and why, of STAGES and what is upstream of them, or of all.

    With --check it needs no data: a clone that has pulled nothing will do.
    """
    from pipeline.commands.plan import show_plan

    show_plan(stages, as_json=as_json, check=check)


@main.command()
@click.argument("stages", nargs=-1)
@stop_at_mistakes
def accept(stages: tuple[str, ...]) -> None:
    """Take changes of comments and formatting into dvc.lock without a rerun.

    Of STAGES, or of all that differ in nothing else.
    """
    from pipeline.commands.accept import accept

    accept(stages)


@main.command("merge-lock")
@stop_at_mistakes
def merge_lock() -> None:
    """Resolve the conflicts of dvc.lock, and of metrics and plots, in a merge or rebase."""
    from pipeline.commands.merge_lock import merge_lock

    merge_lock()


@main.command()
@click.option("--days", default=30, show_default=True, type=click.IntRange(min=0))
@click.option("--yes", is_flag=True, help="Don't ask.")
@click.option("--dry", is_flag=True, help="Only show it.")
@click.option("--shared", is_flag=True, help="Also in a cache that lies outside the repository.")
@stop_at_mistakes
def gc(days: int, yes: bool, dry: bool, shared: bool) -> None:  # noqa: FBT001
    """Free what no branch, tag, workspace or recent run needs, after showing it.

    Outputs of runs of the last DAYS days stay, so that going back to them runs nothing.
    """
    from pipeline.commands.gc import collect

    collect(days, yes=yes, dry=dry, shared=shared)


@main.command()
@click.argument("path", type=click.Path())
@click.option("--target", required=True, **_ONCE, help="What to predict.")
@click.option("--task", type=click.Choice(["classification", "regression"]), help="Else as found.")
@click.option("--key", **_ONCE, help="It names the rows; else as found.")
@click.option("--time", **_ONCE, help="Test on the latest rows.")
@click.option("--group", **_ONCE, help="Its rows stay in one split, such as a patient's.")
@click.option("--weight", **_ONCE, help="It says how much each row counts.")
@click.option(
    "--column",
    "columns",
    multiple=True,
    metavar="COLUMN=SETTING",
    help="A column's kind or signs, as prepare.columns has them; for several, say it again.",
)
@click.option("--new", type=click.Path(), help="Rows to predict; else the test rows.")
@click.option("--dry-run", is_flag=True, help="Only show what would be written.")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@click.option("--force", is_flag=True, help="Give up edits of params.yaml that no commit holds.")
def init(path: str, new: str | None, **options: Any) -> None:
    """Look at the data in PATH and write a params.yaml that trains on it.

    PATH may be an address in object storage, such as s3://bucket/houses.csv. Of another address it
    says how to bring the data in.
    """
    from pipeline.commands.init import init

    # Paths are meant from where the command was given; it runs in the repository's root.
    stop_at_mistakes(init)(path, new=new, here=Path.cwd(), **options)


COMMANDS = (import_query, expect, tune, advise_command, show, metrics, report, gate, doctor)
for command in COMMANDS:
    main.add_command(command)


@main.command()
@click.argument("name", required=False)
@click.option("--force", is_flag=True, help="Give up edits of params.yaml that no commit holds.")
@stop_at_mistakes
def recipe(name: str | None, force: bool) -> None:  # noqa: FBT001
    """List the recipes, or show the difference to NAME and write it to params.yaml."""
    from pipeline.commands.recipe import list_recipes, write_recipe

    if name is not None:
        write_recipe(name, force=force)
        return
    for known, what in list_recipes().items():
        click.echo(f"{known:20}  {what}")


@main.command()
@click.argument("stages", nargs=-1)
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="Edit params.yaml.")
@click.option("--force", is_flag=True, help="Run the stages even when nothing has changed.")
@click.option("--parallel", type=click.IntRange(min=1), help="Stages at once; else one a core.")
@click.option("--wait", is_flag=True, help="Wait for a run that is going in this folder.")
@click.option("--advise", metavar="TIME", help="Then measure what to improve first, such as 10m.")
@stop_at_mistakes
def run(
    stages: tuple[str, ...],
    settings: tuple[str, ...],
    force: bool,  # noqa: FBT001
    parallel: int | None,
    wait: bool,  # noqa: FBT001
    advise: str | None,
) -> None:
    """Run STAGES and what they need, or all, as a Prefect flow."""
    from pipeline.commands.run import run as run_stages

    num = parallel or os.cpu_count() or 1
    seconds = None if advise is None else read_budget(advise, "--advise")
    options: dict[str, Any] = {"force": force, "parallel": num, "wait": wait}
    if not run_stages(stages, settings, **options, advise_seconds=seconds):
        sys.exit(1)


@main.command()
@click.argument("file", type=click.Path())
@click.option("--output", type=click.Path(), help="Parquet, CSV, TSV or JSON lines; else CSV here.")
@click.option("--explain", is_flag=True, help="With the columns that moved each prediction most.")
def predict(file: str, output: str | None, explain: bool) -> None:  # noqa: FBT001
    """Predict the rows of FILE, or the images of a folder, with the trained model."""
    # Paths are meant from where the command was given; it runs in the repository's root.
    paths = [str(Path(file).absolute())]
    paths += [] if output is None else ["--output", str(Path(output).absolute())]
    paths += ["--explain"] if explain else []
    _run_module("stages.tools.predict_file", *paths)


@main.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Elsewhere needs a token.")
@click.option("--port", default=8000, show_default=True, type=click.IntRange(0, 65535))
@click.option("--model", type=click.Path(), help="Folder of the model; else data/infer.")
@click.option("--name", default="reprise", show_default=True, help="The model's in the protocol.")
@click.option("--max-body-mb", default=16, show_default=True, type=click.IntRange(1))
@click.option("--max-rows", default=4096, show_default=True, type=click.IntRange(1))
@click.option("--max-queued-rows", default=16384, show_default=True, type=click.IntRange(1))
@click.option("--timeout-seconds", default=30.0, show_default=True, type=click.FloatRange(0.1))
@click.option("--header-seconds", default=10.0, show_default=True, type=click.FloatRange(0.1))
@click.option("--max-connections", default=2048, show_default=True, type=click.IntRange(1))
@click.option("--allow-host", multiple=True, metavar="NAME", help="It is asked for by this, too.")
@click.option("--access-log", is_flag=True, help="A line for each request.")
def serve(host: str, port: int, model: str | None, **limits: Any) -> None:
    """Answer requests over HTTP with the trained model, and with a new one once it is there."""
    from pipeline.serve.command import serve_as_asked

    # A path is meant from where the command was given; it runs in the repository's root.
    folder = Path("data/infer") if model is None else Path(model).absolute()
    stop_at_mistakes(serve_as_asked)(folder, host, port, **limits)


@main.command()
@click.option("--check", is_flag=True, help="Write nothing; exit with 1 when out of date.")
@stop_at_mistakes
def deps(check: bool) -> None:  # noqa: FBT001
    """Write the code and libraries of each stage into dvc.yaml and stages/versions.yaml."""
    from pipeline.deps.deps import derive, out_of_date, write

    derived = derive()
    changed = out_of_date(derived)
    if check and changed:
        names = " and ".join(str(path) for path in changed)
        raise UserError(f"{names} don't hold what the code imports: run 'reprise deps'")
    write({path: derived[path] for path in changed})
    for path in changed:
        click.echo(f"wrote {path}")
    if not changed:
        click.echo("the dependencies are up to date")


@main.command()
@click.option("--check", is_flag=True, help="Write nothing; exit with 1 when out of date.")
@stop_at_mistakes
def schema(check: bool) -> None:  # noqa: FBT001
    """Write stages/params.schema.json, for editors of params.yaml, and docs/params.md."""
    command = [sys.executable, "-m", "stages.tools.params_schema", *(["--check"] if check else [])]
    sys.exit(subprocess.run(command, check=False).returncode)


@main.command()
@click.option("--port", type=click.IntRange(1, 65535), help="Port of Prefect's server and UI.")
@click.option("--tensorboard-port", type=click.IntRange(1, 65535), help="Port of TensorBoard.")
@click.option("--no-worker", is_flag=True, help="No worker: deployments don't run here.")
@click.option("--no-tensorboard", is_flag=True, help="No TensorBoard.")
@stop_at_mistakes
def up(
    port: int | None,
    tensorboard_port: int | None,
    no_worker: bool,  # noqa: FBT001
    no_tensorboard: bool,  # noqa: FBT001
) -> None:
    """Start Prefect's server and UI, a worker and TensorBoard on this machine."""
    from pipeline.server.up import UpOptions
    from pipeline.server.up import up as start

    start(UpOptions(port, tensorboard_port, not no_worker, not no_tensorboard))


@main.command()
@stop_at_mistakes
def down() -> None:
    """End all that `reprise up` has started here."""
    from pipeline.commands.down import down as end_all

    end_all()
