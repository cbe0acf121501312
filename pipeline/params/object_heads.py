"""The heads of tables in object storage, as files here: what a check reads of them.

Of a text that is its beginning, of Parquet and Arrow the beginning and the end, with nothing in
between; of a prefix the names, and the head of the first table, or else of the first image. They
are kept until the objects are other ones.
"""

import hashlib
import os
import shutil
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipeline.common.processes import find_by_id
from stages.common.addresses import FETCHED, find_fault, is_object, local_path, name_objects
from stages.common.config import get_path
from stages.common.errors import Problem, UserError
from stages.formats.images.folder import SUFFIXES as IMAGES
from stages.formats.suffixes import SUFFIXES
from stages.formats.text.compressed import suffix_of
from stages.runtime.object_storage import Listing, list_objects, read_range

KEYS = ("prepare.source", "infer.input")
# How the folders of heads begin, in that of what is fetched.
HEAD = "head-"
DIGEST_LENGTH = 12
# Of the end of a file, and twice as many of its beginning: what is looked at of a text is less.
SIDE_BYTES = 4 << 20
# These are known by their end.
FOOTED = (".parquet", ".arrow", ".feather", ".ipc")
# A folder of more files is what its first ones say it is.
MAX_NAMES = 1000


def with_heads(tree: Any) -> tuple[Any, list[Problem]]:
    """`tree` with the paths of heads in place of addresses, and what is wrong with these.

    An address that leads nowhere stays, and so does what is no tree. Messages about the heads are
    to be put right by `name_problems`.
    """
    found, problems = tree, list[Problem]()
    for key in KEYS:
        try:
            value = get_path(found, key)
        except (KeyError, TypeError):
            continue
        if not isinstance(value, str) or not is_object(value) or find_fault(value):
            continue
        try:
            path = fetch_head(list_objects(value, key))
        except UserError as error:
            problems += error.problems
            continue
        section, name = key.split(".")
        found = deepcopy(found)
        # A name with a dot in it is one of a folder by the slash at its end.
        found[section][name] = f"{path}/" if value.endswith("/") else str(path)
    return found, problems


def name_problems(problems: list[Problem]) -> list[Problem]:
    """The problems with the addresses of objects in place of the paths of heads."""
    return [
        replace(
            each,
            message=name_objects(each.message),
            value=None if each.value is None else name_objects(each.value),
        )
        for each in problems
    ]


def fetch_head(listing: Listing) -> Path:
    """The path of the head of what stands at an address. Raises UserError as `read_range`."""
    digest = hashlib.md5(repr(listing).encode()).hexdigest()[:DIGEST_LENGTH]
    kept = FETCHED / f"{HEAD}{listing.key}-{digest}"
    if not kept.exists():
        writing = kept.with_name(f"{kept.name}-{os.getpid()}")
        try:
            _write(listing, local_path(writing.name, listing.address))
            _put_in_place(writing, kept)
            for old in FETCHED.glob(f"{HEAD}{listing.key}-*"):
                if old != kept and not is_written(old.name):
                    shutil.rmtree(old, ignore_errors=True)
        except OSError as error:
            raise UserError(f"cannot write under {FETCHED}: {error.strerror or error}") from None
        finally:
            shutil.rmtree(writing, ignore_errors=True)
    return local_path(kept.name, listing.address)


def is_written(name: str) -> bool:
    """Check whether the process whose number a folder's name ends with runs."""
    number = name.rpartition("-")[2]
    # A digest that has digits alone is longer than any number of a process.
    is_number = number.isascii() and number.isdigit() and len(number) < DIGEST_LENGTH
    return is_number and find_by_id(int(number)) is not None


def _put_in_place(writing: Path, kept: Path) -> None:
    try:
        writing.rename(kept)
    except OSError:
        # Unless another check was here first, with the same.
        if not kept.exists():
            raise


def _write(listing: Listing, target: Path) -> None:
    """Write the head of an object, or of all under a prefix: the first table, and names."""
    if "" in listing.objects:
        _write_head(listing, "", target)
        return
    names = list(listing.objects)[:MAX_NAMES]
    for name in names:
        path = target / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    tables = [name for name in names if is_table(name)]
    # A manifest says what the files beside it are.
    tables.sort(key=lambda name: not name.lower().startswith("manifest."))
    # Of images the first says how large they are.
    images = [name for name in names if Path(name).suffix.lower() in IMAGES]
    for name in tables[:1] or images[:1]:
        _write_head(listing, name, target / name)


def is_table(name: str) -> bool:
    """Check whether a name right below a prefix is one of a table, and not left aside."""
    return "/" not in name and name[0] not in "._" and suffix_of(Path(name)) in SUFFIXES


def _write_head(listing: Listing, name: str, path: Path) -> None:
    size = listing.objects[name].size
    is_footed, start = suffix_of(path) in FOOTED, min(size, 2 * SIDE_BYTES)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(read_range(listing, name, 0, start) if start else b"")
        if is_footed and size > start:
            end = max(start, size - SIDE_BYTES)
            file.seek(end)
            file.write(read_range(listing, name, end, size))
