"""The safety net behind the watermark moves exactly the payments of expired buckets."""

from __future__ import annotations

import pytest

from tests.support.payments import MINUTE, Payment, decoded
from transforms.deduplicate.backstop import reject_behind_expiry
from transforms.model.elements import Covered, ShardBatch
from transforms.model.fingerprints import split_by_shard
from transforms.model.rejected import LATE


def batch() -> ShardBatch:
    times = [0, MINUTE - 1, MINUTE, 5 * MINUTE]
    payments = [Payment(f"id {time}", time, offset) for offset, time in enumerate(times)]
    ((_, whole),) = split_by_shard(decoded(payments), 1)
    return whole


@pytest.mark.parametrize("expired_through", [None, -1])
def test_a_batch_without_expired_payments_stays_as_it_is(expired_through: int | None) -> None:
    before = batch()
    after, moved = reject_behind_expiry(before, expired_through)
    assert after is before
    assert moved == 0


def test_payments_of_expired_buckets_become_late() -> None:
    after, moved = reject_behind_expiry(batch(), 0)
    assert moved == 2
    assert after.payments.column("kafka_offset").to_pylist() == [2, 3]
    assert after.rejected.column("kafka_offset").to_pylist() == [0, 1]
    assert after.rejected.column("reason").to_pylist() == [LATE, LATE]
    (detail, _) = after.rejected.column("detail").to_pylist()
    assert detail.startswith("behind the expired state of its shard; decoded: {")
    assert '"transaction_id": "id 0"' in detail


def test_a_payment_that_came_with_its_bytes_keeps_them() -> None:
    """The others keep the decoded row in the detail."""
    reads = [
        Covered("payments", "id", 1, 0, 3, [], {0: b"of another partition"}),
        Covered("payments", "id", 0, 0, 3, [], {1: b"{ }", 2: b"not moved"}),
    ]
    after, _ = reject_behind_expiry(batch(), 0, reads)
    assert after.rejected.column("payload").to_pylist() == [None, b"{ }"]
    without, with_bytes = after.rejected.column("detail").to_pylist()
    assert "decoded" in without
    assert with_bytes == "behind the expired state of its shard"
