"""What a cluster on this machine is made of, and the Flink configuration that says so.

Keys: https://nightlies.apache.org/flink/flink-docs-release-1.19/docs/deployment/config/
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROCKSDB: Final = "rocksdb"
HASHMAP: Final = "hashmap"
STATE_BACKENDS: Final = (ROCKSDB, HASHMAP)

CHECKPOINTS: Final = "checkpoints"
SAVEPOINTS: Final = "savepoints"

_FRAMEWORK_HEAP_MIB: Final = 128
_HEARTBEAT_MS: Final = 1_000
_HEARTBEAT_TIMEOUT_MS: Final = 5_000


@dataclass(frozen=True)
class ClusterSettings:
    """Sizes of a cluster.

    slots: of each TaskManager. *_mib: heaps in MiB; managed_mib: what RocksDB may use, of a
    TaskManager. worker_pools: servers that start Python workers (environment type EXTERNAL).
    restart_attempts: restarts of a job in a row, after which it fails. incremental: whether a
    checkpoint of RocksDB writes what has changed alone, and not all of the state.
    """

    slots: int = 2
    task_managers: int = 1
    state_backend: str = ROCKSDB
    worker_pools: int = 0
    task_manager_heap_mib: int = 2048
    managed_mib: int = 256
    job_manager_heap_mib: int = 512
    job_server_heap_mib: int = 768
    restart_attempts: int = 30
    incremental: bool = True

    @property
    def task_manager_java_heap_mib(self) -> int:
        """Of the whole TaskManager: the job's share and the framework's."""
        return self.task_manager_heap_mib + _FRAMEWORK_HEAP_MIB


@dataclass(frozen=True)
class ClusterPorts:
    """Ports on 127.0.0.1. worker_pools: one each."""

    job_manager: int
    rest: int
    blob: int
    job_server: int
    worker_pools: tuple[int, ...]


def flink_configuration(
    settings: ClusterSettings, ports: ClusterPorts, folder: Path
) -> Mapping[str, str]:
    """Every key of flink-conf.yaml. folder: absolute; holds checkpoints, savepoints and more."""
    return {
        "jobmanager.rpc.address": "127.0.0.1",
        "jobmanager.bind-host": "127.0.0.1",
        "jobmanager.rpc.port": str(ports.job_manager),
        "rest.address": "127.0.0.1",
        "rest.bind-address": "127.0.0.1",
        "rest.port": str(ports.rest),
        "blob.server.port": str(ports.blob),
        "taskmanager.host": "127.0.0.1",
        "taskmanager.bind-host": "127.0.0.1",
        "taskmanager.numberOfTaskSlots": str(settings.slots),
        # A TaskManager that Flink's own script does not start must be given every size.
        "jobmanager.memory.heap.size": f"{settings.job_manager_heap_mib}m",
        "jobmanager.memory.off-heap.size": "128m",
        "jobmanager.memory.jvm-metaspace.size": "256m",
        "jobmanager.memory.jvm-overhead.min": "64m",
        "jobmanager.memory.jvm-overhead.max": "64m",
        "taskmanager.cpu.cores": "1.0",
        "taskmanager.memory.framework.heap.size": f"{_FRAMEWORK_HEAP_MIB}m",
        "taskmanager.memory.framework.off-heap.size": "128m",
        "taskmanager.memory.task.heap.size": f"{settings.task_manager_heap_mib}m",
        "taskmanager.memory.task.off-heap.size": "128m",
        "taskmanager.memory.network.min": "128m",
        "taskmanager.memory.network.max": "128m",
        "taskmanager.memory.managed.size": f"{settings.managed_mib}m",
        "taskmanager.memory.jvm-metaspace.size": "256m",
        "taskmanager.memory.jvm-overhead.min": "64m",
        "taskmanager.memory.jvm-overhead.max": "64m",
        # The class path of the cluster is the job's: Beam's classes must be the same ones.
        "classloader.resolve-order": "parent-first",
        "state.backend.type": settings.state_backend,
        "state.backend.incremental": str(settings.incremental).lower(),
        "state.checkpoints.dir": (folder / CHECKPOINTS).as_uri(),
        "state.savepoints.dir": (folder / SAVEPOINTS).as_uri(),
        "state.checkpoints.num-retained": "3",
        "execution.checkpointing.externalized-checkpoint-retention": "RETAIN_ON_CANCELLATION",
        # A TaskManager that was killed is missed after 5 s, not 50.
        "heartbeat.interval": str(_HEARTBEAT_MS),
        "heartbeat.timeout": str(_HEARTBEAT_TIMEOUT_MS),
        # How old the counters of a job may be; 10 s by default.
        "metrics.fetcher.update-interval": "1000",
        # A restart creates some 50 write streams in BigQuery, which allows 10,000 an hour: so
        # restarts in a row come up to a minute apart, and end.
        "restart-strategy.type": "exponential-delay",
        "restart-strategy.exponential-delay.initial-backoff": "1 s",
        "restart-strategy.exponential-delay.backoff-multiplier": "2.0",
        "restart-strategy.exponential-delay.max-backoff": "1 min",
        "restart-strategy.exponential-delay.reset-backoff-threshold": "5 min",
        "restart-strategy.exponential-delay.jitter-factor": "0.1",
        "restart-strategy.exponential-delay.attempts-before-reset-backoff": str(
            settings.restart_attempts
        ),
        "io.tmp.dirs": str(folder / "tmp"),
    }
