"""Which requests a web page elsewhere has made a browser send, and that are not answered.

A page may point a name of its own at this machine (DNS rebinding): to the browser both are then one
site, and the page reads every answer. What gives it away is the name in the Host header.
"""

import ipaddress
import socket
from collections.abc import Callable, Iterable
from functools import lru_cache

from starlette.types import Scope

from pipeline.serve.codec.problems import RequestError
from pipeline.serve.http.body import find_header
from stages.common.errors import shorten


def known_hosts(host: str, others: Iterable[str], *, loopback: bool) -> frozenset[str]:
    """The names of a server bound to `host`: this one, `others`, and this machine's own."""
    own = [] if loopback else [socket.gethostname()]
    return frozenset(name.lower() for name in (host, *others, *own))


def make_host_check(hosts: frozenset[str]) -> Callable[[Scope], None]:
    """The function that raises RequestError 421 when a request is for none of `hosts`.

    localhost and addresses are always right: no page can have them for a name of its own.
    """
    is_known = lru_cache(256)(lambda header: _is_known(header, hosts))

    def check(scope: Scope) -> None:
        host_headers = [value for key, value in scope["headers"] if key == b"host"]
        # A browser never leaves it out.
        if len(host_headers) > 1 or (host_headers and not is_known(host_headers[0])):
            name = shorten(host_headers[-1].decode("latin-1"))
            said = f"this server is not '{name}'; --allow-host NAME gives it another name"
            raise RequestError(421, said)

    return check


def check_site(scope: Scope) -> None:
    """Raise RequestError 403 where a browser says that the page of another server has asked."""
    if find_header(scope, b"sec-fetch-site") in (b"cross-site", b"same-site"):
        raise RequestError(403, "the pages of other servers may not ask for predictions")


def _is_known(header: bytes, hosts: frozenset[str]) -> bool:
    name = header.decode("latin-1").lower()
    if name.startswith("["):
        name = name[1:].partition("]")[0]
    else:
        name = name.partition(":")[0].rstrip(".")
    if name in hosts or name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
