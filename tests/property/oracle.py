"""The dedup rule by brute force: a dict and a loop, no columns or shards. Times in microseconds."""

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
        for payment in sorted(payments, key=lambda payment: (payment.event_time, payment.offset)):
            accepted = payment.id not in self._latest and payment.id not in first
            verdicts[payment.partition, payment.offset] = PAYMENTS if accepted else DUPLICATES
            first.setdefault(payment.id, payment)
        for payment in payments:
            self._latest[payment.id] = max(
                payment.event_time, self._latest.get(payment.id, payment.event_time)
            )
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
