"""Plays one schedule: sends, does the faults, stops the job, and compares the tables."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.bigquery_stand_in import BigQueryStandIn
from tests.soak.faults import LATEST, Faults
from tests.soak.oracle import differences
from tests.soak.schedule import AWAY, BIGQUERY, Schedule
from tests.soak.sending import Sending
from tests.soak.servers import Servers
from tests.soak.traffic import Traffic
from tests.support.streaming_command import StreamingCommand
from transforms.destinations.open import open_destination

_BOUND_SECONDS = 300.0
"""For one step: a busy machine takes a minute for a start."""

_PROJECT, _DATASET = "payments-soak", "d"
_URL = f"bigquery:{_PROJECT}.{_DATASET}"


@dataclass
class Played:
    """What came of a schedule. wrong: differences, none where the tables are right."""

    records: int
    seconds: float
    wrong: list[str] = field(default_factory=list)


def play(plan: Schedule, servers: Servers, topic: str, folder: Path) -> Played:
    """Raises AssertionError, or what the product raised, where the job does not go on.

    topic: empty, with the partitions of the schedule. folder: of this schedule alone; holds logs,
    tables (DuckDB) and what was sent.
    """
    began = time.monotonic()
    with ExitStack() as stack, (folder / "driver.log").open("w") as log:
        stack.enter_context(redirect_stdout(log))
        stand_in = None
        if plan.destination == BIGQUERY:
            stand_in = stack.enter_context(BigQueryStandIn(_PROJECT, _DATASET))
        traffic = Traffic(plan, time.time_ns() // 1000)
        sending = Sending(servers.broker.bootstrap_servers, topic, traffic)
        command = _command(plan, servers, topic, folder, stand_in)
        stack.callback(command.kill)
        try:
            _stream(plan, servers, command, sending, stand_in)
        finally:
            sending.log.write(folder / "sent.jsonl")
        with _opened(command, stand_in) as destination:
            prefix = "" if stand_in is None else f"{_DATASET}."
            wrong = differences(destination, sending.log, prefix)
        if stand_in is not None:
            wrong += stand_in.violations
        return Played(len(sending.log.committed), time.monotonic() - began, wrong)


def _stream(
    plan: Schedule,
    servers: Servers,
    command: StreamingCommand,
    sending: Sending,
    stand_in: BigQueryStandIn | None,
) -> None:
    sending.send_early()
    command.start()
    # What is late stays late after each restore: every partition's watermark is in a checkpoint.
    faults = Faults(plan, command, servers.broker, sending, stand_in)
    _wait_until_read(command, faults, plan.partitions)
    sending.start()
    try:
        following = [fault.after for fault in plan.faults[1:]] + [plan.records]
        for fault, next_moment in zip(plan.faults, following, strict=True):
            sending.allow(fault.after)
            sending.wait_until_sent(fault.after)
            # While a fault is done and mended, sending goes on up to the next one.
            lasts = fault.lasts if fault.kind == AWAY else 0
            sending.allow(max(next_moment, fault.after + lasts))
            faults.do(fault)
        sending.allow(plan.records)
        sending.wait_until_sent(plan.records)
    finally:
        faults.wake_zombies()
        sending.finish()
    _wait_until_read(command, faults, plan.partitions)
    if stand_in is None:
        command.interrupt()
    flags = ["--lost"] if plan.lost and stand_in is None else []
    assert command.stop(*flags) == 0, command.log[-3000:]


def _wait_until_read(command: StreamingCommand, faults: Faults, partitions: int) -> None:
    """A JobManager without figures is started again.

    On a busy machine Flink 1.19 now and then shows no figure of any task any more after a
    TaskManager was lost, although the job runs and completes checkpoints; a new TaskManager does
    not help.
    """
    try:
        command.wait_until_read(partitions, _BOUND_SECONDS / 2)
    except AssertionError:
        command.wait_for_checkpoints(1)
        if command.figures().gauges("kafka_lag"):
            raise
        print("Flink shows no figures: the JobManager is started again")
        faults.restart_job_manager(LATEST)
        command.wait_until_read(partitions)


def _command(
    plan: Schedule,
    servers: Servers,
    topic: str,
    folder: Path,
    stand_in: BigQueryStandIn | None,
) -> StreamingCommand:
    flags = [
        f"--dedup_horizon={plan.horizon_us // 1_000_000}s", f"--parallelism={plan.parallelism}",
        # Flink may lose a checkpoint just after a restore (docs/operations.md).
        "--checkpoint_timeout_millis=20000",
    ]  # fmt: skip
    destination = []
    if stand_in is not None:
        destination = [
            f"--destination={_URL}", f"--bigquery_api_endpoint={stand_in.rest_endpoint}",
            f"--bigquery_storage_endpoint={stand_in.storage_endpoint}",
        ]  # fmt: skip
    return StreamingCommand(
        servers.cluster, servers.broker.bootstrap_servers, topic, folder, plan.checkpoint_ms,
        flags=flags, destination=destination, bound_seconds=_BOUND_SECONDS,
    )  # fmt: skip


@contextmanager
def _opened(command: StreamingCommand, stand_in: BigQueryStandIn | None) -> Iterator[Any]:
    if stand_in is None:
        with open_destination(f"duckdb:{command.file}") as destination:
            yield destination
        return
    with open_destination(
        _URL,
        api_endpoint=stand_in.rest_endpoint,
        storage_endpoint=stand_in.storage_endpoint,
    ) as destination:
        yield destination
