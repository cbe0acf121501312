"""The parts of DVC's cache and of `.reprise` that nothing needs any more.

Needed are the outputs that any branch (of remotes too, as last fetched), tag, experiment, the
working folder or a kept workspace names, and those of run-cache entries that are recent. A
run-cache entry stays as long as all its outputs do, so none ever points at one that is gone.
"""

import json
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.common.git import git
from pipeline.common.processes import find_by_id
from pipeline.common.rwlock import RWLOCK
from pipeline.run.run_lock import LOCK as RUN_LOCK
from pipeline.scheduled.shared_cache import CHECKPOINTS, checkpoints_folder
from pipeline.scheduled.workspace import WORKSPACES, find_project
from stages.common.errors import UserError
from stages.common.yamlfile import read_yaml
from stages.locks import is_free, lock_of

DAY = 24 * 3600


@dataclass
class Garbage:
    """Everything that can go: run-cache entries, objects by the output they were, folders.

    And lock files of checkpoints that are gone; those of the folders go with these.
    """

    entries: list[Path] = field(default_factory=list)
    objects: dict[str, list[Path]] = field(default_factory=dict)
    folders: list[Path] = field(default_factory=list)
    locks: list[Path] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.entries or self.objects or self.folders or self.locks)


def find_garbage(repo: Any, days: int) -> Garbage:
    """All that can go, with `days` as the age up to which a run is recent.

    Must be called under DVC's lock. Raises UserError while a stage runs, and when the DVC files
    of a branch can't be read: what that needs is then not known.
    """
    _refuse_running()
    oldest = time.time() - days * DAY
    garbage = Garbage()
    # Those of scheduled runs lie beside the cache where that lies elsewhere.
    shared = checkpoints_folder(Path(repo.root_dir), Path(repo.cache.legacy.path))
    kinds = {kind.resolve(): kind for kind in (shared, WORKSPACES, CHECKPOINTS)}
    for kind in kinds.values():
        folders = [path for path in sorted(kind.glob("*")) if path.is_dir()]
        garbage.folders += [
            path for path in folders if is_free(lock_of(path)) and newest(path) < oldest
        ]
        locks = sorted(kind.glob("*.lock")) if kind != WORKSPACES else ()
        garbage.locks += [
            path
            for path in locks
            if not path.with_suffix("").exists() and is_free(path) and newest(path) < oldest
        ]
    needed = _needed_by_git(repo)
    for folder in sorted(WORKSPACES.glob("*")):
        project = find_project(Path(repo.root_dir), folder)
        if folder not in garbage.folders and (project / ".dvc").is_dir():
            needed |= _needed_by_workspace(project)
    entries = {path: _read_entry(repo, path) for path in _entries(repo)}
    for path, outs in entries.items():
        if path.stat().st_mtime >= oldest:
            needed.update(*outs.values())
    names: dict[str, str] = {}
    for path, outs in entries.items():
        if not needed.issuperset(set().union(*outs.values())):
            garbage.entries.append(path)
            names |= {digest: name for name, digests in outs.items() for digest in digests}
    for digest, path in _objects(repo):
        if digest not in needed:
            garbage.objects.setdefault(names.get(digest, "others"), []).append(path)
    return garbage


def _refuse_running() -> None:
    """Stop while anything runs: what it needs next is written nowhere yet.

    DVC gives its lock away while a stage runs, and then only lists the paths that it uses.
    """
    runs = {lock_of(f): f"the run in {f}" for f in WORKSPACES.glob("*") if f.is_dir()}
    for lock, what in {RUN_LOCK: "a run", **runs}.items():
        if not is_free(lock):
            raise UserError(f"{what} is going: try again when it has ended")
    if not RWLOCK.exists():
        return
    listed = json.loads(RWLOCK.read_text(encoding="utf-8"))
    holders = list(listed.get("write", {}).values())
    holders += [holder for readers in listed.get("read", {}).values() for holder in readers]
    for holder in holders:
        if find_by_id(int(holder["pid"])) is not None:
            raise UserError(
                f"a stage is running (process {holder['pid']}: {holder['cmd']}): "
                "try again when it has ended"
            )


def _needed_by_git(repo: Any) -> set[str]:
    """Every hash that the working folder, a branch, a tag, an experiment or HEAD names.

    Of the branches of remotes too: without a DVC remote, what somebody has pushed to one has its
    outputs nowhere but here.
    """
    from dvc.exceptions import DvcException

    needed: set[str] = set()
    listed = git(Path(repo.root_dir), "for-each-ref", "--format=%(refname)", "refs/remotes")
    named = [*(["HEAD"] if _has_commits(repo) else []), *listed.split()]
    revisions = repo.brancher(revs=named, all_branches=True, all_tags=True, all_experiments=True)
    revision = "workspace"
    try:
        for revision in revisions:  # noqa: B007, for the message
            needed |= _named_hashes(repo.index.stages)
    except DvcException as error:
        raise UserError(
            f"cannot read what '{revision}' needs: {error}\n"
            "  mend or delete that branch or tag ('git fetch --prune' forgets those that a remote "
            "has no more); until then nothing is freed"
        ) from None
    return needed


def _has_commits(repo: Any) -> bool:
    from scmrepo.exceptions import SCMError

    try:
        return bool(repo.scm.get_rev())
    except SCMError:
        return False


def _needed_by_workspace(folder: Path) -> set[str]:
    from dvc.repo import Repo

    with Repo(str(folder)) as repo:
        return _named_hashes(repo.index.stages)


def _named_hashes(stages: Iterable[Any]) -> set[str]:
    """The outputs' hashes; of folders also those of their files, as far as the list is here.

    Metrics and plots count too: DVC restores a run only when the cache has a copy of them.
    """
    hashes: set[str] = set()
    for stage in stages:
        for out in stage.outs:
            if out.hash_info and out.is_in_repo:
                hashes |= _with_files(out.hash_info, out.get_obj())
    return hashes


def _with_files(hash_info: Any, loaded: Any) -> set[str]:
    if not hash_info.isdir or loaded is None:
        return {hash_info.value}
    return {hash_info.value, *(info.value for _, _, info in loaded)}


def _entries(repo: Any) -> Iterator[Path]:
    for path in sorted(Path(repo.stage_cache.cache_dir).glob("*/*/*")):
        if path.is_file():
            yield path


def _read_entry(repo: Any, path: Path) -> dict[str, set[str]]:
    """The hashes that a run-cache entry needs, by the output's path."""
    from dvc_data.hashfile.hash_info import HashInfo
    from dvc_data.hashfile.tree import Tree
    from dvc_objects.errors import ObjectFormatError

    outs: dict[str, set[str]] = {}
    for out in read_yaml(path).get("outs", []):
        info = HashInfo("md5", out["md5"])
        try:
            tree = Tree.load(repo.cache.local, info) if info.isdir else None
        except (FileNotFoundError, ObjectFormatError):
            tree = None
        outs[out["path"]] = _with_files(info, tree)
    return outs


def _objects(repo: Any) -> Iterator[tuple[str, Path]]:
    """The objects in the cache, lists of folders first: without its files a list is useless."""
    found = []
    for path in Path(repo.cache.local.path).glob("[0-9a-f][0-9a-f]/*"):
        digest = f"{path.parent.name}{path.name}"
        if len(digest.removesuffix(".dir")) == 32:
            found.append((digest, path))
    yield from sorted(found, key=lambda item: (not item[0].endswith(".dir"), item[0]))


def newest(folder: Path) -> float:
    """The time of the last change of anything in `folder`."""
    return max(path.lstat().st_mtime for path in (folder, *folder.rglob("*")))
