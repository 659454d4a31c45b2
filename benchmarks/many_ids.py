"""What a run costs beside many live ids, and whether `--every` stays as it is.

    python -m benchmarks.many_ids                   # 36,000,000 live ids, 10,000 ticks
    python -m benchmarks.many_ids 3600000 1000

Into DuckDB, with Kafka as lists (tests/support/in_memory_kafka.py): what is measured is the
pipeline and its destination. The payments are written by SQL, with event times over the last hour.
Processes of their own make a run from the tables, which leaves the ids in --state_dir, and two runs
from there. Then ticks of `run --every`, of which each tenth has some records.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from benchmarks.long_ledger import AlreadyRead, cpu_seconds
from benchmarks.process_status import peak_bytes
from benchmarks.report import say
from benchmarks.stored_payments import add_payments
from pipeline.options.config import RunConfig
from pipeline.run.every import Since, every_command
from pipeline.run.ids_between_runs import IdsBetweenRuns
from tests.support.in_memory_kafka import (
    HOUR_US,
    NOW_US,
    InMemoryKafka,
    config,
    payment,
    run,
    use,
)
from transforms.deduplicate.id_files import IdFiles

IDS = 36_000_000
TICKS = 10_000
RECORDS = 1000
"""Of a run beside many ids."""
FEW = 10
"""Of a tick that has some."""


def main(ids: int, ticks: int) -> None:
    """Prints the figures as they come."""
    with TemporaryDirectory() as name:
        path = Path(name) / "payments.duckdb"
        _make(path, ids)
        say("live ids", f"{ids:,}, in a file of {path.stat().st_size / 1e9:.1f} GB")
        for number, source in enumerate(("the tables", "--state_dir")):
            command = [sys.executable, "-m", "benchmarks.many_ids", "child", str(path)]
            subprocess.run([*command, str(ids + 2 * number * RECORDS), source], check=True)
        files = sum(file.stat().st_size for file in Path(f"{path}.ids").iterdir())
        say("--state_dir", f"{files / ids:.1f} bytes/live id", "about 10")
    with TemporaryDirectory() as name:
        _ticks(Path(name) / "payments.duckdb", ticks)


def child(path: Path, read: int, source: str) -> None:
    """Two runs of a new process. read: offsets that were read before."""
    with _kafka() as kafka:
        kafka.create("payments", 1)
        log = kafka.topics["payments"].partitions[0]
        log.deleted = read
        log.records, log.timestamps, log.timestamp_types = (AlreadyRead(read) for _ in range(3))
        settings = _settings(path)
        ids = IdsBetweenRuns(IdFiles(f"{path}.ids", settings.destination))
        for which in ("a first run", "the next one"):
            kafka.send("payments", 0, *(payment(f"{len(log.records)}-{n}") for n in range(RECORDS)))
            cpu, wall = cpu_seconds(), time.monotonic()
            run(settings, NOW_US, ids=ids)
            cpu, wall = cpu_seconds() - cpu, time.monotonic() - wall
            peak = peak_bytes(os.getpid()) / 1e9
            say(
                f"{which} in a new process, ids from {source}",
                f"{wall:.1f} s, {cpu:.1f} s of CPU, at most {peak:.2f} GB",
                "12 s, 1.6 GB; then 1 s" if source == "--state_dir" else "",
            )


def _make(path: Path, ids: int) -> None:
    """Tables with so many payments of the last hour, as runs would have left them."""
    with _kafka() as kafka:
        kafka.create("payments", 1)
        kafka.send("payments", 0, payment("first"))
        run(config(path))
    add_payments(path, ids, HOUR_US - 60_000_000)


def _ticks(path: Path, ticks: int) -> None:
    with _kafka() as kafka:
        kafka.create("payments", 1)
        number, now = 0, 0.0
        before, part = cpu_seconds(), max(1, ticks // 10)

        def sleep(seconds: float) -> None:
            nonlocal number, now, before
            number, now = number + 1, now + seconds
            if number % part == 0:
                used = cpu_seconds() - before
                rss = int(Path("/proc/self/statm").read_text().split()[1]) * 4096
                say(
                    f"ticks up to {number:,}",
                    f"{used / part * 1e3:.1f} ms of CPU each, {rss / 1e6:.0f} MB,"
                    f" file {path.stat().st_size / 1e6:.1f} MB,"
                    f" {len(list(Path(f'{path}.ids').glob('*')))} files of ids",
                )
                before = cpu_seconds()
            if number == ticks:
                raise KeyboardInterrupt
            if number % 10 == 0:
                time_us = NOW_US + int(now * 1e6)
                kafka.send("payments", 0, *(payment(f"{number}-{n}", time_us) for n in range(FEW)))

        with suppress(KeyboardInterrupt):
            every_command(
                _settings(path, every_us=1_000_000),
                Since(),
                lambda: now,
                sleep,
                lambda: NOW_US + int(now * 1e6),
            )


def _settings(path: Path, **changes: object) -> RunConfig:
    return config(path, state_dir=f"{path}.ids", json=True, **changes)


@contextmanager
def _kafka() -> Iterator[InMemoryKafka]:
    kafka = InMemoryKafka()
    with pytest.MonkeyPatch.context() as patch:
        use(kafka, patch)
        yield kafka


if __name__ == "__main__":
    given = sys.argv[1:]
    if given[:1] == ["child"]:
        child(Path(given[1]), int(given[2]), given[3])
    else:
        main(*(int(number) for number in given or (IDS, TICKS)))
