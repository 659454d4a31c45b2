"""Which slots of the ring an expiry clears, and that it clears those of the last minutes again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transforms.deduplicate.shard_state import CLEARED_AGAIN, SLOTS, ShardHead

LAST = 5 * 11 + 4
"""The last bucket of slot 11."""


def head(expired_through: int | None, *live: int, slot_width: int = 5) -> ShardHead:
    return ShardHead(b"", expired_through, slot_width, dict.fromkeys(live, 1))


def test_a_slot_is_cleared_when_its_last_bucket_expires() -> None:
    shard = head(LAST - 1, LAST, LAST + 1)
    assert shard.expire(LAST) == [11]
    assert shard.live == {LAST + 1: 1}


def test_a_slot_with_a_bucket_left_is_not_cleared() -> None:
    assert 11 not in head(LAST - 2, LAST, LAST + 1).expire(LAST - 1)


def test_a_slot_is_cleared_again_at_the_next_expiries_and_then_left_alone() -> None:
    """RocksDB removes what was cleared once four files of its column family hold the clearing."""
    shard = head(LAST - 1, LAST, *range(LAST + 1, LAST + 20))
    cleared = [11 in shard.expire(LAST + minute) for minute in range(10)]
    assert cleared == [True] + [True] * CLEARED_AGAIN + [False] * (9 - CLEARED_AGAIN)


def test_an_expiry_that_moves_nothing_clears_nothing() -> None:
    shard = head(LAST)
    assert shard.expire(LAST) == []
    assert shard.expire(LAST - 1) == []


def test_a_slot_that_the_ring_has_reached_again_is_not_cleared() -> None:
    """Its ids are those of a bucket one round of the ring later."""
    shard = head(LAST, LAST + 5 * SLOTS)
    assert shard.slot_of(LAST + 5 * SLOTS) == 11
    assert 11 not in shard.expire(LAST + 1)


@pytest.mark.parametrize("expired_through", [None, LAST - 5 * SLOTS - 1])
def test_after_a_long_jump_every_slot_without_a_live_bucket_is_cleared(
    expired_through: int | None,
) -> None:
    shard = head(expired_through, LAST + 1, LAST + 6)
    assert shard.expire(LAST) == [slot for slot in range(SLOTS) if slot not in (12, 13)]


@given(
    width=st.integers(1, 6),
    steps=st.lists(st.integers(1, 40), min_size=1, max_size=20),
    ahead=st.sets(st.integers(0, 60)),
)
def test_only_slots_without_a_live_bucket_are_cleared_and_all_that_ended(
    width: int, steps: list[int], ahead: set[int]
) -> None:
    shard = head(0, *(1 + bucket for bucket in ahead), slot_width=width)
    for step in steps:
        before = shard.expired_through or 0
        cleared = set(shard.expire(before + step))
        occupied = {shard.slot_of(bucket) for bucket in shard.live}
        ended = {
            shard.slot_of(bucket)
            for bucket in range(before + 1, before + step + 1)
            if bucket % width == width - 1
        }
        assert not cleared & occupied
        assert ended - occupied <= cleared
