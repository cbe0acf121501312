"""Objects in storage: what stands at an address now, and its bytes as files of this machine.

What an object holds is known by its version, the ETag that the storage gives it and that DVC
records. It follows the bytes and the parts in which they were uploaded, and need be no MD5.
"""

import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import PurePosixPath
from threading import Event
from typing import Any, BinaryIO

from stages.common.addresses import FETCHED, STORES, find_fault, is_plain_name, local_path
from stages.common.errors import Problem, UserError, shorten
from stages.runtime.storage_errors import explained

# So much is asked for at once, and held in memory, by each of the connections.
BLOCK_BYTES = 16 << 20
NUM_CONNECTIONS = 4
# A server that does not answer is told of after some seconds, and not after minutes.
CONNECT_SECONDS = 3
READ_SECONDS = 10
NUM_ATTEMPTS = 2


@dataclass(frozen=True)
class StoredObject:
    """An object as it is at one moment: its version, and its size in bytes."""

    version: str
    size: int


@dataclass(frozen=True)
class Listing:
    """All that stands at an address, which `key` of `params.yaml` names.

    `objects` are by their names below it; a single object has the empty name.
    """

    address: str
    key: str | None
    objects: Mapping[str, StoredObject]

    @property
    def num_bytes(self) -> int:
        """The bytes of all objects together."""
        return sum(each.size for each in self.objects.values())


def list_objects(address: str, key: str | None) -> Listing:
    """Ask the storage what stands at `address` now: an object, or else all under it as a prefix.

    This is DVC's order too, so that both mean the same. Raises UserError, with `key`, where there
    is nothing, where that can't be files, and where the storage can't be asked.
    """
    if fault := find_fault(address):
        raise UserError(Problem(fault, key))
    store, place = _open_store(address, key)
    with explained(address, key, store):
        objects = _find(store, place)
    if not objects:
        raise UserError(Problem(f"there is nothing under {address}", key, address))
    if fault := _find_clash(objects):
        raise UserError(Problem(f"{address} has {fault}", key, address))
    return Listing(address, key, objects)


def list_again(old: Listing) -> Listing:
    """Return what stands now where `old` stood: no objects, where all of them were deleted."""
    store, place = _open_store(old.address, old.key)
    with explained(old.address, old.key, store):
        try:
            objects = _find(store, place)
        except FileNotFoundError:
            objects = {}
    return Listing(old.address, old.key, objects)


@contextmanager
def fetched(reader: str, listings: list[Listing]) -> Iterator[None]:
    """Have what `listings` name in files at their `local_path` for `reader`, and remove it after.

    They come there when all are whole. Raises UserError where an object is no longer the one that
    was listed, and where the disk has no room.
    """
    folder, writing = FETCHED / reader, FETCHED / f"{reader}.writing-{os.getpid()}"
    # What a killed run has left.
    shutil.rmtree(folder, ignore_errors=True)
    try:
        for listing in listings:
            fetch(writing.name, listing)
        if listings:
            writing.rename(folder)
        yield
    finally:
        shutil.rmtree(writing, ignore_errors=True)
        shutil.rmtree(folder, ignore_errors=True)


def name_reader(command: str) -> str:
    """The reader that is this process of a command, of which several may run at once."""
    return f"{command}-{os.getpid()}"


def fetch(reader: str, listing: Listing) -> None:
    """Write the objects of `listing` to their `local_path` for `reader`, several at once."""
    target = local_path(reader, listing.address)
    target.parent.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(target.parent).free
    if listing.num_bytes > free:
        message = (
            f"{listing.address} has {listing.num_bytes:,} bytes, which are fetched into {FETCHED} "
            f"while they are read, and its disk has {free:,} left"
        )
        raise UserError(Problem(message, listing.key, listing.address))
    store, place = _open_store(listing.address, listing.key)
    stopped = Event()

    def fetch_one(name: str) -> None:
        path = target / name if name else target
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            _copy(store, f"{place}/{name}" if name else place, listing, name, file, stopped)

    with ThreadPoolExecutor(NUM_CONNECTIONS) as pool:
        try:
            for _ in pool.map(fetch_one, listing.objects):
                pass
        finally:
            # After an error or a signal nobody waits for the others.
            stopped.set()
            pool.shutdown(cancel_futures=True)


