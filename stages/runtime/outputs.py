"""A stage's outputs appear whole or not at all, and a failed run brings the last ones back.

DVC deletes all outputs of a stage before it runs the command. So a stage writes into a folder
of its own and renames at the end; when it fails, what `dvc.lock` names is copied back from
DVC's cache by its hash, or, for metrics and plots, from git's index.
"""

import configparser
import hashlib
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from stages.common.errors import UserError
from stages.common.files import md5
from stages.common.yamlfile import read_yaml

DATA = Path("data")
WRITING = DATA / ".writing"
LOCK = Path("dvc.lock")


@contextmanager
def stage_outputs(stage: str) -> Iterator[Path]:
    """An empty folder to write into; its entries become those of `data/<stage>` at the end.

    On any failure the folder is thrown away and the outputs that `dvc.lock` names are restored.
    """
    try:
        work = _work_folder(stage)
        try:
            yield work
            _publish(work, DATA / stage)
        finally:
            shutil.rmtree(work, ignore_errors=True)
    except BaseException as error:
        for note in say_missing(restore(stage)):
            error.add_note(note)
        raise


def _work_folder(stage: str) -> Path:
    try:
        WRITING.mkdir(parents=True, exist_ok=True)
        # What a killed run left of this stage's: none other runs now.
        for old in WRITING.glob(f"{stage}-*"):
            shutil.rmtree(old, ignore_errors=True)
        return Path(tempfile.mkdtemp(prefix=f"{stage}-", dir=WRITING))
    except OSError as error:
        raise UserError(f"cannot write under {WRITING}: {error.strerror or error}") from None


def _publish(work: Path, target: Path) -> None:
    placed: list[str] = []
    old = work / ".old"
    try:
        target.mkdir(parents=True, exist_ok=True)
        names = sorted(entry.name for entry in work.iterdir())
        old.mkdir()
        for name in names:
            # A rename cannot replace a folder that holds files: set the old one aside.
            if (target / name).exists():
                (target / name).rename(old / name)
            (work / name).rename(target / name)
            placed.append(name)
        flush(target)
    except OSError as error:
        for name in placed:
            (target / name).rename(work / name)
        for entry in old.glob("*"):
            entry.rename(target / entry.name)
        raise UserError(f"cannot write to {target}: {error.strerror or error}") from None


def flush_files(folder: Path) -> None:
    """Wait until the disk has every file in `folder`. Raises OSError."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            flush(path)


def flush(path: Path) -> None:
    """Wait until the disk has a file, or the names in a folder."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def restore(stage: str) -> dict[str, str]:
    """Bring back the outputs of `stage` that `dvc.lock` names; return those that are not back.

    With the reason: what the disk says, '' of what was not found. What stands there is left
    alone: DVC has removed what it is about to replace.
    """
    if not LOCK.exists():
        return {}
    entry = (read_yaml(LOCK).get("stages") or {}).get(stage) or {}
    caches = _cache_folders()
    missing: dict[str, str] = {}
    for out in entry.get("outs", []):
        path, digest = Path(out["path"]), str(out.get("md5", ""))
        try:
            files = _files_of(path, digest, caches)
            # Each of them, even if one is lost.
            restored = [_restore_file(file, expected, caches) for file, expected in files or []]
            if files is None or not all(restored):
                missing[str(path)] = ""
        except OSError as error:
            missing[str(path)] = error.strerror or str(error)
    return missing


def say_missing(missing: dict[str, str]) -> list[str]:
    """Notes on the outputs that are not back, and what to do about them."""
    said = []
    lost = [path for path, reason in missing.items() if not reason]
    if lost:
        # Whether they were here before DVC removed them, nothing tells any more.
        said.append(
            f"dvc.lock names outputs that neither DVC's cache nor git has: {', '.join(lost)}\n"
            "  nothing is lost if this clone never had them; 'dvc pull' fetches what a remote has "
            "of them"
        )
    for reason in sorted(set(missing.values()) - {""}):
        refused = [path for path, why in missing.items() if why == reason]
        said.append(
            f"the last outputs could not be put back ({reason}): {', '.join(refused)}\n"
            "  they are kept: mend that, then 'reprise check', revert the edit and 'dvc repro'"
        )
    return said


def _restore_file(path: Path, digest: str, caches: list[Path]) -> bool:
    temporary = path.with_name(f".{path.name}.restoring")
    # What one that was killed has left.
    temporary.unlink(missing_ok=True)
    if path.exists():
        return True
    content = _find(path, digest, caches)
    if content is None:
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return True


def _files_of(path: Path, digest: str, caches: list[Path]) -> list[tuple[Path, str]] | None:
    """The files of an output with their hashes; a folder's list lies in the cache as `.dir`."""
    if not digest.endswith(".dir"):
        return [(path, digest)]
    for cache in caches:
        listing = cache / digest[:2] / digest[2:]
        if listing.is_file():
            entries: list[dict[str, Any]] = json.loads(listing.read_text(encoding="utf-8"))
            return [(path / entry["relpath"], entry["md5"]) for entry in entries]
    return _folder_in_git(path, digest)


def _folder_in_git(path: Path, digest: str) -> list[tuple[Path, str]] | None:
    """The files of a folder in git's index, if DVC's hash of them together is `digest`."""
    names = _git("ls-files", "-z", "--", str(path))
    if not names:
        return None
    files = []
    for name in sorted(part for part in names.decode().split("\0") if part):
        content = _git("cat-file", "blob", f":./{name}")
        if content is None or Path(name).name == ".gitignore":
            continue
        files.append((Path(name), hashlib.md5(content).hexdigest()))
    listing = [{"md5": h, "relpath": f.relative_to(path).as_posix()} for f, h in files]
    whole = hashlib.md5(json.dumps(listing, sort_keys=True).encode()).hexdigest()
    return files if f"{whole}.dir" == digest else None


def _find(path: Path, digest: str, caches: list[Path]) -> bytes | None:
    for cache in caches:
        cached = cache / digest[:2] / digest[2:]
        if cached.is_file() and md5(cached) == digest:
            return cached.read_bytes()
    content = _git("cat-file", "blob", f":./{path.as_posix()}")
    return content if content is not None and hashlib.md5(content).hexdigest() == digest else None


def _git(*arguments: str) -> bytes | None:
    try:
        done = subprocess.run(["git", *arguments], capture_output=True, check=False, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def _cache_folders() -> list[Path]:
    """The folders in which DVC keeps files by hash: `cache.dir`, nearest configuration first."""
    home = Path(os.environ.get("DVC_GLOBAL_CONFIG_DIR", Path.home() / ".config" / "dvc"))
    system = Path(os.environ.get("DVC_SYSTEM_CONFIG_DIR", "/etc/xdg/dvc"))
    folders = []
    for config in (
        Path(".dvc/config.local"),
        Path(".dvc/config"),
        home / "config",
        system / "config",
    ):
        parser = configparser.ConfigParser(interpolation=None, strict=False)
        try:
            parser.read(config, encoding="utf-8")
        except configparser.Error:
            continue
        if parser.has_option("cache", "dir"):
            folders.append((config.parent / parser.get("cache", "dir")) / "files" / "md5")
    return [*folders, Path(".dvc/cache/files/md5")]
