"""Complete checkpoints and savepoints, on a disk or in a file system that Beam can list."""

from __future__ import annotations

from collections.abc import Iterable

from runners.flink.checkpoints import CHECKPOINTS, SAVEPOINTS, local_folder, on_disk
from runners.flink.remote_files import modified_at


def complete_snapshots(addresses: Iterable[str]) -> list[str]:
    """The complete checkpoints and savepoints (savepoint-X) of all jobs below, newest first.

    addresses: of folders, paths or URLs; the answer has addresses too, file:///... for a disk.
    Raises NotListed where a folder of another file system cannot be looked at.
    """
    found: list[tuple[float, str]] = []
    for address in addresses:
        folder = local_folder(address)
        for pattern in (CHECKPOINTS, SAVEPOINTS):
            if folder is None:
                found += modified_at(address, pattern)
            else:
                found += (
                    (seconds, path.absolute().as_uri())
                    for seconds, path in on_disk(folder, pattern)
                )
    return [address for _, address in sorted(found, reverse=True)]
