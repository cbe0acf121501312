"""Takes the result of a stage that ran in a work pool into the working folder.

Its entry of `dvc.lock` and the outputs that git tracks come along; what DVC caches stays in DVC's
remote until somebody needs it.
"""

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pipeline.common.atomic import write_whole
from pipeline.common.dvc_repo import locked, write_lock
from pipeline.common.git import names_of, try_git_bytes
from pipeline.elsewhere.inputs import Inputs
from pipeline.elsewhere.refs import note_taken
from pipeline.plan.remote_outputs import note_remote_outputs
from stages.common.errors import UserError

# What no key of a file of parameters holds.
MISSING = object()


class UnusableResultError(UserError):
    """A result of other inputs, or not whole: no later try could take it either."""


def take_result(
    repo: Any,
    inputs: Inputs,
    commit: str,
    key: str,
    on_begin: Callable[[], None] = lambda: None,
) -> None:
    """Take the result of `key` that lies in `commit`; killed in the middle, it can be taken again.

    `on_begin` is called once nothing can refuse it any more, before anything changes.
    Raises UnusableResultError where it is of other inputs or not whole; nothing is changed then.
    """
    folder = Path(repo.root_dir)
    entry = _read_entry(folder, inputs, commit)
    _check_inputs(inputs, entry)
    hashes = {out["path"]: str(out.get("md5")) for out in entry.get("outs", [])}
    lacking = [str(out) for out in inputs.stage.outs if out.def_path not in hashes]
    if lacking:
        raise UnusableResultError(f"the result {commit[:10]} has no {', '.join(lacking)}")
    files: dict[str, bytes] = {}
    for out in inputs.stage.outs:
        if not out.use_cache:
            files |= _read_tracked(folder, commit, str(out), hashes[out.def_path])
    cached = {str(out): hashes[out.def_path] for out in inputs.stage.outs if out.use_cache}
    with locked(repo):
        on_begin()
        for out in inputs.stage.outs:
            # As DVC does before it runs a stage.
            if not _is_current(out, hashes[out.def_path]):
                out.remove()
        for name, content in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            write_whole(folder / name, content)
        with repo.scm_context(quiet=True):
            inputs.stage.ignore_outs()
        note_remote_outputs(inputs.stage.addressing, cached)
        # From here on the stage is up to date.
        _write_entry(folder / inputs.lock, inputs.stage.name, entry)
        note_taken(folder, key)
        _note_run(repo, inputs.stage.addressing)


def _note_run(repo: Any, name: str) -> None:
    """Have DVC's cache know the run, as one that went here: it can be restored, once pulled."""
    repo._reset()
    for stage in repo.index.stages:
        if stage.addressing == name:
            repo.stage_cache.save(stage)


def _read_entry(folder: Path, inputs: Inputs, commit: str) -> Any:
    from dvc.utils.serialize import YAMLFileCorruptedError, parse_yaml_for_update

    text = _read_blob(folder, commit, str(inputs.lock)) or b""
    try:
        content = parse_yaml_for_update(text.decode(), str(inputs.lock)) or {}
    except (YAMLFileCorruptedError, UnicodeDecodeError):
        content = {}
    entry = (content.get("stages") or {}).get(inputs.stage.name)
    if entry is None:
        raise UnusableResultError(
            f"the result {commit[:10]} has no entry of '{inputs.stage.addressing}' in {inputs.lock}"
        )
    return entry


def _check_inputs(inputs: Inputs, entry: Mapping[str, Any]) -> None:
    """Refuse a result of other inputs: with it `dvc.lock` would lie."""
    theirs = {d["path"]: str(d.get("md5") or d.get("etag")) for d in entry.get("deps", [])}
    differing = [path for path, digest in inputs.hashes.items() if theirs.get(path) != digest]
    params = entry.get("params", {})
    for path, values in inputs.params.items():
        found = params.get(path, {})
        keys = sorted({*values, *found})
        differing += [
            f"{path}:{key}" for key in keys if values.get(key, MISSING) != found.get(key, MISSING)
        ]
    if entry.get("cmd") != inputs.stage.cmd:
        differing.append("the command")
    if differing:
        what = ", ".join(differing)
        raise UnusableResultError(
            f"the worker ran '{inputs.stage.addressing}' with other content than was sent: {what}\n"
            "  is its clone one of the same repository, with the same settings of git "
            "(core.autocrlf) and DVC?"
        )


def _read_tracked(folder: Path, commit: str, path: str, digest: str) -> dict[str, bytes]:
    """The files of an output that git tracks. Raises UserError where they are not the whole."""
    listed = try_git_bytes(folder, "ls-tree", "-r", "-z", "--name-only", commit, "--", path)
    names = names_of(listed.stdout.decode("utf-8", "surrogateescape"))
    files = {name: _read_blob(folder, commit, name) or b"" for name in names}
    if digest.endswith(".dir"):
        return {n: content for n, content in files.items() if Path(n).name != ".gitignore"}
    if set(files) != {path} or hashlib.md5(files[path]).hexdigest() != digest:
        raise UnusableResultError(
            f"the result {commit[:10]} has not the {path} that its dvc.lock names"
        )
    return files


def _read_blob(folder: Path, commit: str, path: str) -> bytes | None:
    done = try_git_bytes(folder, "cat-file", "blob", f"{commit}:./{path}")
    return done.stdout if done.returncode == 0 else None


def _is_current(out: Any, digest: str) -> bool:
    """Check that the output that lies here is that of the result."""
    return bool(out.exists and out.get_hash().value == digest)


def _write_entry(lock: Path, name: str, entry: Any) -> None:
    from dvc.utils.serialize import parse_yaml_for_update

    text = lock.read_text(encoding="utf-8") if lock.exists() else "schema: '2.0'\nstages: {}\n"
    content = parse_yaml_for_update(text, str(lock))
    content["stages"][name] = entry
    write_lock(lock, content)
