"""The counters of a job as a person reads them, and as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.counted import counted
from transforms import metrics
from transforms.model.moments import span_in_words


@dataclass(frozen=True)
class JobFigures:
    """At one moment. values: name of transforms/metrics.py, as Flink writes it -> value."""

    values: Mapping[str, float]
    at_us: int

    def of(self, name: str) -> int:
        """A counter; 0 where nothing was counted."""
        return int(self.values.get(name, 0))

    def gauges(self, name: str) -> dict[str, int]:
        """Shard or partition -> the gauge's value, as Flink writes their names."""
        prefix = f"{name}_"
        return {
            each.removeprefix(prefix): int(value)
            for each, value in sorted(self.values.items())
            if each.startswith(prefix)
        }

    @property
    def rejected(self) -> dict[str, int]:
        """Reason -> rejected records."""
        return self.gauges(metrics.REJECTED)

    @property
    def lag(self) -> int:
        """Records that wait in Kafka, over all partitions."""
        return sum(self.gauges(metrics.KAFKA_LAG).values())

    @property
    def shows_state(self) -> bool:
        """Whether a shard has told what it holds. It is opened by the first records that are read,
        so behind a start without a checkpoint zeros would say that no id is known.
        """
        return bool(self.gauges(metrics.LIVE_IDS))

    @property
    def live_ids(self) -> int:
        """Ids in the state of all shards."""
        return sum(self.gauges(metrics.LIVE_IDS).values())

    @property
    def state_bytes(self) -> int:
        """What the ids take in the state of all shards."""
        return sum(self.gauges(metrics.STATE_BYTES).values())

    @property
    def watermark_us(self) -> int | None:
        """The lowest watermark of the partitions that have one, in microseconds."""
        marks = self.gauges(metrics.WATERMARK_MS).values()
        return min(marks) * 1000 if marks else None

    @property
    def watermark_lag_us(self) -> int | None:
        """How far that watermark is behind the moment of the figures; None: there is none."""
        mark = self.watermark_us
        return None if mark is None else max(0, self.at_us - mark)

    def latency_counts(self) -> list[int]:
        """Payments by metrics.LATENCY_BOUNDS_MS, and those behind the highest bound."""
        bounds = (*metrics.LATENCY_BOUNDS_MS, metrics.MORE)
        return [self.of(f"{metrics.LATENCY}_{bound}") for bound in bounds]

    def latency_ms(self, share: float) -> int | None:
        """The bound that this share of the payments since the start lies under; None: no payment,
        or more than the highest bound.
        """
        counts = self.latency_counts()
        total, below = sum(counts), 0
        for bound, number in zip(metrics.LATENCY_BOUNDS_MS, counts[:-1], strict=True):
            below += number
            if below and below >= share * total:
                return bound
        return None

    def as_json(self) -> dict[str, Any]:
        """What `status --json` prints of the counters."""
        return {
            "records_read": self.of(metrics.RECORDS_READ),
            "bytes_read": self.of(metrics.BYTES_READ),
            "accepted": self.of(metrics.ACCEPTED),
            "duplicates": self.of(metrics.DUPLICATE),
            "rejected": self.of(metrics.REJECTED),
            "rejected_by_reason": self.rejected,
            "late_behind_expiry": self.of(metrics.LATE_BEHIND_EXPIRY),
            "live_ids": self.live_ids if self.shows_state else None,
            "state_bytes": self.state_bytes if self.shows_state else None,
            "kafka_lag": self.gauges(metrics.KAFKA_LAG),
            "watermark_us": self.watermark_us,
            "watermark_lag_us": self.watermark_lag_us,
            "latency_ms_p50": self.latency_ms(0.5),
            "latency_ms_p99": self.latency_ms(0.99),
            **{
                name: self.of(name)
                for name in (
                    metrics.APPENDS,
                    metrics.APPENDED_BYTES,
                    metrics.APPEND_RETRIES,
                    metrics.BUNDLES,
                    metrics.RECOVERED_SHARDS,
                    metrics.PRESENT_ROWS,
                )
            },
        }


def rate(before: JobFigures, now: JobFigures) -> float:
    """Records read a second between two moments; 0 after a restart, where the counters begin."""
    seconds = (now.at_us - before.at_us) / 1_000_000
    read = now.of(metrics.RECORDS_READ) - before.of(metrics.RECORDS_READ)
    return max(0, read) / seconds if seconds > 0 else 0.0


def one_line(state: str, before: JobFigures | None, now: JobFigures) -> str:
    """Such as "RUNNING: 12,000/s, 0 waiting in Kafka, 10 accepted, ...".

    before: figures of an earlier moment, for the rate; None leaves it out. Zeros where Flink has no
    figure at all would say that nothing happens: docs/operations.md.
    """
    if not now.values:
        return f"{state}: Flink shows no figures"
    lag_us = now.watermark_lag_us
    behind = "no watermark" if lag_us is None else f"watermark {span_in_words(lag_us)} back"
    speed = "" if before is None else f" {rate(before, now):,.0f}/s,"
    duplicates = counted(now.of(metrics.DUPLICATE), "duplicate")
    ids = f" {counted(now.live_ids, 'live id')}," if now.shows_state else ""
    return (
        f"{state}:{speed} {now.lag:,} waiting in Kafka,"
        f" {now.of(metrics.ACCEPTED):,} accepted, {duplicates},"
        f" {now.of(metrics.REJECTED):,} rejected,{ids} {behind}"
    )