def read_range(listing: Listing, name: str, start: int, end: int) -> bytes:
    """The bytes from `start` to `end` of an object of `listing`."""
    store, place = _open_store(listing.address, listing.key)
    with explained(listing.address, listing.key, store):
        path = f"{place}/{name}" if name else place
        found: bytes = store.cat_file(path, start=start, end=end)
    return found


def find_differences(old: Listing, now: Listing) -> Iterator[str]:
    """A few words on each object that is another than it was."""
    for name in sorted({*old.objects, *now.objects}):
        shown = f"{old.address.rstrip('/')}/{name}" if name else old.address
        if name not in now.objects:
            yield f"{shown} was deleted"
        elif name not in old.objects:
            yield f"{shown} is new"
        elif now.objects[name] != old.objects[name]:
            yield f"{shown} was replaced"


def _open_store(address: str, key: str | None) -> tuple[Any, str]:
    """The storage of an address, by fsspec, and the address as that spells it."""
    scheme, _, rest = address.partition("://")
    try:
        import fsspec

        # It remembers no listing: what is asked for later is what stands there then.
        options: dict[str, Any] = {"skip_instance_cache": True, "use_listings_cache": False}
        if scheme == "s3":
            options["config_kwargs"] = {
                "connect_timeout": CONNECT_SECONDS,
                "read_timeout": READ_SECONDS,
                "retries": {"total_max_attempts": NUM_ATTEMPTS},
            }
        with explained(address, key, None):
            store = fsspec.filesystem(STORES[scheme].protocol, **options)
    except ImportError:
        command = f"pip install --constraint constraints.txt {STORES[scheme].package}"
        message = f"{scheme}:// needs a library that is not installed: {command}"
        raise UserError(Problem(message, key, address)) from None
    return store, rest.rstrip("/")


def _find(store: Any, place: str) -> dict[str, StoredObject]:
    """The objects at a place by their names below it. Raises what the storage's client raises."""
    # s3fs asks five times by itself: of blocks of a long object that is right, a question is short.
    store.retries = 1
    found: dict[str, Any] = store.info(place)
    if found["type"] == "file":
        return {"": _described(found)}
    below: dict[str, Any] = store.find(place, detail=True)
    # A name with a slash at its end is a mark that consoles leave for a folder.
    paths = sorted(path for path in below if not path.endswith("/"))
    return {path.removeprefix(f"{place}/"): _described(below[path]) for path in paths}


def _find_clash(names: Iterable[str]) -> str | None:
    """The first object that can be no file in a folder beside the others, in words."""
    known = set(names) - {""}
    for name in sorted(known):
        if not is_plain_name(name):
            return f"an object that can be no file in a folder: {shorten(repr(name))}"
        parents = {str(parent) for parent in PurePosixPath(name).parents}
        if clash := parents & known:
            # Storage knows no folders; a disk does.
            both = f"{shorten(repr(min(clash)))} and {shorten(repr(name))}"
            return f"objects of which one would be a file and the folder of the other: {both}"
    return None


def _described(info: Mapping[str, Any]) -> StoredObject:
    version = info.get("ETag") or info.get("etag")
    if not version:
        message = f"the storage gives no ETag of {info['name']}, by which a change of it is seen"
        raise UserError(f"{message}: bring it in with 'dvc import-url'")
    return StoredObject(str(version).strip('"'), int(info["size"]))


def _copy(
    store: Any, path: str, listing: Listing, name: str, file: BinaryIO, stopped: Event
) -> None:
    """Write an object into `file`: all of it is of the version that was listed.

    It ends in the middle once `stopped` is set.
    """
    num_bytes = 0
    with explained(listing.address, listing.key, store):
        # S3 is asked for each block with `If-Match`, and refuses that of another version.
        source = store.open(path, "rb", block_size=BLOCK_BYTES, cache_type="none")
    with source:
        while not stopped.is_set():
            with explained(listing.address, listing.key, store):
                block = source.read(BLOCK_BYTES)
            if not block:
                break
            num_bytes += file.write(block)
    if stopped.is_set():
        return
    with explained(listing.address, listing.key, store):
        versions = {_described(source.details), _described(store.info(path))}
    if versions != {listing.objects[name]}:
        message = f"{listing.address} was changed while it was fetched: run this again"
        raise UserError(Problem(message, listing.key, listing.address))
    if num_bytes != listing.objects[name].size:
        message = (
            f"of {path} {num_bytes:,} bytes came, and it has {listing.objects[name].size:,}: "
            "run this again"
        )
        raise UserError(Problem(message, listing.key, listing.address))
