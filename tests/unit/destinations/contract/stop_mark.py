"""The contract of stop marks as tests.

A destination passes them by giving `StopMarkContract` its fixture `destination`.
"""

from __future__ import annotations

from typing import Any

import pytest

from transforms.destinations.contract.stop_mark import StopMark


def mark(generation: int, shard: int | None = None, token: str = "1") -> StopMark:
    return StopMark(
        generation=generation,
        shard=shard,
        subject="payments",
        reason="recreated: 'why'",
        token=token,
    )


def claim(ledger: Any, job: Any, shard: int, nonce: str) -> None:
    (seen,) = ledger.shards.read([shard])
    assert ledger.shards.swap(job, [seen], [seen.claim(nonce, {"t": f"stream of {nonce}"})])


class StopMarkContract:
    @pytest.fixture
    def ledger(self, destination: Any) -> Any:
        destination.shards.create(2)
        return destination

    def test_a_mark_stands_until_the_next_job_begins(self, ledger: Any) -> None:
        job = ledger.shards.begin_job("job", 0, 2)
        assert ledger.shards.read_marks(1) == []
        assert ledger.shards.write_mark(mark(1), job.job_id, None)
        assert ledger.shards.read_marks(1) == [mark(1)]
        ledger.shards.begin_job("next", 1, 2)
        assert ledger.shards.read_marks(1) == ledger.shards.read_marks(2) == []

    def test_claims_and_closings_leave_a_mark_where_it_is(self, ledger: Any) -> None:
        job = ledger.shards.begin_job("job", 0, 2)
        claim(ledger, job, 1, "mine")
        assert ledger.shards.write_mark(mark(1, 1), job.job_id, "mine")
        claim(ledger, job, 1, "another")
        assert ledger.shards.read_marks(1) == [mark(1, 1)]

    def test_a_superseded_job_writes_no_mark(self, ledger: Any) -> None:
        old = ledger.shards.begin_job("old", 0, 2)
        ledger.shards.begin_job("new", 1, 2)
        assert not ledger.shards.write_mark(mark(1), old.job_id, None)
        assert not ledger.shards.write_mark(mark(2), old.job_id, None)
        assert ledger.shards.read_marks(1) == ledger.shards.read_marks(2) == []

    def test_a_process_whose_shard_was_taken_over_writes_no_mark(self, ledger: Any) -> None:
        job = ledger.shards.begin_job("job", 0, 2)
        claim(ledger, job, 0, "mine")
        claim(ledger, job, 0, "another")
        assert not ledger.shards.write_mark(mark(1, 0), job.job_id, "mine")
        assert ledger.shards.write_mark(mark(1, 0), job.job_id, "another")

    def test_an_earlier_mark_stays_and_each_shard_has_its_own(self, ledger: Any) -> None:
        job = ledger.shards.begin_job("job", 0, 2)
        claim(ledger, job, 1, "mine")
        for one in (mark(1), mark(1, None, "2")):
            assert ledger.shards.write_mark(one, job.job_id, None)
        assert ledger.shards.write_mark(mark(1, 1), job.job_id, "mine")
        assert ledger.shards.read_marks(1) == [mark(1), mark(1, 1)]

    def test_a_false_mark_is_taken_away_and_no_other_one(self, ledger: Any) -> None:
        job = ledger.shards.begin_job("job", 0, 2)
        assert ledger.shards.write_mark(mark(1), job.job_id, None)
        ledger.shards.take_mark_away(mark(1, None, "2"))
        assert ledger.shards.read_marks(1) == [mark(1)]
        for _ in range(2):
            ledger.shards.take_mark_away(mark(1))
            assert ledger.shards.read_marks(1) == []
