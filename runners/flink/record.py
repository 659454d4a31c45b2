"""cluster.json: what runs in the folder of a cluster, for other processes and for later."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from runners.flink.configuration import ClusterPorts, ClusterSettings
from runners.flink.processes import ServerProcess


@dataclass(frozen=True)
class ClusterRecord:
    """processes: those that were started and not ended on purpose."""

    settings: ClusterSettings
    ports: ClusterPorts
    processes: tuple[ServerProcess, ...]


def read_record(file: Path) -> ClusterRecord:
    """Raises FileNotFoundError."""
    found = json.loads(file.read_text())
    ports = found["ports"]
    return ClusterRecord(
        ClusterSettings(**found["settings"]),
        ClusterPorts(**{**ports, "worker_pools": tuple(ports["worker_pools"])}),
        tuple(ServerProcess(**process) for process in found["processes"]),
    )


def write_record(file: Path, record: ClusterRecord) -> None:
    """Replaces the file as a whole."""
    scratch = file.with_suffix(".new")
    scratch.write_text(json.dumps(asdict(record), indent=1))
    scratch.replace(file)
