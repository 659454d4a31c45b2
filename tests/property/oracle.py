"""The dedup rule by brute force: one dict, one loop, no columns, no shards. Times in microseconds."""

from __future__ import annotations

from transforms.model.tables import DUPLICATES, PAYMENTS

MINUTE = 60_000_000


class Oracle:
    def __init__(self, extra_retention_us):
        self._extra = extra_retention_us
        self._latest = {}

    def batch(self, payments):
        """(partition, offset) -> table for one source batch."""
        verdicts = {}
        first = {}
        for one in sorted(payments, key=lambda one: (one.event_time, one.offset)):
            accepted = one.id not in self._latest and one.id not in first
            verdicts[one.partition, one.offset] = PAYMENTS if accepted else DUPLICATES
            first.setdefault(one.id, one)
        for one in payments:
            self._latest[one.id] = max(one.event_time, self._latest.get(one.id, one.event_time))
        return verdicts

    def advance_watermark(self, watermark_us):
        def expiry(event_time):
            return (event_time // MINUTE + 1) * MINUTE + self._extra

        reached = watermark_us // 1000 * 1000
        self._latest = {
            key: latest
            for key, latest in self._latest.items()
            if -(-expiry(latest) // 1000) * 1000 > reached
        }

    def live_ids(self):
        return set(self._latest)
