"""One log, read by bounded runs and by streaming jobs in turns.

Times in microseconds.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import Any

from pipeline.check.command import check
from pipeline.check.result import FAILED, CheckResult
from pipeline.options.config import RunConfig
from pipeline.run.command import run_until_caught_up
from pipeline.streaming.begin import Begun, begin_streaming, restore_streaming
from pipeline.streaming.stop import Stopped, stop_streaming
from tests.support.in_memory_kafka import MARKER, MINUTE_US, NOW_US, InMemoryKafka, config
from tests.support.streaming.faults import Killed, Network, UnreliableDestination
from tests.support.streaming.log import HORIZON, TOPIC, Sent, Source
from tests.support.streaming.runner import (
    PATIENCE,
    Attempt,
    Checkpoint,
    state_settings,
)
from transforms.deduplicate.known_ids import ColdStart
from transforms.destinations.contract.run_ledger import RunRecord
from transforms.stream.bundle import StreamSettings

SHARDS = 2


def value_of(offset: int, sent: Sent) -> Any:
    """What Kafka holds at the offset, as tests/support/streaming/log.py decodes it."""
    if sent.gap:
        return MARKER
    if sent.key is None:
        return b"{"
    moment = datetime(1970, 1, 1, tzinfo=timezone.utc) + timedelta(microseconds=sent.time)
    return json.dumps(
        {
            "transaction_id": sent.key,
            "event_time": f"{moment:%Y-%m-%dT%H:%M:%S.%fZ}",
            "payer_id": "payer",
            "payee_id": "payee",
            "amount": str(offset + 1),
            "currency": "EUR" if offset % 2 else "USD",
            "status": "ok",
        }
    ).encode()


@dataclass
class Tables:
    """A destination, and what reads the log into it. shards: of the first job, and of bounded runs.
    offered: records of each partition that Kafka has by now; None: all of the log.
    """

    real: Any
    kafka: InMemoryKafka
    log: list[list[Sent]]
    shards: int = SHARDS
    processes: int = 1
    offered: list[int] | None = None
    network: Network = field(default_factory=Network)

    def __post_init__(self) -> None:
        self.kafka.create(TOPIC, len(self.log))
        self.offer(self.offered or [len(records) for records in self.log])

    def offer(self, records: list[int]) -> None:
        """Kafka gets the log up to these offsets."""
        self.offered = records
        for partition, end in enumerate(records):
            there = self.kafka.topics[TOPIC].partitions[partition]
            there.records = [
                value_of(offset, sent) for offset, sent in enumerate(self.log[partition][:end])
            ]
            there.timestamps = [NOW_US // 1000] * end
            there.timestamp_types = [1] * end

    def config(self, **changes: Any) -> RunConfig:
        settings = {
            "dedup_horizon_us": HORIZON,
            "shards": self.shards,
            "idle_timeout_us": None,
            # The stand-in of BigQuery has a clock that is right.
            "max_future_skew_us": 10**9 * MINUTE_US,
        }
        return config("never opened", **{**settings, **changes})

    def run(self, **changes: Any) -> list[RunRecord]:
        """A bounded run to the end of the topic."""
        return list(run_until_caught_up(self.config(**changes), self.real, lambda: NOW_US))

    def begin(self, through: Any = None, *, take_over: bool = False, **changes: Any) -> Begun:
        """through: the destination as the driver sees it. changes: shards, where it is given."""
        return begin_streaming(
            self.config(**changes), through or self.real, self.kafka, lambda: NOW_US,
            take_over=take_over, shards_given="shards" in changes, polling=PATIENCE,
        )  # fmt: skip

    def restore(
        self, through: Any = None, checkpoint_of: str | None = None, **changes: Any
    ) -> Begun:
        return restore_streaming(
            self.config(**changes), through or self.real, self.kafka, lambda: NOW_US,
            checkpoint_of=checkpoint_of, shards_given="shards" in changes,
        )  # fmt: skip

    def stop(self, through: Any = None, **handed_over: Any) -> Stopped:
        return stop_streaming(through or self.real, lambda: NOW_US, polling=PATIENCE, **handed_over)

    def start_of(self, begun: Begun) -> Checkpoint:
        """Where the job of a begin without a checkpoint starts."""
        positions = {part.partition: part.position for part in begun.partitions}
        watermarks = {part.partition: part.watermark_us for part in begun.partitions}
        return Checkpoint(Source(self.log, positions, watermarks))

    def attempt(self, begun: Begun, checkpoint: Checkpoint | None = None, **faults: Any) -> Attempt:
        """A life of the job. checkpoint: None where it has none."""
        start = ColdStart(
            self.real, secrets.token_hex(8), begun.lowest_watermark_us, 0, seed=begun.seed
        )
        settings = StreamSettings(
            begun.job, state_settings(begun.shards), "amount", "currency", start, PATIENCE,
            lambda: NOW_US,
        )  # fmt: skip
        destination = UnreliableDestination(self.real.of_another_process(), self.network, **faults)
        return Attempt(destination, settings, checkpoint or self.start_of(begun), self.processes)

    def failures(self) -> list[CheckResult]:
        """The checks of `check` that fail now."""
        return [one for one in check(self.real, None, 100.0, 400) if one.status == FAILED]


CHANGES = {
    "runs": ("claim", "mark", "forget_before"),
    "pruning": ("remove_gaps_and_totals", "remove_rows"),
    "shards": ("create", "begin_job", "swap"),
    "streams": ("create", "send", "finalize", "commit", "discard", "forget", "forget_closed"),
    "tables": ("create",),
}
"""Part of a destination -> its calls that change something."""


class DyingDestination:
    """The destination of a driver that dies at its `at`-th change (from 0), before or after it.

    calls: the names of the changes so far.
    """

    def __init__(self, real: Any, at: int | None = None, after: bool = False) -> None:
        self._real = real
        self._at = at
        self._after = after
        self.calls: list[str] = []

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._real, name)
        return _DyingPart(found, CHANGES[name], self._change) if name in CHANGES else found

    def _change(self, name: str, effect: Callable[[], Any]) -> Any:
        here = len(self.calls) == self._at
        if self._at is not None and len(self.calls) > self._at:
            raise Killed("dead already")
        self.calls.append(name)
        if here and not self._after:
            raise Killed(f"before {name}")
        result = effect()
        if here:
            raise Killed(f"after {name}")
        return result


class _DyingPart:
    def __init__(self, real: Any, changes: tuple[str, ...], change: Callable[..., Any]) -> None:
        self._real = real
        self._changes = changes
        self._change = change

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._real, name)
        if name not in self._changes:
            return found
        return lambda *given, **named: self._change(name, lambda: found(*given, **named))
