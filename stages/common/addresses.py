"""Addresses in object storage, such as s3://bucket/houses.csv, and where it lies while it is read.

A stage fetches what an address leads to into a folder of its own, and removes it at its end. Paths
there spell the address, so that a message about a file can name the object.
"""

import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

FETCHED = Path(".reprise/fetched")


@dataclass(frozen=True)
class Store:
    """A kind of object storage: its name in fsspec, and what pip installs for it."""

    protocol: str
    package: str


# By the schemes that DVC knows too: it must see the same object.
STORES = {
    "s3": Store("s3", "--editable '.[s3]'"),
    "gs": Store("gs", "dvc-gs"),
    "azure": Store("abfs", "dvc-azure"),
}
_PATTERN = "*?["
# The longest name of a file that the usual file systems take.
MAX_NAME_BYTES = 255
_LOCAL = re.compile(rf"(?:[^\s'\"]*/)?{re.escape(str(FETCHED))}/[\w.-]+/({'|'.join(STORES)})/")
# Up to the last @: a secret key of AWS may hold a slash, and a password anything.
_USER = re.compile(r"(?<=://)\S+@")
# What follows the address of an object may be a signature.
_QUERY = re.compile(rf"\b((?:{'|'.join(STORES)})://[^\s?]*\?)\S+", re.IGNORECASE)


def is_object(source: str) -> bool:
    """Check whether `source` is an address in object storage, of one object or of a prefix."""
    scheme, colon, _ = source.partition("://")
    return bool(colon) and scheme.lower() in STORES


def find_fault(address: str) -> str | None:
    """The mistake in an address, in words that repeat no password; None: there is none."""
    scheme, _, rest = address.partition("://")
    bucket, _, key = rest.partition("/")
    if scheme not in STORES:
        return f"an address begins in small letters: write {scheme.lower()}://"
    if "@" in bucket or ":" in bucket:
        return "an address has no user and no password: they are taken from the environment"
    if any(sign in rest for sign in _PATTERN):
        return (
            "an address has no '*', '?' or '[': name one object, or all objects of a table by what "
            f"their names begin with, such as {scheme}://bucket/table/"
        )
    if address != address.strip() or any(ord(sign) < ord(" ") for sign in address):
        return "an address has no blank at its ends, and no line break"
    if not bucket or not is_plain_name(f"{bucket}/{key}".rstrip("/")):
        return f"an address is such as {scheme}://bucket/table/houses.csv"
    return None


def is_plain_name(name: str) -> bool:
    """Check whether a name of an object is one of a file below a folder, and leads nowhere else."""
    parts = name.split("/")
    if any(len(part.encode("utf-8", "replace")) > MAX_NAME_BYTES for part in parts):
        return False
    return not {"", ".", ".."} & set(parts) and "\\" not in name and "\0" not in name


def local_path(reader: str, source: str) -> Path:
    """The path of a source for `reader`, a stage or a command: of an address, where it is fetched.

    A path is its own.
    """
    if not is_object(source):
        return Path(source)
    scheme, _, rest = source.partition("://")
    return FETCHED / reader / scheme / PurePosixPath(rest.rstrip("/"))


def name_objects(text: str) -> str:
    """`text` with the addresses of objects in place of the paths where they were fetched."""
    # The folder of the project may have a blank in its path, where the pattern would begin.
    text = text.replace(f"{Path.cwd()}/{FETCHED}", str(FETCHED))
    return _LOCAL.sub(r"\1://", text)


def hide_secrets(text: str) -> str:
    """`text` without the user and password of an address, and without what signs one."""
    return _QUERY.sub(r"\1…", _USER.sub("***@", text))
