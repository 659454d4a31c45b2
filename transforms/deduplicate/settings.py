"""What both layouts of the dedup step are told."""

from __future__ import annotations

from dataclasses import dataclass

from apache_beam.utils.timestamp import Timestamp

from transforms.deduplicate.known_ids import ColdStart
from transforms.deduplicate.outcome import RowShape
from transforms.model.buckets import expiry_of_bucket


@dataclass(frozen=True)
class DedupSettings:
    """How long ids are known and what a shard without state does first.

    job: name of this run or job, so that an index is never used for another one. retention_us:
    dedup horizon plus extra retention; sizes the slots. expires: False in a bounded run: nothing
    expires within it, and its state ends with it, so no timer is set.
    """

    job: str
    shards: int
    retention_us: int
    extra_retention_us: int
    expires: bool
    shape: RowShape
    cold_start: ColdStart | None


def timer_timestamp(bucket: int, extra_retention_us: int) -> Timestamp:
    """When the ids of `bucket` expire. Rounded up to the millisecond that timers travel in: never
    before the watermark is there.
    """
    return Timestamp(micros=-(-expiry_of_bucket(bucket, extra_retention_us) // 1000) * 1000)
