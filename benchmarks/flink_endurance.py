"""Whether a streaming job stays as large as it was: memory, state, checkpoints, the ledger.

python -m benchmarks.flink_endurance [minutes]: a real Kafka broker and a real Flink cluster (Java
17, Maven) on this machine, one worker process (LOOPBACK) into DuckDB, 10,000 messages/s with 2 %
copies, a horizon of 2 minutes. Prints a line each minute, and at the end what `stop` and `check`
say. See benchmarks/README.md.
"""

from __future__ import annotations

import re
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.direct_run import PARTITIONS, send
from benchmarks.process_status import resident_bytes, threads
from benchmarks.steady_load import RATE, WARM_UP_SECONDS, send_steadily
from pipeline.check.command import check
from runners.flink.cluster import FlinkCluster
from runners.flink.configuration import ClusterSettings
from runners.flink.rest import FlinkRest
from runners.flink.servers import TASK_MANAGER
from tests.support.child_process import ending_with_this_process
from tests.support.kafka_broker import running_broker
from tests.support.streaming_command import StreamingCommand
from transforms.destinations.open import open_destination

HORIZON = "2m"
_SAMPLE_SECONDS = 5
_SAMPLES_PER_LINE = 12
_HEAP = "Status.JVM.Memory.Heap.Used"
_NAME = re.compile(rb"[A-Za-z][A-Za-z0-9_.:-]{9,}")
_FILE = re.compile(rb"[0-9a-f]{8}")
_COLUMNS = (
    "minute  read        lag     live ids   state MB  checkpoint MB  state names  heap MB"
    "  TaskManager MB  worker MB  worker threads"
)


@dataclass
class Samples:
    """Of one minute. heap: bytes; the lowest is the one nearest behind a garbage collection."""

    heap: list[int] = field(default_factory=list)


def main(minutes: int) -> None:
    """Starts all servers and ends them, also when it fails."""
    with tempfile.TemporaryDirectory() as folder, running_broker(Path(folder) / "broker") as broker:
        cluster = FlinkCluster(Path(folder, "flink"), launch=ending_with_this_process)
        cluster.start(ClusterSettings(slots=1))
        send(broker, "steady", PARTITIONS)
        servers = broker.bootstrap_servers
        command = StreamingCommand(cluster, servers, "steady", Path(folder), checkpoint_ms=2000)
        try:
            command.start(f"--dedup_horizon={HORIZON}")
            load = broker, "steady", minutes * 60 - WARM_UP_SECONDS
            sender = threading.Thread(target=send_steadily, args=load, daemon=True)
            sender.start()
            watch(command, cluster, minutes)
            sender.join()
            command.wait_until_read(PARTITIONS, seconds=600)
            command.interrupt()
            assert command.stop() == 0, command.log[-3000:]
        finally:
            command.kill()
            cluster.stop()
        report(command.file)


def watch(command: StreamingCommand, cluster: FlinkCluster, minutes: int) -> None:
    """A line a minute."""
    print(f"{RATE:,} messages/s for {minutes} minutes, horizon {HORIZON}\n{_COLUMNS}", flush=True)
    started = time.monotonic()
    for minute in range(1, minutes + 1):
        samples = Samples()
        for sample in range(_SAMPLES_PER_LINE):
            wanted = started + (minute - 1) * 60 + (sample + 1) * _SAMPLE_SECONDS
            time.sleep(max(0.0, wanted - time.monotonic()))
            samples.heap.append(heap_bytes(cluster.rest))
        print(line(command, cluster, minute, samples), flush=True)


def line(command: StreamingCommand, cluster: FlinkCluster, minute: int, samples: Samples) -> str:
    """The figures at the end of a minute, in the order of _COLUMNS."""
    figures = command.figures()
    (task_manager,) = cluster.running(TASK_MANAGER)
    newest = cluster.newest_complete_checkpoint()
    names = 0 if newest is None else state_names(newest)
    return (
        f"{minute:>6}  {figures.of('records_read'):<10,}  {figures.lag:<6,}"
        f"  {figures.live_ids:<9,}  {figures.state_bytes / 1e6:<8.1f}"
        f"  {command.state_bytes() / 1e6:<13.1f}  {names:<11}  {min(samples.heap) / 1e6:<7.0f}"
        f"  {resident_bytes(task_manager.pid) / 1e6:<14.0f}"
        f"  {resident_bytes(command.pid) / 1e6:<9.0f}  {threads(command.pid)}"
    )


def heap_bytes(rest: FlinkRest) -> int:
    """Java's heap in use, of all TaskManagers."""
    total = 0
    for each in rest.get("/taskmanagers")["taskmanagers"]:
        (found,) = rest.get(f"/taskmanagers/{each['id']}/metrics?get={_HEAP}")
        total += int(found["value"])
    return total


def state_names(checkpoint: Path) -> int:
    """Distinct words of ten letters and more in the checkpoint's metadata, without names of files.

    The names of states are among them, so one more state name is one more word.
    """
    words = set(_NAME.findall((checkpoint / "_metadata").read_bytes()))
    return sum(not _FILE.search(word) for word in words)


def report(file: Path) -> None:
    """The ledger and the tables, after `stop`."""
    print(f"DuckDB file {file.stat().st_size / 1e6:,.0f} MB")
    with open_destination(f"duckdb:{file}") as destination:
        for table in ("pipeline_runs", "shard_ledger"):
            (found,) = destination.query(f"SELECT COUNT(*) AS n FROM {table}").to_pylist()
            print(f"{table}: {found['n']} rows")
        for result in check(destination, None, 0.05, 400):
            print(f"{result.status:<8} {result.name}: {result.figure}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 30)
