"""A snapshot of a query's rows, of which DVC tells the versions."""

import hashlib
import json
import os
import re
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from shlex import quote
from typing import Any

import click

from pipeline.commands.sources.snapshot import Snapshot, read_snapshot
from pipeline.common.bring_in import RAW
from pipeline.common.git import try_git
from pipeline.common.programs import python, run_program
from stages.common.errors import UserError
from stages.common.yamlfile import read_yaml

SUFFIX = ".parquet"
ADD_SECONDS = 3600.0


def import_query(query: Path, variable: str | None, to: Path | None, *, force: bool) -> None:
    """Ask the query in the file `query`, and keep its rows as Parquet and with `dvc add`.

    `variable` is the environment variable with the database's address; None: that of the last
    snapshot. The snapshot lies beside the query, or at `to`. Raises UserError with the old
    snapshot as it was, and for a file there that is none, unless `force` replaces it.
    """
    query = _check_query(query)
    output = _inside(to or query.with_suffix(SUFFIX))
    if output.suffix != SUFFIX:
        raise UserError(f"a snapshot is a Parquet file: --to {output.with_suffix(SUFFIX)}")
    if not output.parent.is_dir():
        raise UserError(f"there is no folder {output.parent}")
    old = read_snapshot(output)
    variable = _check_variable(variable or (old.variable if old else None), query)
    _check_output(output, query, old, force=force)
    text = query.read_text(encoding="utf-8")
    temporary = _make_room(output)
    try:
        done = _ask(query, variable, temporary)
        new = Snapshot(str(query), text, variable, done["rows"], _now())
        _show(query, done, old)
        if not new.is_as(old) or not _is_same(temporary, output):
            _put(temporary, output, new)
        else:
            click.echo(f"the rows are those of {output}: it stays as it is")
    finally:
        temporary.unlink(missing_ok=True)


def _check_query(query: Path) -> Path:
    if query.suffix != ".sql":
        raise UserError(
            "the query stands in a file, of which git tells the versions\n"
            f"  write it to  {RAW / 'houses.sql'}\n"
            f"  then         reprise import-query {RAW / 'houses.sql'} --from NAME"
        )
    if not query.is_file():
        raise UserError(f"{query} does not exist")
    return _inside(query)


def _inside(path: Path) -> Path:
    root, whole = Path.cwd().resolve(), path.resolve()
    if not whole.is_relative_to(root):
        raise UserError(f"{path} lies outside the repository, where git can't tell its versions")
    # A snapshot may be a link into DVC's cache: its folder is resolved, and not the file.
    return path.parent.resolve().relative_to(root) / path.name


def _check_variable(variable: str | None, query: Path) -> str:
    if variable is None:
        raise UserError(
            "it is not known where the database is: name the environment variable that says so\n"
            f"  reprise import-query {quote(str(query))} --from NAME   (the name, not the address)"
        )
    if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", variable) is None:
        # An address would stand in the shell's history and, here, on the screen.
        raise UserError(
            "--from takes the name of an environment variable, and not the address itself, which "
            "may hold a password\n"
            "  export NAME=postgresql://USER@HOST/DATABASE\n"
            f"  reprise import-query {quote(str(query))} --from NAME"
        )
    return variable


def _check_output(output: Path, query: Path, old: Snapshot | None, *, force: bool) -> None:
    """Raise UserError where DVC could not keep the file, or another one would be lost."""
    if try_git(Path.cwd(), "ls-files", "--error-unmatch", str(output)).returncode == 0:
        shown = quote(str(output))
        raise UserError(
            f"git tracks {output}, so DVC can't\n"
            f"  let go of it  git rm --cached {shown} && git commit -m 'DVC tracks it' -- {shown}"
        )
    known = Path(f"{output}.dvc").exists()
    if force or not (output.exists() or known) or (old is not None and old.query == str(query)):
        return
    what = f"a snapshot of {old.query}" if old is not None else f"no snapshot of {query}"
    raise UserError(
        f"{output} is there, and {what}\n  --to FILE  elsewhere\n  --force    replace it"
    )


def _make_room(output: Path) -> Path:
    """The file that becomes the snapshot once it is whole; what a killed one has left is gone.

    Git and DVC ignore its name.
    """
    for left in output.parent.glob(f".{output.name}.*.tmp"):
        process = left.name.removesuffix(".tmp").rpartition(".")[2]
        if process.isdigit() and not _is_alive(int(process)):
            left.unlink(missing_ok=True)
    return output.with_name(f".{output.name}.{os.getpid()}.tmp")


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _ask(query: Path, variable: str, temporary: Path) -> dict[str, Any]:
    command = [*python("stages.tools.query"), str(query), variable, str(temporary)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise UserError(_printable(done.stderr.rstrip()))
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _show(query: Path, done: Mapping[str, Any], old: Snapshot | None) -> None:
    before = f" (before: {old.rows:,})" if old is not None and old.rows != done["rows"] else ""
    click.echo(f"{query}: {done['rows']:,} rows{before}, {len(done['columns'])} columns")
    width = max(len(column["name"]) for column in done["columns"])
    for column in done["columns"]:
        name, declared = (_printable(column[key]) for key in ("name", "declared"))
        line = f"  {name:{width}}  {declared} → {column['type']}"
        if column["lost"]:
            line += f"   {column['lost']} values are NaN or infinity: gaps"
        click.echo(line)


def _printable(text: str) -> str:
    """The words of a database, without what a terminal would obey."""
    return "".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in text)


def _is_same(temporary: Path, output: Path) -> bool:
    """Check whether the new file has the bytes of the old one, which DVC knows."""
    known = read_yaml(Path(f"{output}.dvc"))["outs"][0].get("md5")
    return output.is_file() and known == _md5(output) == _md5(temporary)


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()


def _put(temporary: Path, output: Path, new: Snapshot) -> None:
    """Put the new rows in place of the old ones, which come back when DVC does not take them."""
    before = output.with_name(f".{output.name}.before.{os.getpid()}.tmp")
    if output.exists():
        os.link(output.resolve(), before)
    try:
        temporary.replace(output)
        run_program("dvc", "add", str(output), seconds=ADD_SECONDS)
        new.write(output)
    except BaseException:
        if before.exists():
            before.replace(output)
        else:
            output.unlink(missing_ok=True)
        raise
    finally:
        before.unlink(missing_ok=True)
    files = [str(output.parent / ".gitignore"), f"{output}.dvc", new.query]
    click.echo(f"wrote {output} and {output}.dvc")
    click.echo(f"next: git add {' '.join(map(quote, files))}")
    click.echo(f"next: reprise init {quote(str(output))} --target COLUMN, or reprise plan")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
