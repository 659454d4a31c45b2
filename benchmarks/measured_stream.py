"""`payment-pipeline run --streaming` with a CPU clock in each step: with LOOPBACK, this process is
the worker.

python -m benchmarks.measured_stream FILE run --streaming ... writes the CPU seconds of each step so
far to FILE, as JSON, at each SIGUSR1.
"""

from __future__ import annotations

import json
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

from apache_beam.runners.worker.bundle_processor import BundleProcessor

from benchmarks.cpu_clocks import (
    KAFKA_THREADS,
    SECONDS,
    measure,
    start_up_ends_with,
    thread_seconds,
)
from pipeline import cli
from transforms.decode import decode_records, judge_arrivals
from transforms.decode.decoder import Decoder
from transforms.decode.judge_arrivals import JudgeArrivals
from transforms.model.coders import StreamBatchCoder
from transforms.read.partition_loop import PartitionLoop
from transforms.read.read_loop import ReadLoop
from transforms.stream import deduplicate_and_write
from transforms.stream.append import ShardAppends
from transforms.stream.bundle import StreamBundle
from transforms.stream.write_gaps import WriteGaps
from transforms.stream.write_totals import WriteTotals

BEAM = "Beam: bundles and state"
GRPC_THREADS = "Beam: gRPC's own threads"
OTHER_THREADS = "threads of DuckDB and Arrow"
REST = "Beam: its other threads, the client"

_GRPC_NAMES = ("grpc", "event_engine", "resolver", "default-exec", "timer")


def start_clocks() -> None:
    """Puts a clock into each step."""
    start_up_ends_with(ReadLoop, "setup")
    measure(BundleProcessor, "process_bundle", BEAM)
    measure(PartitionLoop, "step", "read")
    measure(Decoder, "decode", "decode")
    measure(JudgeArrivals, "__call__", "judge")
    for judge in ("reject_untimely", "reject_refused"):
        measure(decode_records, judge, "judge")
    measure(judge_arrivals, "split_for_stream", "split by shard")
    for direction in ("encode", "decode"):
        measure(StreamBatchCoder, direction, "Beam: coders of the batches")
    measure(deduplicate_and_write, "merge", "deduplicate")
    for method in ("open", "process", "expire", "finish"):
        measure(StreamBundle, method, "deduplicate")
    for method in ("add", "send_rest", "settle"):
        measure(ShardAppends, method, "write")
    for dofn in (WriteTotals, WriteGaps):
        measure(dofn, "finish_bundle", "totals and gaps")


def seconds_by_step() -> dict[str, float]:
    """The steps so far, the threads that are in no step, and the rest of the process."""
    known = {**SECONDS, **dict.fromkeys((KAFKA_THREADS, GRPC_THREADS, OTHER_THREADS), 0.0)}
    python = {thread.native_id for thread in threading.enumerate()}
    for (number, name), took in thread_seconds().items():
        if name.startswith("rdk:"):
            known[KAFKA_THREADS] += took
        elif name.startswith(_GRPC_NAMES):
            known[GRPC_THREADS] += took
        elif number not in python:
            known[OTHER_THREADS] += took
    total = time.process_time()
    return {"total": total, "start-up": 0.0, **known, REST: total - sum(known.values())}


def main(output: Path, arguments: list[str]) -> int:
    """Returns the exit status of the command."""

    def write(*_: Any) -> None:
        part = output.with_suffix(".part")
        part.write_text(json.dumps(seconds_by_step()))
        part.rename(output)

    signal.signal(signal.SIGUSR1, write)
    start_clocks()
    return cli.main(arguments)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
