"""Access of the project's processes to a Prefect server: the auth string, and a way past a proxy.

The server of `reprise up` answers only who knows its auth string. That stands in `.reprise/auth`,
which its user alone can read, and nowhere in a command line. A server that somebody else has
started has the one in PREFECT_API_AUTH_STRING, if any, as Prefect itself has it.
"""

import os
import secrets
import stat
import urllib.parse
from collections.abc import Mapping

from pipeline.server.services import HOME, read_records
from stages.common.errors import UserError

AUTH = HOME / "auth"
URL = "PREFECT_API_URL"
CLIENT_AUTH = "PREFECT_API_AUTH_STRING"
SERVER_AUTH = "PREFECT_SERVER_API_AUTH_STRING"
OWN_NAMES = ("127.0.0.1", "localhost", "::1")
NUM_BYTES = 32


def ensure_auth() -> str:
    """The auth string for a server that is about to start: the last one, or a new one.

    One that others may have read is replaced. What the user has set for Prefect's server comes
    before both. Raises UserError when the file can't be written.
    """
    setting = os.environ.get(SERVER_AUTH)
    known = read_auth() if _is_private() else None
    auth = setting or known or f"reprise:{secrets.token_urlsafe(NUM_BYTES)}"
    if auth != known:
        _write(auth)
    return auth


def check_auth() -> str | None:
    """Say so if others can read the auth string of a running server; None: all is well.

    Raises UserError when there is none: an older version has started that server.
    """
    if read_auth() is None:
        raise UserError(
            f"there is no {AUTH}: whoever finds its port can use this server\n"
            "  'reprise down', then 'reprise up' start one that asks for an auth string"
        )
    if _is_private():
        return None
    return f"note: others can read {AUTH}; 'reprise down' and 'reprise up' make a new one"


def read_auth() -> str | None:
    """The auth string of this folder's server; None where there is none."""
    try:
        return AUTH.read_text(encoding="utf-8").strip() or None
    except (OSError, UnicodeDecodeError):
        return None


def auth_of(url: str) -> str | None:
    """Return the auth string for the Prefect API at `url`: the file's, if it is this folder's."""
    server = read_records().get("server")
    if server is not None and server.port == urllib.parse.urlsplit(url).port and is_local(url):
        return read_auth()
    return os.environ.get(CLIENT_AUTH)


def client_environment(url: str) -> dict[str, str]:
    """Return the environment variables with which a process can ask the Prefect API at `url`."""
    auth = auth_of(url)
    return {URL: url, **({} if auth is None else {CLIENT_AUTH: auth}), **past_proxies(os.environ)}


def is_local(url: str) -> bool:
    """Return True for an address of this machine."""
    return urllib.parse.urlsplit(url).hostname in OWN_NAMES


def past_proxies(environment: Mapping[str, str]) -> dict[str, str]:
    """NO_PROXY, in both spellings, with this machine in it: no proxy gets at its own servers."""
    found = environment.get("no_proxy") or environment.get("NO_PROXY") or ""
    names = [name.strip() for name in found.split(",") if name.strip()]
    text = ",".join(dict.fromkeys([*names, *OWN_NAMES]))
    return {"NO_PROXY": text, "no_proxy": text}


def _is_private() -> bool:
    try:
        found = AUTH.stat()
    except OSError:
        return False
    return found.st_uid == os.geteuid() and not found.st_mode & (stat.S_IRWXG | stat.S_IRWXO)


def _write(auth: str) -> None:
    """Write the file: never, not for a moment, one that others can read."""
    temporary = AUTH.with_name(f".{AUTH.name}.{secrets.token_hex(8)}")
    try:
        HOME.mkdir(exist_ok=True)
        temporary.touch(mode=0o600, exist_ok=False)
        temporary.write_text(f"{auth}\n", encoding="utf-8")
        temporary.replace(AUTH)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise UserError(f"cannot write {AUTH}: {error.strerror or error}") from None
