"""The address of the Prefect server: the one that the user has configured, or that of `reprise up`.

Nothing here imports prefect, which takes two seconds: its settings are read where it reads them,
and whether a server answers is asked with one request.
"""

import base64
import json
import os
import ssl
import time
import tomllib
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from pipeline.server.access import URL, auth_of, is_local

HEALTH_SECONDS, ANSWER_SECONDS = 15.0, 60.0
# As long as Prefect's own client, about, keeps asking a server that is busy.
BUSY_WAITS_SECONDS = (0.2, 0.5, 1.0, 2.0, 4.0)


def configured_server() -> tuple[str, str] | None:
    """The API's address that the user has set for Prefect and where, in Prefect's own order."""
    for value, where in (
        (os.environ.get(URL), "the environment"),
        (_read_dotenv().get(URL), ".env"),
        (_read_toml(Path("prefect.toml"), "api", "url"), "prefect.toml"),
        (_read_toml(Path("pyproject.toml"), "tool", "prefect", "api", "url"), "pyproject.toml"),
        _profile_url(),
    ):
        if isinstance(value, str) and value.strip():
            return value.strip().rstrip("/"), where
    return None


def _profile_url() -> tuple[Any, str]:
    """The address in the active profile of Prefect, and the profile's name."""
    home = os.environ.get("PREFECT_HOME") or "~/.prefect"
    path = Path(os.environ.get("PREFECT_PROFILES_PATH") or f"{home}/profiles.toml").expanduser()
    name = os.environ.get("PREFECT_PROFILE") or _read_toml(path, "active")
    return _read_toml(path, "profiles", str(name), URL), f"Prefect's profile '{name}'"


def _read_dotenv() -> dict[str, str]:
    try:
        lines = Path(".env").read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return {}
    pairs = (line.removeprefix("export ").partition("=") for line in lines)
    return {name.strip(): value.strip().strip("'\"") for name, _, value in pairs}


def _read_toml(path: Path, *keys: str) -> Any:
    try:
        found: Any = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        # Prefect itself says what is wrong with a file of its own.
        return None
    for key in keys:
        found = found.get(key) if isinstance(found, dict) else None
    return found


def answers(url: str) -> bool:
    """Check that a Prefect API is at `url`: one request, a few seconds at most."""
    try:
        _ask(url, "/health", None, None, HEALTH_SECONDS)
    except urllib.error.HTTPError as error:
        # It asks for a name, or a proxy does; Prefect's client has what it takes.
        return error.code < 500
    except urllib.error.URLError as error:
        return isinstance(error.reason, ssl.SSLCertVerificationError)
    except (OSError, ValueError):
        return False
    return True


def request(
    url: str,
    path: str,
    body: object = None,
    *,
    method: str | None = None,
    seconds: float = ANSWER_SECONDS,
) -> Any:
    """The JSON that the API at `url` answers; with a body it is a POST.

    Asks again while the server is busy: SQLite lets one write at a time.
    Raises urllib's errors, OSError, and ValueError for an answer that is no JSON.
    """
    for wait_seconds in BUSY_WAITS_SECONDS:
        try:
            return _ask(url, path, body, method, seconds)
        except urllib.error.HTTPError as error:
            if error.code not in (429, 503):
                raise
            time.sleep(wait_seconds)
    return _ask(url, path, body, method, seconds)


def _ask(url: str, path: str, body: object, method: str | None, seconds: float) -> Any:
    data = None if body is None else json.dumps(body).encode()
    headers = {"Content-Type": "application/json", **_authorization(url)}
    http_request = urllib.request.Request(  # noqa: S310
        f"{url}{path}", data=data, headers=headers, method=method
    )
    # What is on this machine is never asked through a proxy.
    handlers = [urllib.request.ProxyHandler({})] if is_local(url) else []
    opener = urllib.request.build_opener(*handlers)
    with opener.open(http_request, timeout=seconds) as answer:
        text = answer.read()
    return json.loads(text) if text else None


def _authorization(url: str) -> dict[str, str]:
    if pair := auth_of(url):
        return {"Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}
    if key := os.environ.get("PREFECT_API_KEY"):
        return {"Authorization": f"Bearer {key}"}
    return {}
