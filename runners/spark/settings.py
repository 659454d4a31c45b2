"""How large Spark on this machine is."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Final

_MIB: Final = 1 << 20
_BASE_MIB: Final = 512
_BYTES_A_RECORD: Final = 680
"""Spark holds a run's blocks at 177 bytes a record, and works on copies of them: 4,000,000 records
of 250 bytes were too many for a heap of 2 GiB, and came through with 3."""

TRIES: Final = 4
"""Of a task. With a plain local[N] none is ever tried again."""

WORKER_HOSTS: Final = ("127.0.0.1", "127.0.0.2")
"""Two workers of a cluster on one machine, on two addresses: Spark takes them for two machines."""


@dataclass(frozen=True)
class SparkSettings:
    """Sizes.

    cores: task slots, of all workers together. max_records_per_run: the heap is made for it.
    cluster: whether a standalone master and its workers run too, else Spark is in the job server.
    keep_context: whether the executors of one job serve the next one too.
    """

    cores: int = 2
    max_records_per_run: int = 1_000_000
    cluster: bool = False
    keep_context: bool = False

    @property
    def heap_mib(self) -> int:
        """Of the Java process that holds a run's blocks: the job server, or each executor."""
        holders = len(WORKER_HOSTS) if self.cluster else 1
        records = -(-self.max_records_per_run // holders)
        return _BASE_MIB + -(-records * _BYTES_A_RECORD // _MIB)

    @property
    def job_server_heap_mib(self) -> int:
        """Of the job server, which in a cluster holds plans only."""
        return _BASE_MIB if self.cluster else self.heap_mib

    @property
    def cores_of_a_worker(self) -> int:
        """Task slots of each worker of a cluster."""
        return max(1, self.cores // len(WORKER_HOSTS))


@dataclass(frozen=True)
class SparkPorts:
    """Ports on this machine. master, master_page, workers, worker_pages: of a cluster only."""

    job_server: int
    master: int
    master_page: int
    workers: tuple[int, ...]
    worker_pages: tuple[int, ...]


def default_cores() -> int:
    """As many as this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
