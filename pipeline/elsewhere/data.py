"""Moves the outputs of single stages between the working folder, DVC's cache and DVC's remote."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.elsewhere.inputs import find_stage


def push_inputs(repo: Any, outs: Sequence[Any]) -> list[str]:
    """Push these outputs, and nothing else; return their paths.

    One that is neither here nor in the cache has come from the remote, or is missed by the worker.
    """
    here = [str(out) for out in outs if not out.changed_cache()]
    if here:
        repo.push(targets=here)
    return here


def missing_inputs(repo: Any, name: str) -> list[str]:
    """The inputs of a stage that DVC tracks and that are not in the working folder."""
    trie = repo.index.outs_trie
    missing = []
    for dep in find_stage(repo, name).deps:
        if dep.protocol != "local" or not dep.def_path:
            continue
        key = repo.fs.parts(dep.fs_path)
        if not Path(dep.fs_path).exists() and any(trie.prefixes(key)):
            missing.append(str(dep))
        elif trie.has_subtrie(key):
            # A folder around outputs may be here for what git has of it.
            inside = [out for out in trie.values(prefix=key) if out.use_cache]
            missing += [str(out) for out in inside if not Path(out.fs_path).exists()]
    return list(dict.fromkeys(missing))


def pull(repo: Any, paths: Sequence[str]) -> None:
    """Bring these outputs into the working folder, from the cache or the remote.

    Raises UserError, by way of `open_repo`, for what neither has.
    """
    if paths:
        repo.pull(targets=list(paths))


def push_outputs(repo: Any, name: str) -> None:
    """Push the outputs of a stage that has just run, and DVC's record of that run."""
    from dvc.stage.cache import RunCacheNotSupported

    repo.push(targets=[name])
    try:
        _push_run(repo, find_stage(repo, name))
    except RunCacheNotSupported:
        return  # of a remote over HTTP


def _push_run(repo: Any, stage: Any) -> None:
    """Push the record of one run; `dvc push --run-cache` would push those of all stages."""
    from dvc.fs import LocalFileSystem
    from dvc.stage.cache import RunCacheNotSupported, _can_hash, _get_stage_hash
    from dvc_objects.fs import generic

    # Of a stage that runs always, say, DVC keeps no record.
    if not _can_hash(stage):
        return
    key = _get_stage_hash(stage)
    folder = Path(repo.stage_cache._get_cache_dir(key))
    if not folder.is_dir():
        return
    odb = repo.cloud.get_remote_odb(None, "push --run-cache", hash_name="md5-dos2unix")
    if odb.fs.protocol in ("http", "https"):
        raise RunCacheNotSupported
    for file in sorted(folder.iterdir()):
        parts = file.relative_to(repo.cache.legacy.path).parts
        generic.copy(LocalFileSystem(), str(file), odb.fs, odb.fs.join(odb.path, *parts))
        # Metrics and plots too: to restore the run DVC wants them in its cache.
        used = repo.stage_cache.get_used_objs([(key, file.name)])
        for own, objs in used.items():
            repo.cloud.push(objs, odb=own)
