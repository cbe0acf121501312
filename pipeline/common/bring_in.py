"""Brings data from elsewhere into the repository: DVC tells versions of what lies in it."""

import re
from pathlib import Path
from shlex import quote
from urllib.parse import urlsplit

RAW = Path("data/raw")
_PIP = "pip install --constraint constraints.txt"
# What DVC needs beside itself, by the beginning of an address.
_PACKAGES = {
    "ssh": f"{_PIP} dvc-ssh",
    "hdfs": f"{_PIP} dvc-hdfs",
    "webdav": f"{_PIP} dvc-webdav",
    "webdavs": f"{_PIP} dvc-webdav",
    "http": None,
    "https": None,
}
# What others call storage that DVC has another name for.
_NAMES = {"abfs": "azure", "abfss": "azure", "az": "azure", "gcs": "gs", "s3a": "s3", "s3n": "s3"}
_SSH_OF_GIT = re.compile(r"\w[\w.-]*@[\w.-]+:(?!//)")
_DATABASES = ("postgresql", "postgres", "sqlite")
_WHY = "lies outside the repository, where DVC can't tell its versions apart"


def is_address(source: str) -> bool:
    """Check whether `source` is an address, such as s3://bucket/houses.csv, and no path."""
    return "://" in source or _SSH_OF_GIT.match(source) is not None


def tell_address(address: str, then: str) -> str:
    """The commands that bring in what `address` leads to, and `then`, with its path.

    Passwords in it are not repeated.
    """
    scheme = address.partition("://")[0].lower()
    if scheme in _DATABASES:
        return _tell_database(scheme, then)
    if scheme in _NAMES:
        return f"DVC knows {scheme}:// as {_NAMES[scheme]}://bucket/name: write that"
    if _SSH_OF_GIT.match(address) or urlsplit(address).path.endswith(".git"):
        return _tell_repository(address, then)
    name = Path(urlsplit(address).path).name or "data"
    plain, has_password = _split_user(address)
    brought, shown = quote(str(RAW / name)), quote(plain)
    if scheme not in _PACKAGES:
        lines = {
            "bring it in": f"fetch it to {brought}, then dvc add {brought}",
            "then": then.format(brought),
        }
        return _lines(f"{shown} {_WHY}, and DVC can't fetch from {scheme}://", lines)
    lines = {"once": _PACKAGES[scheme] or ""} if _PACKAGES[scheme] else {}
    lines |= {
        "bring it in": f"dvc import-url {shown} {brought}",
        "then": then.format(brought),
        "when it changes": f"dvc update {brought}.dvc",
    }
    if has_password:
        lines["the password"] = (
            "not in the address, which DVC writes into a file for git (docs/sources.md)"
        )
    return _lines(f"{shown} {_WHY}", lines)


def tell_path(path: Path, then: str) -> str:
    """The commands that bring in a file or folder from elsewhere on this machine."""
    brought, here, there = (quote(str(each)) for each in (RAW / path.name, path, path.resolve()))
    lines = {
        "bring it in": f"cp -r {here} {brought} && dvc add {brought}",
        "or keep the tie": f"dvc import-url {there} {brought}",
        "then": then.format(brought),
    }
    return _lines(f"{path} {_WHY}", lines)


def _tell_database(scheme: str, then: str) -> str:
    sample = "sqlite:///FILE" if scheme == "sqlite" else "postgresql://USER@HOST/DATABASE"
    lines = {
        "write a query": "data/raw/NAME.sql, such as SELECT * FROM TABLE",
        "say where": f"export NAME_DB={sample}   (the shell keeps it, no file does)",
        "bring it in": "reprise import-query data/raw/NAME.sql --from NAME_DB",
        "then": then.format(RAW / "NAME.parquet"),
    }
    return _lines("a database is no file: a snapshot of a query's rows is one", lines)


def _tell_repository(address: str, then: str) -> str:
    brought = RAW / "NAME"
    lines = {
        "bring it in": f"dvc import {quote(_split_user(address)[0])} PATH/IN/IT -o {brought}",
        "then": then.format(brought),
        "when it changes": f"dvc update {brought}.dvc",
    }
    return _lines("a repository is no source: a file or folder in it is one", lines)


def _lines(message: str, lines: dict[str, str]) -> str:
    width = max(map(len, lines))
    return "\n".join([message, *(f"  {name:{width}}  {text}" for name, text in lines.items())])


def _split_user(address: str) -> tuple[str, bool]:
    """The address without a user's name and password, and whether there was one."""
    scheme, colon, rest = address.partition("://")
    if not colon:
        return address, False
    host, slash, path = rest.partition("/")
    user, at, name = host.rpartition("@")
    # Of ssh://user@host there is none: a password has a colon before it.
    has_password = ":" in user
    return f"{scheme}://{'' if has_password else user + at}{name}{slash}{path}", has_password
