"""The answers of object storage, in the words of who wrote the address into `params.yaml`."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from stages.common.addresses import hide_secrets
from stages.common.errors import Problem, UserError, did_you_mean

# Where the errors of the clients come from; any other is a bug.
CLIENTS = (
    *("botocore", "aiobotocore", "aiohttp", "s3fs", "fsspec"),
    *("gcsfs", "google", "adlfs", "azure"),
)
# How the clients call it when they find no keys, and when nobody answers.
_NO_KEYS = ("NoCredentialsError", "PartialCredentialsError", "NoAuthTokenError")
_NO_ANSWER = (
    *("EndpointConnectionError", "ConnectTimeoutError", "ReadTimeoutError", "FSTimeoutError"),
    *("ConnectionClosedError", "ClientConnectorError", "ServiceRequestError", "TimeoutError"),
)
_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "STORAGE_EMULATOR_HOST")
# Azure signs the addresses that its errors name.
_QUERY = re.compile(r"(\b\w+://[^\s?]*\?)\S+")
MAX_SHOWN = 300


@contextmanager
def explained(address: str, key: str | None, store: Any) -> Iterator[None]:
    """Raise UserError, with `key`, for what the storage of `address` refuses or does not have."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        # Wrong settings end in a ValueError of Python's own.
        is_theirs = isinstance(error, OSError | ValueError)
        if not is_theirs and type(error).__module__.split(".")[0] not in CLIENTS:
            raise
        raise UserError(_problem(error, address, key, store)) from None


def _problem(error: Exception, address: str, key: str | None, store: Any) -> Problem:
    kind, scheme = type(error).__name__, address.partition("://")[0]
    if kind == "FileExpired":
        return Problem(f"{address} was changed while it was fetched: run this again", key, address)
    if isinstance(error, FileNotFoundError):
        return _missing(address, key, store)
    if kind in _NO_KEYS:
        where = "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE or ~/.aws"
        where = where if scheme == "s3" else "the environment, where its own tools look for them"
        return Problem(f"no keys for {address} were found: {where} holds them", key, address)
    if isinstance(error, PermissionError):
        message = f"the storage refuses {address} with the keys that were found: {_said(error)}"
        return Problem(message, key, address)
    if kind in _NO_ANSWER:
        message = f"the storage of {address} does not answer{_server()}"
        return Problem(message, key, address)
    if type(error) is ValueError:
        message = f"cannot ask the storage of {address}: {_said(error)}{_server()}"
        return Problem(message, key, address)
    return Problem(f"cannot read {address}: {_said(error)}", key, address)


def _server() -> str:
    """The server that the environment names, if it names one."""
    for name in _ENDPOINTS:
        if value := os.environ.get(name):
            wants = "" if "://" in value else ", without http:// or https:// before it"
            return f"; {name} is {hide_secrets(value)}{wants}"
    return ""


def _missing(address: str, key: str | None, store: Any) -> Problem:
    """The problem of an address where there is nothing, with what there is beside it."""
    scheme, _, place = address.rstrip("/").partition("://")
    parent, _, name = place.rpartition("/")
    try:
        beside = [path.rpartition("/")[2] for path in sorted(store.ls(parent, detail=False))]
    except Exception:
        # Whoever may read one object need not be allowed to list them.
        beside = []
    bucket = place.partition("/")[0]
    message = f"there is no object {address}, and nothing under it as a prefix"
    if not beside and not _is_there(store, bucket):
        message = f"there is no bucket {scheme}://{bucket}, or it can't be listed"
    meant = did_you_mean(name, beside)
    meant = meant and f"{scheme}://{parent}/{meant}"
    return Problem(message, key, address, tuple(beside), meant)


def _is_there(store: Any, bucket: str) -> bool:
    try:
        return bool(store.exists(bucket))
    except Exception:
        return False


def _said(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return _QUERY.sub(r"\1…", hide_secrets(text))[:MAX_SHOWN]
