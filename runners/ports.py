"""Ports on this machine for the servers of a cluster."""

from __future__ import annotations

import random
import socket
from typing import Final

# Below the range that the system gives to outgoing connections (Linux: from 32768 on).
_PORTS: Final = range(20_000, 32_000)


def free_ports(count: int) -> list[int]:
    """So many different ports that no process listens on. Raises OSError if there are not."""
    found: list[int] = []
    for port in random.sample(_PORTS, len(_PORTS)):
        with socket.socket() as probe:
            # Java sets it too: a port whose last connection has just ended can be taken.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("", port))
            except OSError:
                continue
        found.append(port)
        if len(found) == count:
            return found
    raise OSError(f"there are no {count} free ports from {_PORTS[0]} to {_PORTS[-1]}")


def listens(address: str) -> bool:
    """Whether a server takes connections at HOST:PORT."""
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host, int(port)), timeout=1):
            return True
    except OSError:
        return False
