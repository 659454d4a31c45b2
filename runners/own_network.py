"""A name for the network that this process is in: where 127.0.0.1 leads to the same listeners."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Final

_BOOT: Final = Path("/proc/sys/kernel/random/boot_id")
_NAMESPACE: Final = Path("/proc/self/ns/net")


def own_network(boot: Path = _BOOT, namespace: Path = _NAMESPACE) -> str:
    """The same text in two processes only where one may ask the other's ports by 127.0.0.1.

    boot: a file with the id of the running kernel; where there is none, the machine's name stands
    for it. namespace: its inode number tells network namespaces of one kernel apart, see
    https://man7.org/linux/man-pages/man7/namespaces.7.html; where there is none, there is one
    network.
    """
    kernel = boot.read_text().strip() if boot.exists() else platform.node()
    return f"{kernel} {namespace.stat().st_ino if namespace.exists() else 0}"
