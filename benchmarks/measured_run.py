"""`payment-pipeline run` with a CPU clock in each step.

python -m benchmarks.measured_run FILE run-arguments... writes the CPU seconds of each step to FILE,
as JSON.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from benchmarks.cpu_clocks import (
    KAFKA_THREADS,
    SECONDS,
    measure,
    measure_process,
    start_up_ends_with,
    thread_seconds,
)
from pipeline import cli
from pipeline.run import command as run_module
from transforms.decode import decode_records
from transforms.deduplicate.per_key import DeduplicatePerKey, SplitByKey
from transforms.deduplicate.sharded import DeduplicateSharded
from transforms.read.partition_reader import PartitionReader
from transforms.read.read_records import ReadRange
from transforms.write.write_rows import WriteRows


def kafka_threads_before_close() -> None:
    """Adds up the CPU seconds of librdkafka's threads just before a consumer is closed.

    They fetch, verify checksums and decompress, and end with the consumer.
    """
    original = PartitionReader.close

    def close(self: PartitionReader) -> None:
        taken = (took for (_, name), took in thread_seconds().items() if name.startswith("rdk:"))
        SECONDS[KAFKA_THREADS] = max(SECONDS[KAFKA_THREADS], sum(taken))
        original(self)

    PartitionReader.close = close  # type: ignore[method-assign]


def main(output: str, arguments: list[str]) -> int:
    """Returns the exit status of `run`."""
    start_up_ends_with(ReadRange, "setup")
    kafka_threads_before_close()
    measure(ReadRange, "process", "read")
    measure(decode_records.Decoder, "decode", "decode")
    measure(decode_records, "reject_untimely", "judge lateness")
    measure(decode_records, "split_by_shard", "split by shard")
    for dofn in (DeduplicateSharded, DeduplicatePerKey, SplitByKey):
        measure(dofn, "process", "deduplicate")
    measure(WriteRows, "process", "write")
    measure(WriteRows, "finish_bundle", "write")
    measure_process(run_module, "prove_and_prepare", "4 prove and prepare")
    measure_process(run_module, "commit", "5-6 commit")
    status = cli.main(["run", *arguments])
    total = time.process_time()
    known = sum(SECONDS.values())
    SECONDS["Beam, destination's threads, the rest"] = total - known
    Path(output).write_text(json.dumps({"total": total, **SECONDS}))
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
