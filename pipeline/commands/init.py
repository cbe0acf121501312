"""A user's own data: what is in it, and a `params.yaml` that trains on it."""

import json
import shutil
import subprocess
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from shlex import quote
from textwrap import wrap
from typing import Any

import click

from pipeline.commands.recipe import stop_at_unsaved_edits
from pipeline.commands.suite_file import read_rules, suite_text
from pipeline.common.bring_in import RAW, is_address, tell_address, tell_path
from pipeline.common.git import try_git
from pipeline.common.programs import python
from pipeline.params.drafts import is_draft, write_draft
from pipeline.params.template import fill_template
from stages.common.addresses import find_fault, is_object, local_path, name_objects
from stages.common.errors import UserError
from stages.common.params import PARAMS
from stages.formats.suffixes import SUFFIXES
from stages.formats.text.compressed import suffix_of
from stages.runtime.object_storage import fetched, list_objects, name_reader

# From it on, git is no place for a file.
LARGE_BYTES = 1_000_000
HEADINGS = ("column", "role", "missing", "distinct", "values", "why")
# Where a line is short: characters for an example of a value, for a reason, and its least.
MIN_VALUES, WIDE_WHY, MIN_WHY = 21, 40, 16
# Of a table of more columns so many are shown of those that are treated alike.
MAX_COLUMNS, MAX_ALIKE = 100, 20


def init(
    where: str,
    *,
    new: str | None,
    columns: Sequence[str],
    here: Path,
    dry_run: bool,
    as_json: bool,
    force: bool,
    **options: str | None,
) -> None:
    """Look at a source, print what is found, and write `params.yaml` and a suite of expectations.

    `where` is the source, `new` the rows to predict, both as seen from `here`; `options` are those
    of the command line by their names, `target` among them, and `columns` those of columns, each
    `NAME=SETTING`. With `dry_run` nothing is written.
    What init wrote itself, and nobody has edited since, it writes anew. Raises UserError for a
    source that lies outside the repository, and where edits of `params.yaml` would be lost, unless
    `force` gives them up.
    """
    then = f"reprise init {{}} --target {quote(str(options['target']))}"
    source = _locate(where, here, then, anywhere=dry_run)
    rows = None if new is None else _locate(new, here, f"{then} --new {{}}", anywhere=dry_run)
    found = _survey(source, options, columns)
    suite = _suite_of(source)
    values = found["values"] | {
        "prepare.expectations": str(suite),
        "infer.input": rows,
        "evaluate.gates": {},
    }
    name = source.rstrip("/").rpartition("/")[2]
    title = f"{found['task']['name'].capitalize()} of {options['target']} from {name}."
    text = fill_template(values, title)
    if not (dry_run or force or is_draft(PARAMS)):
        stop_at_unsaved_edits(text, _with_force(where, new, columns, options))
    if as_json:
        click.echo(json.dumps(found | {"values": values}, ensure_ascii=False, indent=2))
    else:
        _show(found)
    if dry_run:
        return
    kept = suite.exists() and not is_draft(suite)
    if not kept:
        title = f"{name} as `reprise init` found it"
        write_draft(suite, suite_text(title, found["expectations"]))
    write_draft(PARAMS, text)
    if kept and (doubt := _doubt_suite(suite, found)):
        again = "remove it and run this again, which drafts one"
        click.echo(f"warning: {suite} was there and is kept, but {doubt}, {again}", err=True)
    if not as_json:
        _say_next(source, suite, kept=kept)


def _suite_of(source: str) -> Path:
    """The path of the suite beside a source; of one in object storage, in the folder of raw data.

    Its name is that of the source, without its suffix and that of a compression before it.
    """
    path = Path(source.rstrip("/"))
    plain = path.with_suffix("") if path.suffix.lower() in (".gz", ".zst") else path
    is_folder = path.is_dir() or (is_object(source) and suffix_of(path) not in SUFFIXES)
    folder = RAW if is_object(source) else path.parent
    return folder / f"{plain.name if is_folder else plain.stem}.expectations.yaml"


def _locate(word: str, here: Path, then: str, *, anywhere: bool) -> str:
    """The path from the repository's root, or with `anywhere` the whole of it; or an address.

    Raises UserError for what lies elsewhere, with the commands that bring it in and `then`.
    """
    if is_object(word):
        if fault := find_fault(word):
            raise UserError(fault)
        return word
    if is_address(word):
        raise UserError(tell_address(word, then))
    path = here / word
    if not path.exists():
        raise UserError(f"{path} does not exist")
    root, whole = Path.cwd().resolve(), path.resolve()
    if anywhere:
        return str(path)
    if whole.is_relative_to(root):
        return str(whole.relative_to(root))
    raise UserError(tell_path(path, f"{then}   (--dry-run looks at it where it lies)"))


def _survey(
    source: str, options: Mapping[str, str | None], columns: Sequence[str]
) -> dict[str, Any]:
    """The findings of `stages.tools.init`, which says itself what is wrong."""
    words = [f"--{name}={value}" for name, value in options.items() if value]
    words += [f"--column={column}" for column in columns]
    listings = [list_objects(source, None)] if is_object(source) else []
    reader = name_reader("init")
    with fetched(reader, listings):
        command = [*python("stages.tools.init"), *words, "--", str(local_path(reader, source))]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.returncode)
    found: dict[str, Any] = json.loads(name_objects(done.stdout))
    found["source"] = found["values"]["prepare.source"] = source
    return found


