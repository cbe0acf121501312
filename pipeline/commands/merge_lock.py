"""Resolve a `dvc.lock` that two branches changed, in the middle of a merge, rebase or cherry-pick.

Each stage's entry comes from the side whose inputs are those of the merged tree; where neither
fits, the stage must run. Metrics and plots, which lie in git, come from the same side.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pipeline.common.atomic import write_whole
from pipeline.common.dvc_repo import locked, open_repo, write_lock
from pipeline.common.git import git, names_of, try_git
from pipeline.common.lockfile import LOCK
from pipeline.plan.forecast import Forecast
from pipeline.plan.git_history import History, Locked
from pipeline.plan.plan import active_graph, in_order
from pipeline.plan.reasons import describe
from stages.common.errors import UserError

HERE = Path()
# Git's name of the other side, by the command that is under way.
OTHERS = ("MERGE_HEAD", "REBASE_HEAD", "CHERRY_PICK_HEAD", "REVERT_HEAD")


@dataclass(frozen=True)
class Choice:
    """The outcome for one stage: its entry's side, and why it must run if it must."""

    stage: Any
    side: str
    why: tuple[str, ...]


def merge_lock() -> None:
    """Resolve the conflicts of `dvc.lock` and of metrics and plots, and `git add` them.

    Raises UserError, and changes nothing, when `dvc.lock` has no conflict, and while other files
    still have some; and with what git says when it does not take a file: then this can be run
    again.
    """
    conflicts = _conflicts()
    locks = [path for path in conflicts if path.name == LOCK.name]
    if not locks:
        raise UserError(
            f"{LOCK} has no conflict: this resolves one during a merge, rebase or cherry-pick"
        )
    _refuse_others(conflicts, [*locks, *_tracked_outputs(locks)])
    other = next(filter(_is_going_on, OTHERS), "theirs")
    sides = {"HEAD": _read_side(locks, 2), other: _read_side(locks, 3)}
    with _locks_from(sides["HEAD"]), open_repo() as repo, locked(repo):
        choices = _choose(repo, sides)
        heads = ("HEAD", *([other] if other in OTHERS else []))
        history = History(repo.dvcignore.is_ignored_file, heads)
        lost = _bring_outputs(choices, history, conflicts)
        for lock in locks:
            write_lock(lock, _merged(lock, choices, sides))
    _add(*locks)
    _show(choices, lost)


def _conflicts() -> list[Path]:
    """The files with conflicts, relative to the current folder."""
    listed = names_of(git(HERE, "ls-files", "--unmerged", "-z", "--", "."))
    return sorted({Path(entry.split("\t")[1]) for entry in listed})


def _is_going_on(other: str) -> bool:
    return try_git(HERE, "rev-parse", "-q", "--verify", other).returncode == 0


def _add(*paths: Path) -> None:
    try:
        git(HERE, "add", "--all", "--", *map(str, paths))
    except UserError as error:
        error.add_note("mend that, then run 'reprise merge-lock' again")
        raise


def _refuse_others(conflicts: list[Path], resolved: list[Path]) -> None:
    rest = [p for p in conflicts if not any(p == path or path in p.parents for path in resolved)]
    if rest:
        raise UserError(
            "what runs is decided by files that still have conflicts:\n  "
            + "\n  ".join(str(path) for path in rest)
            + "\n  resolve them, 'git add' them, then 'reprise merge-lock'"
        )


def _tracked_outputs(locks: list[Path]) -> list[Path]:
    """Outputs that either side's lock names: those that git tracks may have conflicts too."""
    paths = []
    for number in (2, 3):
        for lock, content in _read_side(locks, number).items():
            for entry in (content.get("stages") or {}).values():
                paths += [lock.parent / out["path"] for out in entry.get("outs", [])]
    return paths


def _read_side(locks: list[Path], number: int) -> dict[Path, Any]:
    """The lock files of one side of the conflict; a side may not have had one."""
    from dvc.utils.serialize import parse_yaml_for_update

    texts = {lock: _staged(lock, number) or "" for lock in locks}
    return {lock: parse_yaml_for_update(text, str(lock)) for lock, text in texts.items()}


def _staged(path: Path, number: int) -> str | None:
    """The content of a file on one side of its conflict, None where that side has none."""
    done = try_git(HERE, "cat-file", "blob", f":{number}:./{path}")
    return done.stdout if done.returncode == 0 else None


@contextmanager
def _locks_from(contents: Mapping[Path, Any]) -> Iterator[None]:
    """Let DVC read these instead of the lock files with the conflicts."""
    from dvc.dvcfile import Lockfile

    read = Lockfile._load

    def load(self: Any, **options: Any) -> Any:
        content = contents.get(Path(self.relpath))
        return read(self, **options) if content is None else (content, "")

    with mock.patch.object(Lockfile, "_load", load):
        yield


