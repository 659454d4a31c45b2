"""Ports on this machine for the servers of a cluster."""

from __future__ import annotations

import json
import random
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Final

# Below the range that the system gives to outgoing connections (Linux: from 32768 on).
_PORTS: Final = range(20_000, 32_000)


def free_ports(count: int, former: Sequence[int] = ()) -> list[int]:
    """So many different ports that no process listens on. Raises OSError if there are not.

    former: each of them stays at its place where it is free.
    """
    others = (
        port for port in random.sample(_PORTS, len(_PORTS)) if port not in former and _is_free(port)
    )
    wanted = [*former[:count], *[None] * (count - len(former))]
    found = [port if port and _is_free(port) else next(others, None) for port in wanted]
    ports = [port for port in found if port is not None]
    if len(ports) < count:
        raise OSError(f"there are no {count} free ports from {_PORTS[0]} to {_PORTS[-1]}")
    return ports


def ports_of(file: Path, count: int) -> list[int]:
    """The same ports as at the last call, where they are free, so that a command that names one of
    them works again after the next start.

    file: where they are noted. Raises OSError as free_ports does.
    """
    former: list[int] = json.loads(file.read_text()) if file.is_file() else []
    found = free_ports(count, former)
    scratch = file.with_suffix(".new")
    scratch.write_text(json.dumps([*found, *former[count:]]))
    scratch.replace(file)
    return found


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        # Java sets it too: a port whose last connection has just ended can be taken.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError:
            return False
        return True


def listens(address: str) -> bool:
    """Whether a server takes connections at HOST:PORT."""
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host, int(port)), timeout=1):
            return True
    except OSError:
        return False
