"""`payment-pipeline run` with a CPU clock in each step.

python -m benchmarks.measured_run FILE run-arguments... writes the CPU seconds of each step to FILE,
as JSON. Steps of one stage are fused: each runs inside the loop that consumes the one before. So
every generator is timed between its own `next` and its own `yield`, on the CPU clock of its thread,
and the time of the steps behind it is not counted twice.
"""

from __future__ import annotations

import functools
import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from pipeline import cli
from pipeline.run import command as run_module
from transforms.decode import decode_records
from transforms.deduplicate.per_key import DeduplicatePerKey, SplitByKey
from transforms.deduplicate.sharded import DeduplicateSharded
from transforms.read.partition_reader import PartitionReader
from transforms.read.read_records import ReadRange
from transforms.write.write_rows import WriteRows

SECONDS: Counter[str] = Counter()


def measure(owner: Any, method: str, step: str) -> None:
    """Adds up the CPU seconds of `owner.method`, whether it is a function or a generator."""
    original = getattr(owner, method)

    @functools.wraps(original)
    def timed(*arguments: Any, **named: Any) -> Any:
        started = time.thread_time()
        result = original(*arguments, **named)
        SECONDS[step] += time.thread_time() - started
        return timed_generator(result, step) if isinstance(result, Iterator) else result

    setattr(owner, method, timed)


def timed_generator(inner: Iterator[Any], step: str) -> Iterator[Any]:
    """The same items; only the time inside `next` is counted."""
    while True:
        started = time.thread_time()
        try:
            item = next(inner)
        except StopIteration:
            return
        finally:
            SECONDS[step] += time.thread_time() - started
        yield item


def measure_process(owner: Any, method: str, step: str) -> None:
    """As `measure`, but the CPU seconds of the whole process.

    For steps that run alone, and partly in threads of the destination.
    """
    original = getattr(owner, method)

    @functools.wraps(original)
    def timed(*arguments: Any, **named: Any) -> Any:
        started = time.process_time()
        try:
            return original(*arguments, **named)
        finally:
            SECONDS[step] += time.process_time() - started

    setattr(owner, method, timed)


def kafka_threads_before_close() -> None:
    """Adds up the CPU seconds of librdkafka's threads just before a consumer is closed.

    They fetch, verify checksums and decompress, and end with the consumer.
    """
    original = PartitionReader.close

    def close(self: PartitionReader) -> None:
        ticks = 0
        for task in Path("/proc/self/task").iterdir():
            # A thread may end meanwhile.
            with suppress(OSError):
                name, _, fields = (
                    task.joinpath("stat").read_text().partition("(")[2].rpartition(")")
                )
                if name.startswith("rdk:"):
                    ticks += sum(map(int, fields.split()[11:13]))
        SECONDS["librdkafka's threads"] = max(SECONDS["librdkafka's threads"], ticks / 100)
        original(self)

    PartitionReader.close = close  # type: ignore[method-assign]


def start_up_ends_with_the_first_read() -> None:
    """Counts the CPU seconds until the first range is read as the step "start-up"."""
    original: Callable[..., Any] = ReadRange.setup

    def setup(self: ReadRange) -> None:
        SECONDS.setdefault("start-up", time.process_time())
        original(self)

    ReadRange.setup = setup  # type: ignore[method-assign]


def main(output: str, arguments: list[str]) -> int:
    """Returns the exit status of `run`."""
    start_up_ends_with_the_first_read()
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
