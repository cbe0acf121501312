"""Objects in storage: what stands at an address now, and its bytes as files of this machine.

What an object holds is known by its version, the ETag that the storage gives it and that DVC
records. It follows the bytes and the parts in which they were uploaded, and need be no MD5.
"""

import shutil
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Event
from typing import Any, BinaryIO

from stages.common.addresses import FETCHED, STORES, is_plain_name, local_path
from stages.common.errors import Problem, UserError
from stages.runtime.storage_errors import explained

# So much is asked for at once, and held in memory, by each of the connections.
BLOCK_BYTES = 16 << 20
NUM_CONNECTIONS = 4


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
    is nothing, and where the storage can't be asked.
    """
    store, place = _open_store(address, key)
    with explained(address, key, store):
        found: dict[str, Any] = store.info(place)
        if found["type"] == "file":
            return Listing(address, key, {"": _described(found)})
        below = store.find(place, detail=True)
    # A name with a slash at its end is a mark that consoles leave for a folder.
    names = {path: path.removeprefix(f"{place}/") for path in below if not path.endswith("/")}
    for name in names.values():
        if not is_plain_name(name):
            message = f"{address} has an object that can be no file in a folder: {name!r}"
            raise UserError(Problem(message, key, address))
    if not names:
        raise UserError(Problem(f"there is nothing under {address}", key, address))
    objects = {names[path]: _described(below[path]) for path in sorted(names)}
    return Listing(address, key, objects)


@contextmanager
def fetched(reader: str, listings: list[Listing]) -> Iterator[None]:
    """Have what `listings` name in files at their `local_path` for `reader`, and remove it after.

    Raises UserError where an object is no longer the one that was listed, and where the disk has
    no room.
    """
    folder = FETCHED / reader
    # What a killed run has left.
    shutil.rmtree(folder, ignore_errors=True)
    try:
        for listing in listings:
            fetch(reader, listing)
        yield
    finally:
        shutil.rmtree(folder, ignore_errors=True)


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
        options = {"skip_instance_cache": True, "use_listings_cache": False}
        store = fsspec.filesystem(STORES[scheme].protocol, **options)
    except ImportError:
        command = f"pip install --constraint constraints.txt {STORES[scheme].package}"
        message = f"{scheme}:// needs a library that is not installed: {command}"
        raise UserError(Problem(message, key, address)) from None
    return store, rest.rstrip("/")


def _described(info: Mapping[str, Any]) -> StoredObject:
    version = info.get("ETag") or info.get("etag")
    assert version, f"the storage gives no version of {info.get('name')}"
    return StoredObject(str(version).strip('"'), int(info["size"]))


def _copy(
    store: Any, path: str, listing: Listing, name: str, file: BinaryIO, stopped: Event
) -> None:
    """Write an object into `file`: all of it is of the version that was listed.

    It ends in the middle once `stopped` is set.
    """
    with explained(listing.address, listing.key, store):
        # S3 is asked for each block with `If-Match`, and refuses that of another version.
        source = store.open(path, "rb", block_size=BLOCK_BYTES, cache_type="none")
    with source:
        while not stopped.is_set():
            with explained(listing.address, listing.key, store):
                block = source.read(BLOCK_BYTES)
            if not block:
                break
            file.write(block)
    with explained(listing.address, listing.key, store):
        versions = {_described(source.details), _described(store.info(path))}
    if versions != {listing.objects[name]}:
        message = f"{listing.address} was changed while it was fetched: run this again"
        raise UserError(Problem(message, listing.key, listing.address))
