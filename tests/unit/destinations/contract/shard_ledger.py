"""The contract of the shard ledger as tests.

A destination passes them by giving `ShardLedgerContract` its fixture `destination`.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from tests.unit.destinations.contract.at_once import claim_at_once
from transforms.destinations.contract.shard_ledger import (
    GAPS_SHARD,
    NOTHING,
    TOTALS_SHARD,
    Epoch,
    Job,
    Progress,
    ShardRow,
)
from transforms.model.errors import GuaranteeError

EVERYTHING = [*range(4), TOTALS_SHARD, GAPS_SHARD]


def claimed(row: ShardRow, nonce: str) -> ShardRow:
    return row.claim(nonce, {"payment_transactions": f"stream of {nonce}"})


class ShardLedgerContract:
    def opened_again(self, destination: Any) -> Any:
        """A context manager: the destination as another process opens it."""
        return pickle.loads(pickle.dumps(destination))

    @pytest.fixture
    def ledger(self, destination: Any) -> Any:
        destination.shards.create(4)
        return destination

    def test_every_shard_has_its_row_from_the_beginning(self, ledger: Any) -> None:
        # The second call finds rows, of whatever number.
        ledger.shards.create(7)
        rows = ledger.shards.read(EVERYTHING)
        assert ledger.shards.read_all() == sorted(rows, key=lambda row: row.shard)
        ledger_id = rows[0].ledger_id
        assert len(ledger_id) == 32
        assert rows == [
            ShardRow(shard, "", 0, ledger_id, "", 0, [], {}, NOTHING, NOTHING)
            for shard in EVERYTHING
        ]
        with pytest.raises(GuaranteeError, match="no row for shard"):
            ledger.shards.read([4])

    @pytest.mark.parametrize("shards", [1, 3, 6])
    def test_with_another_number_of_shards_their_rows_begin_anew(
        self, ledger: Any, shards: int
    ) -> None:
        """All that they keep is what every one of them has passed."""
        old = ledger.shards.begin_job("old", 0, 4)
        for nonce, streams in (("n1", {"payment_transactions": "stream"}), ("n2", {})):
            seen = ledger.shards.read(EVERYTHING)
            taken = [row.claim(nonce, streams) for row in seen]
            assert ledger.shards.swap(old, seen, taken)
        progress = [
            Progress(2, "id", {"a": {0: 5 + row.shard, 10 + row.shard: 7}, "b": {1: 3}}, {}, {}, {})
            for row in taken
        ]
        closed = [
            row.close({"payment_transactions": 9}, base=each, latest=each)
            for row, each in zip(taken, progress, strict=True)
        ]
        assert ledger.shards.swap(old, taken, closed)
        for _ in range(2):
            assert ledger.shards.begin_job("new", 1, shards) == Job("new", 2)
        gaps, totals, *rows = ledger.shards.read_all()
        stamp = {"job_id": "new", "generation": 2}
        assert [totals, gaps] == [msgspec.structs.replace(row, **stamp) for row in closed[-2:]]
        ledger_id = rows[0].ledger_id
        assert len(ledger_id) == 32
        assert ledger_id != totals.ledger_id
        passed = Progress(0, "", {"a": {0: 5}, "b": {1: 3}}, {}, {}, {})
        assert rows == [
            ShardRow(shard, "new", 2, ledger_id, "", 0, [], {}, NOTHING, passed)
            for shard in range(shards)
        ]
        assert not ledger.shards.swap(old, closed[:1], [claimed(closed[0], "old")])

    def test_another_number_of_shards_is_refused_where_streams_are_open(self, ledger: Any) -> None:
        job = ledger.shards.begin_job("job", 0, 4)
        seen = ledger.shards.read([1])
        assert ledger.shards.swap(job, seen, [claimed(seen[0], "n1")])
        before = ledger.shards.read_all()
        with pytest.raises(GuaranteeError, match=r"--shards=5: .* 4 shards, .*\[1\] are open"):
            ledger.shards.begin_job("next", 1, 5)
        assert ledger.shards.read_all() == before

    def test_another_number_of_shards_does_not_come_with_an_old_generation(
        self, ledger: Any
    ) -> None:
        ledger.shards.begin_job("first", 0, 4)
        with pytest.raises(GuaranteeError, match="another job has begun"):
            ledger.shards.begin_job("rival", 0, 6)
        assert [row.job_id for row in ledger.shards.read_all()] == ["first"] * 6

    def test_of_several_jobs_that_begin_at_once_one_decides_the_number(self, ledger: Any) -> None:
        def begin(number: int, ready: Callable[[], object]) -> bool:
            with self.opened_again(ledger) as mine:
                ready()
                try:
                    mine.shards.begin_job(str(number), 0, number + 1)
                except GuaranteeError as refused:
                    assert "another job has begun" in refused.message
                    return False
                return True

        (won,) = claim_at_once(6, begin)
        rows = ledger.shards.read_all()
        assert [row.shard for row in rows] == [GAPS_SHARD, TOTALS_SHARD, *range(won + 1)]
        assert {(row.job_id, row.generation) for row in rows} == {(str(won), 1)}

    def test_a_claim_registers_the_streams_of_the_next_epoch_of_all_its_shards_at_once(
        self, ledger: Any
    ) -> None:
        job = ledger.shards.begin_job("job", 0, 4)
        seen = ledger.shards.read([2, TOTALS_SHARD])
        assert ledger.shards.swap(job, seen, [claimed(row, "n1") for row in seen])
        after = ledger.shards.read([TOTALS_SHARD, 2, 0])
        assert [row.nonce for row in after] == ["n1", "n1", ""]
        assert (after[0].epoch, after[0].open_epochs) == (
            1,
            [Epoch(1, {"payment_transactions": "stream of n1"})],
        )

    def test_a_claim_of_several_shards_is_one_change_or_none(self, ledger: Any) -> None:
        job = ledger.shards.begin_job("job", 0, 4)
        seen = ledger.shards.read([0, 1])
        assert ledger.shards.swap(job, seen[:1], [claimed(seen[0], "other")])
        assert not ledger.shards.swap(job, seen, [claimed(row, "mine") for row in seen])
        assert [row.nonce for row in ledger.shards.read([0, 1])] == ["other", ""]

    def test_of_several_writers_that_claim_the_same_shards_at_once_exactly_one_succeeds(
        self, destination: Any
    ) -> None:
        destination.shards.create(2)
        job = destination.shards.begin_job("job", 0, 2)
        seen = destination.shards.read([0, 1])

        def claim(number: int, ready: Callable[[], object]) -> bool:
            with self.opened_again(destination) as mine:
                ready()
                changed: bool = mine.shards.swap(
                    job, seen, [claimed(row, str(number)) for row in seen]
                )
                return changed

        won = claim_at_once(6, claim)
        assert [row.nonce for row in destination.shards.read([0, 1])] == [str(n) for n in won] * 2

    def test_the_same_claim_again_changes_nothing_and_the_nonce_tells_whose_it_was(
        self, ledger: Any
    ) -> None:
        job = ledger.shards.begin_job("job", 0, 4)
        seen = ledger.shards.read([0])
        rows = [claimed(seen[0], "mine")]
        assert ledger.shards.swap(job, seen, rows)
        assert not ledger.shards.swap(job, seen, rows)
        assert ledger.shards.read([0]) == rows

    def test_closing_the_older_epochs_removes_them_and_raises_the_count_in_one_change(
        self, ledger: Any
    ) -> None:
        job = ledger.shards.begin_job("job", 0, 4)
        for nonce in ("n1", "n2"):
            seen = ledger.shards.read([0])
            assert ledger.shards.swap(job, seen, [claimed(seen[0], nonce)])
        (row,) = ledger.shards.read([0])
        assert [epoch.number for epoch in row.older_open_epochs()] == [1]
        counts = {"payment_transactions": 1 << 40}
        base = Progress(
            2, "id", {"payments": {0: 1 << 40}}, {}, {"payment_transactions": 3}, counts
        )
        closed = row.close(counts, base=base)
        assert ledger.shards.swap(job, [row], [closed])
        (found,) = ledger.shards.read([0])
        assert found == closed
        assert (found.older_open_epochs(), found.base, found.latest) == ([], base, NOTHING)
        assert (found.epoch, found.closed_rows) == (2, counts)
        assert found.open_epochs == [Epoch(2, {"payment_transactions": "stream of n2"})]

    def test_a_superseded_job_is_refused_for_good(self, ledger: Any) -> None:
        old = ledger.shards.begin_job("old", 0, 4)
        new = ledger.shards.begin_job("new", 1, 4)
        assert (old.generation, new.generation) == (1, 2)
        for _ in range(2):
            seen = ledger.shards.read([0])
            assert not ledger.shards.swap(old, seen, [claimed(seen[0], "old")])
            with pytest.raises(GuaranteeError, match="another job has begun"):
                ledger.shards.begin_job("old", 0, 4)
            assert ledger.shards.swap(new, seen, [claimed(seen[0], "new")])

    def test_a_job_begins_once_and_a_lost_answer_is_asked_for_again(self, ledger: Any) -> None:
        assert (
            ledger.shards.begin_job("job", 0, 4)
            == ledger.shards.begin_job("job", 0, 4)
            == Job("job", 1)
        )
        with pytest.raises(GuaranteeError, match="another job has begun"):
            ledger.shards.begin_job("rival", 0, 4)
        assert {(row.job_id, row.generation) for row in ledger.shards.read(EVERYTHING)} == {
            ("job", 1)
        }

    def test_a_job_cannot_write_under_the_generation_of_another(self, ledger: Any) -> None:
        ledger.shards.begin_job("job", 0, 4)
        seen = ledger.shards.read([0])
        for forged in (Job("job", 2), Job("other", 1)):
            assert not ledger.shards.swap(
                forged, seen, [msgspec.structs.replace(claimed(seen[0], "x"))]
            )
