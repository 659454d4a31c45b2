"""What a run costs against a long ledger, beside what it costs against a short one.

    python -m benchmarks.long_ledger            # 259,200 records: a month of runs every 10 s
    python -m benchmarks.long_ledger 1000000

Runs in this process, into DuckDB, with Kafka as lists (tests/support/in_memory_kafka.py): what is
measured is the pipeline and its destination. The records are written by SQL, each as a run of four
partitions would have written it; the rows that they count are not there.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import duckdb
import pytest

from tests.support.in_memory_kafka import NOW_US, InMemoryKafka, config, payment, run, use
from transforms.destinations.duckdb.destination import DuckDBDestination

SHORT = 10
MONTH = 259_200
PARTITIONS = 4
EVERY_US = 10_000_000
OFFSETS = 1000
"""Of each partition, in each run."""


@dataclass
class Ticks:
    """One run after the other, ten seconds apart. now_us: of the last one."""

    path: Path
    kafka: InMemoryKafka
    now_us: int

    def run(self, sent: int) -> None:
        """With one record in each of so many partitions."""
        self.now_us += EVERY_US
        for partition in range(sent):
            record = payment(f"{self.now_us}-{partition}", self.now_us)
            self.kafka.send("payments", partition, record)
        run(config(self.path), self.now_us)


def main(records: int) -> None:
    """Prints a line for each ledger and each kind of run."""
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        for count in (SHORT, records):
            path = Path(folder) / f"{count}.duckdb"
            kafka = InMemoryKafka()
            use(kafka, patch)
            ticks = Ticks(path, kafka, make_ledger(path, kafka, count))
            print(f"{count:,} records, {path.stat().st_size / 1e6:,.1f} MB")
            with DuckDBDestination(str(path)) as destination:
                report("reading the tail", destination.runs.tail, 20)
            report("a run with nothing to read", partial(ticks.run, 0), 20)
            report(f"a run of {PARTITIONS} records", partial(ticks.run, PARTITIONS), 10)
            print(f"  the file then: {path.stat().st_size / 1e6:,.1f} MB")


def report(what: str, work: Callable[[], object], times: int) -> None:
    """The mean of so many times, after one that is not counted."""
    work()
    cpu, wall = cpu_seconds(), time.monotonic()
    for _ in range(times):
        work()
    cpu, wall = (cpu_seconds() - cpu) / times, (time.monotonic() - wall) / times
    print(f"  {what}: {cpu * 1e3:,.1f} ms of CPU, {wall * 1e3:,.1f} ms")


def cpu_seconds() -> float:
    """Of all threads of this process."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def make_ledger(path: Path, kafka: InMemoryKafka, records: int) -> int:
    """Runs once, and writes more records behind it; returns the newest plan time, microseconds.

    Kafka's log then ends where the ledger does: offsets that were read hold no record any more.
    """
    kafka.create("payments", PARTITIONS)
    for partition in range(PARTITIONS):
        kafka.send("payments", partition, payment(str(partition)))
    run(config(path))
    with duckdb.connect(str(path)) as connection:
        ((there, first),) = connection.execute(
            "SELECT count(*), max(run_id) FILTER (successor IS NULL) FROM pipeline_runs"
        ).fetchall()
        more = {"more": records - there, "first": first}
        connection.execute(_MORE, more)
        connection.execute(
            "UPDATE pipeline_runs SET successor = after.run_id FROM pipeline_runs AS after"
            " WHERE after.predecessor = pipeline_runs.run_id AND pipeline_runs.run_id = $first",
            {"first": first},
        )
    end = 1 + (records - there) * OFFSETS
    for log in kafka.topics["payments"].partitions:
        log.deleted = end
        log.records, log.timestamps, log.timestamp_types = (
            AlreadyRead(end),
            AlreadyRead(end),
            AlreadyRead(end),
        )
    return NOW_US + (records - there) * EVERY_US


_MORE = f"""
INSERT INTO pipeline_runs BY NAME
WITH named AS (
    SELECT i, 'run-' || left(md5(i::VARCHAR), 16) AS run_id,
        'run-' || left(md5((i + 1)::VARCHAR), 16) AS successor,
        CASE WHEN i = 1 THEN $first ELSE 'run-' || left(md5((i - 1)::VARCHAR), 16) END
            AS predecessor
    FROM range(1, $more + 1) AS r(i)
)
SELECT named.run_id, named.predecessor,
    CASE WHEN i = $more THEN NULL ELSE named.successor END AS successor, status,
    plan_time + to_microseconds(i * {EVERY_US}) AS plan_time, cluster_id,
    [{{'topic': p.topic, 'partition': p."partition", 'topic_id': p.topic_id,
        'from_offset': p.to_offset + (i - 1) * {OFFSETS}, 'to_offset': p.to_offset + i * {OFFSETS},
        'records': {OFFSETS}, 'gap_offsets': 0, 'coordinate_hash': hash(i),
        'start_watermark': p.watermark + (i - 1) * {EVERY_US},
        'watermark': p.watermark + i * {EVERY_US},
        'position_since': epoch_us(plan_time) + i * {EVERY_US}}} FOR p IN partitions] AS partitions,
    [{{'table': t."table", 'rows': t.rows, 'commit_groups': [
        [t."table" || '/' || left(md5(t."table" || i || s), 24) FOR s IN range(4)]
    ]}} FOR t IN tables] AS tables,
    lowest_watermark, live_ids, state_bytes,
    json_merge_patch(settings, json_object(
        'prepared_at_us', epoch_us(plan_time) + i * {EVERY_US},
        'landmarks', json_array(
            json_array(named.predecessor, epoch_us(plan_time) + (i - 1) * {EVERY_US})
        )
    )) AS settings, repairs
FROM named, (FROM pipeline_runs WHERE run_id = $first) ORDER BY i
"""


class AlreadyRead(list[Any]):
    """A list whose first elements are not kept."""

    def __init__(self, first: int) -> None:
        super().__init__()
        self._first = first

    def __len__(self) -> int:
        return self._first + super().__len__()

    def __iadd__(self, more: Any) -> AlreadyRead:  # type: ignore[misc]
        self.extend(more)
        return self

    def __getitem__(self, index: Any) -> Any:
        return super().__getitem__(index - self._first)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else MONTH)
