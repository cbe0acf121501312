"""DVC's remotes: can they be read, and written? One that is elsewhere is asked with `--network`."""

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pipeline.common.git import hide_secrets
from pipeline.doctor.finding import Finding, Options, note, ok, wrong
from pipeline.doctor.places import dvc_config

AREA = "remotes"
SECONDS = 30.0
PUSH = "nobody else gets your outputs, and 'dvc push' fails"
PULL = "'dvc pull' fails: what is not in this machine's cache has to be computed again"
# A small file is written and removed: whoever may list a bucket may still not write to it.
ASK = """
import json, sys
from dvc.repo import Repo
name, probe = sys.argv[1:]
said = {}
with Repo() as repo:
    try:
        odb = repo.cloud.get_remote_odb(name)
        path = odb.fs.join(odb.path, probe)
        try:
            odb.fs.info(odb.path)
        except FileNotFoundError:
            pass  # nothing was pushed yet
    except Exception as error:
        said["read"] = f"{type(error).__name__}: {error}"
    else:
        try:
            odb.fs.pipe_file(path, b"written by reprise doctor")
            odb.fs.rm_file(path)
        except Exception as error:
            # Over HTTP, that nobody is there comes out only here.
            kind = "read" if "Connect" in type(error).__name__ else "write"
            said[kind] = f"{type(error).__name__}: {error}"
print(json.dumps(said))
"""


def check(options: Options) -> Iterator[Finding]:
    """Yield whether each remote can be read and written."""
    config = dvc_config()
    default = (config.get("core") or {}).get("remote")
    remotes: Mapping[str, Any] = config.get("remote") or {}
    if not remotes:
        yield ok("no remote: outputs stay on this machine")
        return
    if default is not None and default not in remotes:
        why = "'dvc push' and 'dvc pull' fail"
        yield wrong(f"the default remote '{default}' is not defined", why, "dvc remote list")
    if default is None:
        why = "'dvc push' and 'dvc pull' ask for its name each time"
        yield note("no remote is the default", why, f"dvc remote default {next(iter(remotes))}")
    for name, remote in remotes.items():
        url = str(remote.get("url", ""))
        if "://" not in url:
            yield from check_folder(name, Path(".dvc") / Path(url).expanduser())
        elif options.network:
            yield from ask_elsewhere(name, hide_secrets(url))
        else:
            shown = hide_secrets(url)
            yield ok(f"'{name}' ({shown}) was not asked: 'reprise doctor --network' does")


def check_folder(name: str, folder: Path) -> Iterator[Finding]:
    """Yield whether a remote that is a folder can be read and written."""
    shown = os.path.normpath(folder)
    if not folder.is_dir():
        there = next(each for each in folder.absolute().parents if each.exists())
        if os.access(there, os.W_OK):
            yield note(f"'{name}': there is no {shown} yet", "nothing to pull", "dvc push")
        else:
            mend = f"mkdir -p {shown}   # or mount what should be there"
            yield wrong(f"'{name}': there is no {shown}, and it can't be made", PUSH, mend)
    elif not os.access(folder, os.R_OK | os.X_OK):
        yield wrong(f"'{name}': {shown} can't be read", PULL, f"ls -ld {shown}")
    else:
        probe = folder / f".reprise-doctor-{uuid.uuid4().hex}"
        try:
            probe.touch()
            probe.unlink()
        except OSError as error:
            reason = error.strerror or str(error)
            yield wrong(f"'{name}': {shown} can't be written ({reason})", PUSH, f"ls -ld {shown}")
            return
        yield ok(f"'{name}' can be read and written")


def ask_elsewhere(name: str, url: str) -> Iterator[Finding]:
    """Yield what a remote over the network says to being read and written."""
    probe = f"reprise-doctor-{uuid.uuid4().hex}"
    try:
        done = subprocess.run(
            [sys.executable, "-c", ASK, name, probe],
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        said = json.loads((done.stdout.splitlines() or ["{}"])[-1])
        if done.returncode != 0:
            said = {"read": (done.stderr.strip().splitlines() or ["no answer"])[-1]}
    except subprocess.TimeoutExpired:
        said = {"read": f"no answer in {SECONDS:.0f} s"}
    show = f"dvc remote modify --local {name} …   # its credentials; they stay out of git"
    if "read" in said:
        yield wrong(f"'{name}' ({url}) can't be read: {_line(said['read'])}", PULL, show)
    elif "write" in said:
        # Those over HTTP are often meant to be read alone.
        make = note if url.startswith("http") else wrong
        yield make(f"'{name}' ({url}) can't be written: {_line(said['write'])}", PUSH, show)
    else:
        yield ok(f"'{name}' ({url}) can be read and written")


def _line(text: str) -> str:
    lines = hide_secrets(text).strip().splitlines() or [""]
    return lines[0][:200]