def _show(found: Mapping[str, Any]) -> None:
    """The table of the columns, and what was chosen, each with the reason."""
    columns = found["columns"]
    click.echo(f"{found['source']}: {found['num_rows']:,} rows, {len(columns)} columns")
    for note in found["notes"]:
        click.echo(note)
    click.echo()
    show_columns(columns, found["num_rows"])
    for warning in found["warnings"]:
        click.echo(f"warning  {warning}")
    click.echo(f"\n{found['task']['name']}, since {found['task']['why']}")
    width = max(len(choice["key"]) for choice in found["choices"])
    for choice in found["choices"]:
        value = json.dumps(choice["value"], ensure_ascii=False).replace('"', "")
        click.echo(f"{choice['key']:{width}}  {value}  ({choice['why']})")


def _without_many_alike(
    columns: list[Mapping[str, Any]],
) -> tuple[list[Mapping[str, Any]], list[str]]:
    """The columns to show, and lines on the rest: of many that are treated alike the first few."""
    seen: Counter[tuple[str, str]] = Counter()
    shown = []
    for column in columns:
        alike = column["role"], column["why"]
        seen[alike] += 1
        if len(columns) <= MAX_COLUMNS or seen[alike] <= MAX_ALIKE:
            shown.append(column)
    left = {alike: num - MAX_ALIKE for alike, num in seen.items() if num > MAX_ALIKE}
    if len(shown) == len(columns):
        return shown, []
    lines = [f"… and {num:,} more that are {role}: {why}" for (role, why), num in left.items()]
    return shown, [*lines, "    (--json has each of them)"]


def show_columns(columns: list[Mapping[str, Any]], num_rows: int) -> None:
    """Print the table, in which values and reasons are wrapped to the terminal's width."""
    shown, rest = _without_many_alike(columns)
    rows = [HEADINGS, *(_cells(column, num_rows) for column in shown)]
    *fixed, values, why = (max(map(len, cells)) for cells in zip(*rows, strict=True))
    total = shutil.get_terminal_size((10_000, 0)).columns
    space = total - sum(fixed) - 2 * len(fixed)
    shared = min(values, max(MIN_VALUES, space - 2 - min(why, WIDE_WHY)))
    widths = [*fixed, shared, space - 2 - shared]
    # Beside long names there is no room for a reason: it stands below.
    is_below = widths[-1] < min(why, MIN_WHY)
    if is_below:
        widths = [*fixed, max(MIN_VALUES, space), max(MIN_WHY, total - 4)]
    for row in rows:
        cells = [_lines(cell, width) for cell, width in zip(row, widths, strict=True)]
        below = cells.pop() if is_below else []
        for line in zip_longest(*cells, fillvalue=""):
            padded = (cell.ljust(width) for cell, width in zip(line, widths, strict=False))
            click.echo("  ".join(padded).rstrip())
        for text in below:
            click.echo(f"    {text}")
    for alike in rest:
        click.echo(alike)


def _lines(cell: str, width: int) -> list[str]:
    """A cell as lines; of a name each blank counts."""
    if len(cell) <= width:
        return [cell]
    return wrap(cell, width, break_on_hyphens=False)


def _cells(column: Mapping[str, Any], num_rows: int) -> tuple[str, ...]:
    missing = column["missing"]
    share = f"{missing} ({missing / num_rows:.1%})" if missing else "-"
    distinct = "-" if column["distinct"] is None else f"{column['distinct']:,}"
    return column["name"], column["role"], share, distinct, column["values"], column["why"]


def _say_next(source: str, suite: Path, *, kept: bool) -> None:
    click.echo(f"\nwrote {PARAMS}" + ("" if kept else f" and {suite}"))
    if kept:
        click.echo(f"kept {suite}, which was there")
    if _is_untracked(source):
        click.echo(f"next: dvc add {source}   (its versions; git is for small files)")
    click.echo("next: dvc repro, then reprise metrics")


def _with_force(
    where: str, new: str | None, columns: Sequence[str], options: Mapping[str, str | None]
) -> str:
    """The command line that was given, and `--force`."""
    words = ["reprise", "init", where]
    named = [*options.items(), *(("column", column) for column in columns), ("new", new)]
    for name, value in named:
        words += [] if value is None else [f"--{name}", value]
    return " ".join(map(quote, [*words, "--force"]))


def _doubt_suite(suite: Path, found: Mapping[str, Any]) -> str | None:
    """The sign that a suite was meant for another table or target, with 'if'; None: there is none.

    That are rules about columns that the table has not, or none of those about the target that a
    draft has.
    """
    rules = [rule for rule in read_rules(suite) if isinstance(rule, dict)]
    known = {column["name"] for column in found["columns"]}
    asked = dict.fromkeys(str(rule["column"]) for rule in rules if rule.get("column"))
    if strange := [name for name in asked if name not in known]:
        columns = ", ".join(strange)
        return (
            f"has rules about columns that {found['source']} has not: {columns}; if it is of "
            "another table"
        )
    target = found["values"]["prepare.target"]
    drafted, there = (_critical_types(target, each) for each in (found["expectations"], rules))
    if rules and drafted and not drafted & there:
        return f"has no critical rule for the target '{target}'; if it is for another target"
    return None


def _critical_types(target: str, rules: Sequence[Mapping[str, Any]]) -> set[str]:
    """The types of the critical rules about the target."""
    own = [rule for rule in rules if str(rule.get("column")) == target]
    return {str(rule.get("type")) for rule in own if rule.get("severity") == "critical"}


def _is_untracked(source: str) -> bool:
    """Check whether neither git nor DVC keeps a large source."""
    if is_object(source) or Path(f"{source}.dvc").exists():
        return False
    if try_git(Path.cwd(), "ls-files", source).stdout:
        return False
    path = Path(source)
    files = [path] if path.is_file() else [f for f in path.rglob("*") if f.is_file()]
    return sum(file.stat().st_size for file in files) >= LARGE_BYTES