def _choose(repo: Any, sides: Mapping[str, Mapping[Path, Any]]) -> list[Choice]:
    """Go through the stages, upstream first, and take each from the side that fits."""
    from dvc.repo.index import Index

    forecast = Forecast(repo, lock_only=True, merging=True)
    order = in_order(repo, active_graph(repo), ())
    found: dict[str, dict[str, Any]] = {}
    for side, contents in sides.items():
        with _locks_from(contents):
            found[side] = {stage.addressing: stage for stage in Index.from_repo(repo).stages}
    choices = []
    for stage in order:
        if stage.is_data_source:
            forecast.judge(stage)
            continue
        verdicts = {}
        for side in sides:
            candidate = found[side][stage.addressing]
            why, _ = forecast.judge_inputs(candidate)
            verdicts[side] = (candidate, tuple(dict.fromkeys(map(describe, why))))
        fits = [side for side, (_, why) in verdicts.items() if not why]
        # Of one that must run, HEAD's: then the outputs that lie there are those of one run.
        has = [side for side, (_, why) in verdicts.items() if "never run" not in why]
        side = (fits or has or list(sides))[0]
        candidate, why_not = verdicts[side]
        forecast.leave(candidate, candidate.outs if fits else None)
        choices.append(Choice(candidate, side, why_not))
    return choices


def _bring_outputs(choices: list[Choice], history: History, conflicts: list[Path]) -> list[str]:
    """Put the chosen side's metrics and plots in place; return those that no commit holds."""
    lost = []
    for choice in choices:
        for out in choice.stage.outs:
            if out.use_cache or out.protocol != "local":
                continue
            path = Path(str(out))
            unmerged = [p for p in conflicts if p == path or path in p.parents]
            files = None
            if out.hash_info:
                known = Locked(str(path), out.hash_info.value, out.meta.size, out.meta.nfiles)
                files = history.find(known)
            if files is None and not unmerged:
                continue  # what lies there is judged by DVC as ever
            if files is None:
                lost.append(str(path))
                _check_out_ours(unmerged)
            else:
                _place(path, files)
            _add(path)
    return lost


def _check_out_ours(paths: list[Path]) -> None:
    for path in paths:
        if _staged(path, 2) is None:
            path.unlink(missing_ok=True)  # HEAD has none
        else:
            git(HERE, "checkout", "--ours", "--", str(path))


def _place(path: Path, files: Mapping[str, bytes]) -> None:
    if path.is_dir():
        tracked = names_of(git(HERE, "ls-files", "-z", "--", str(path)))
        for name in set(tracked) - files.keys():
            Path(name).unlink(missing_ok=True)
    for name, content in files.items():
        file = Path(name)
        if file.is_file() and file.read_bytes() == content:
            continue
        file.parent.mkdir(parents=True, exist_ok=True)
        write_whole(file, content)


def _merged(lock: Path, choices: list[Choice], sides: Mapping[str, Mapping[Path, Any]]) -> Any:
    """The lock file: the chosen entries, in HEAD's order; of stages that are gone, none."""
    chosen = {
        choice.stage.name: (sides[choice.side][lock].get("stages") or {}).get(choice.stage.name)
        for choice in choices
        if Path(choice.stage.relpath).with_suffix(".lock") == lock
    }
    ours, theirs = (side[lock] for side in sides.values())
    if ours.get("datasets") != theirs.get("datasets"):
        raise UserError(f"{lock}: the two sides have different datasets: resolve it by hand")
    names = dict.fromkeys([*(ours.get("stages") or {}), *(theirs.get("stages") or {})])
    merged = {key: value for key, value in (ours or theirs).items() if key != "stages"}
    merged["stages"] = {name: chosen[name] for name in names if chosen.get(name) is not None}
    return merged


def _show(choices: list[Choice], lost: list[str]) -> None:
    table = Table()
    table.add_column("stage", overflow="fold")
    table.add_column("entry of", no_wrap=True)
    table.add_column("must run", overflow="fold", ratio=1)
    for choice in choices:
        why = "\n".join(escape(line) for line in choice.why)
        table.add_row(escape(choice.stage.addressing), choice.side, why)
    Console().print(table)
    for path in lost:
        click.echo(f"{path}: no commit has the version of dvc.lock; it is HEAD's now")
    stale = [choice.stage.addressing for choice in choices if choice.why]
    click.echo(f"dvc.lock is resolved; {len(stale)} of {len(choices)} stages must run")
    click.echo("next: dvc checkout, dvc repro, git add, and commit (or continue the rebase)")
