"""The address of a database: from an environment variable, and never in what is printed."""

import os
import re
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, unquote, urlsplit

from stages.common.errors import UserError

POSTGRES = ("postgresql", "postgres")
SQLITE = "sqlite"
HIDDEN = "***"
_SECRETS = ("password", "sslpassword", "passfile")


@dataclass(frozen=True)
class Address:
    """The variable that says where the rows are, and its value, which only the driver may see."""

    variable: str
    url: str = field(repr=False)

    @property
    def is_sqlite(self) -> bool:
        """True for a file of SQLite."""
        return self.url.startswith(f"{SQLITE}:")

    @property
    def file(self) -> str:
        """The path of a file of SQLite, as it is written: `sqlite:///PATH`."""
        return unquote(self.url.removeprefix(f"{SQLITE}://").removeprefix("/"))

    def hide(self, text: str) -> str:
        """`text` without the address and its passwords, be they written plain or with %."""
        parts = urlsplit(self.url)
        found = [self.url, parts.password or ""]
        found += [value for name, value in parse_qsl(parts.query) if name in _SECRETS]
        found += [unquote(word) for word in found]
        # A short one after a longer one that holds it.
        for word in sorted(filter(None, found), key=len, reverse=True):
            text = text.replace(word, HIDDEN)
        return text


def read_address(variable: str) -> Address:
    """The address in an environment variable.

    Raises UserError where it can't be one, without a word of it: a driver that takes a piece of
    the password for the host would print that.
    """
    url = os.environ.get(variable, "").strip()
    if not url:
        raise UserError(
            f"the environment variable {variable} is not set: it says where the database is\n"
            f"  for example  export {variable}=postgresql://USER@HOST/DATABASE\n"
            "  the password  in ~/.pgpass, in PGPASSWORD, or as USER:PASSWORD@HOST"
        )
    wrong = _find_wrong(url)
    if wrong is not None:
        raise UserError(f"the address in {variable} {wrong}")
    return Address(variable, url)


def _find_wrong(url: str) -> str | None:
    scheme, colon, rest = url.partition("://")
    if not colon or scheme not in (*POSTGRES, SQLITE):
        return "is none: postgresql://USER@HOST/DATABASE or sqlite:///FILE"
    if scheme == SQLITE:
        return None if rest.strip("/") else "names no file: sqlite:///FILE"
    before, at, after = rest.partition("@")
    encoded = "of a user or password, write @ as %40, : as %3A, / as %2F, ? as %3F, # as %23"
    if at and (re.search(r"[/?#\s]", before) or before.count(":") > 1 or "@" in after):
        return f"can't be divided into its parts: {encoded}"
    hosts = (after if at else before).partition("?")[0].partition("/")[0]
    if not re.fullmatch(r"(\[[0-9a-fA-F:.]+\]|[\w.%-]*)(:\d*)?(,[\w.%-]*(:\d*)?)*", hosts):
        return f"has no host and port after the user: {encoded}"
    if re.search(r"%(?![0-9a-fA-F]{2})", rest):
        return "has a % that begins no sign: write % as %25"
    return None
