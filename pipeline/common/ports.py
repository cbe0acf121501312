"""Free ports of this machine's own interface, and who has one that is taken."""

import socket

import psutil

from stages.common.errors import UserError

HOST = "127.0.0.1"
MAX_PORTS_TRIED = 50


def choose_port(wanted: int, option: str, *, fixed: bool) -> int:
    """`wanted`, or the next free port of this machine if it is taken.

    Raises UserError, with who has it, if `fixed` or if no port near it is free.
    """
    last = wanted if fixed else min(wanted + MAX_PORTS_TRIED, 65535)
    for port in range(wanted, last + 1):
        with socket.socket() as probe:
            # As the servers do: a port whose connections are only waiting to be forgotten is free.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError as error:
                if fixed:
                    why = error.strerror or str(error)
                    message = f"port {port} can't be used: {why}{_holder(port)}\n  choose another"
                    raise UserError(f"{message} with {option}") from None
                continue
        return port
    raise UserError(f"none of the ports {wanted} to {last} is free: choose one with {option}")


def _holder(port: int) -> str:
    """Which process listens on a port, as far as this user may know."""
    try:
        for connection in psutil.net_connections("tcp"):
            if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port:
                if connection.pid is None:
                    return ", by a process of another user"
                name = " ".join(psutil.Process(connection.pid).cmdline())[:60]
                return f", by process {connection.pid} ({name})"
    except psutil.Error:
        pass
    return ""
