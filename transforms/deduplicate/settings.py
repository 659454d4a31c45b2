"""The settings of the dedup step, the same for both layouts."""

from __future__ import annotations

from dataclasses import dataclass

from apache_beam.utils.timestamp import Timestamp

from transforms.deduplicate.known_ids import ColdStart
from transforms.deduplicate.outcome import RowShape
from transforms.model.buckets import expiry_of_bucket


@dataclass(frozen=True)
class DedupSettings:
    """How long ids are known, and what a shard without state loads.

    job: name of this run or job, so that its indexes are used for no other. retention_us: dedup
    horizon plus extra retention, which sets the width of a slot of the ring. expires: False in a
    bounded run: nothing expires within it, and its state ends with it, so no timer is set.
    cold_start: None where there is nothing to load.
    """

    job: str
    shards: int
    retention_us: int
    extra_retention_us: int
    expires: bool
    shape: RowShape
    cold_start: ColdStart | None


def timer_timestamp(bucket: int, extra_retention_us: int) -> Timestamp:
    """The event time of the timer that expires the ids of `bucket`.

    Beam's timers have milliseconds; rounded up, so that none fires before the ids have expired.
    """
    return Timestamp(micros=-(-expiry_of_bucket(bucket, extra_retention_us) // 1000) * 1000)
