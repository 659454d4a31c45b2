"""The contract of the run ledger and of the reports as tests.

A destination passes them by giving `LedgerContract` its fixture `destination`, as in
write_streams.py, and its `execute`.
"""

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from tests.unit.destinations.contract.at_once import claim_at_once
from transforms.destinations.contract.pruned import Pruned, with_pruned
from transforms.destinations.contract.run_ledger import (
    ABORTED,
    COMMITTED,
    GENESIS,
    PREPARED,
    PartitionProgress,
    RunRecord,
    TableProgress,
)
from transforms.destinations.contract.run_tail import LANDMARKS, with_landmarks
from transforms.model.errors import GuaranteeError
from transforms.model.tables import PAYMENTS, RUNS


def record(run_id: str, predecessor: str | None, status: str = PREPARED) -> RunRecord:
    part = PartitionProgress(
        topic="t",
        partition=0,
        topic_id="id",
        from_offset=0,
        to_offset=5,
        records=5,
        gap_offsets=0,
        coordinate_hash=(1 << 64) - 1,
        start_watermark=None,
        watermark=-5,
        position_since=7,
    )
    table = TableProgress(table=PAYMENTS, rows=5, commit_groups=[["a", "b"], ["c"]])
    return RunRecord(
        run_id=run_id,
        predecessor=predecessor,
        status=status,
        plan_time=1_790_000_000_123_456,
        cluster_id="cluster",
        partitions=[part],
        tables=[table],
        lowest_watermark=None,
        live_ids=5,
        state_bytes=50,
        settings={
            "dedup_key": "transaction_id",
            "schema": [{"name": "transaction_id"}],
            "dedup_horizon_us": 3_600_000_000,
        },
    )


def fill(destination: Any, runs: int) -> list[RunRecord]:
    """So many COMMITTED records behind genesis, ten seconds apart, as runs write them."""
    chain = [record(GENESIS, None, COMMITTED)]
    for number in range(1, runs + 1):
        before = chain[-1]
        following = msgspec.structs.replace(
            record(f"run-{number}", before.run_id, COMMITTED),
            plan_time=before.plan_time + 10_000_000,
        )
        chain.append(with_landmarks(following, chain[-3:]))
    for each in chain:
        assert destination.runs.claim(each)
    return chain


def pruning(chain: list[RunRecord], border: RunRecord, status: str = PREPARED) -> RunRecord:
    """A prune that follows the chain; its landmarks are the second record and the last one."""
    following = record("run-7", chain[-1].run_id, status)
    pruned = Pruned(
        border=border.run_id,
        latest_us=7,
        ingested_until_us=7,
        windows_before_us=7,
        not_in_totals=0,
        partitions=(),
    )
    marks = [[run.run_id, run.plan_time] for run in (chain[1], chain[-1])]
    settings = with_pruned({**following.settings, LANDMARKS: marks}, pruned)
    return msgspec.structs.replace(following, settings=settings)


class LedgerContract:
    def execute(self, destination: Any, sql: str) -> None:
        """Alters the tables by hand."""
        raise AssertionError("a destination says how")

    def test_a_record_comes_back_as_it_was_written(self, destination: Any) -> None:
        genesis, first = record(GENESIS, None, COMMITTED), record("run-1", GENESIS)
        assert destination.runs.claim(genesis)
        assert destination.runs.claim(first)
        assert destination.runs.read() == [genesis, first]

    def test_of_two_runs_from_one_predecessor_exactly_one_succeeds(self, destination: Any) -> None:
        assert destination.runs.claim(record(GENESIS, None, COMMITTED))
        assert not destination.runs.claim(record(GENESIS, None, COMMITTED))
        assert destination.runs.claim(record("run-1", GENESIS))
        assert not destination.runs.claim(record("run-2", GENESIS))
        assert [run.run_id for run in destination.runs.read()] == [GENESIS, "run-1"]

    @pytest.mark.parametrize("predecessor", [None, GENESIS])
    def test_of_many_threads_that_claim_at_once_exactly_one_succeeds(
        self, destination: Any, predecessor: str | None
    ) -> None:
        if predecessor:
            assert destination.runs.claim(record(GENESIS, None, COMMITTED))

        def claim(number: int, ready: Callable[[], object]) -> bool:
            ready()
            claimed: bool = destination.runs.claim(
                record(f"run-{number}" if predecessor else GENESIS, predecessor)
            )
            return claimed

        assert len(claim_at_once(8, claim)) == 1
        assert len(destination.runs.read()) == (2 if predecessor else 1)

    def test_a_run_becomes_committed_or_aborted_once(self, destination: Any) -> None:
        destination.runs.claim(record(GENESIS, None, COMMITTED))
        destination.runs.claim(record("run-1", GENESIS))
        destination.runs.mark("run-1", COMMITTED)
        destination.runs.mark("run-1", COMMITTED)
        with pytest.raises(GuaranteeError, match="COMMITTED, so it cannot become ABORTED"):
            destination.runs.mark("run-1", ABORTED)
        with pytest.raises(GuaranteeError, match="not there"):
            destination.runs.mark("run-9", COMMITTED)

    def test_a_broken_chain_is_an_error(self, destination: Any) -> None:
        for run_id, predecessor in ((GENESIS, None), ("run-1", GENESIS), ("run-2", "run-1")):
            destination.runs.claim(record(run_id, predecessor))
        self.execute(destination, f"DELETE FROM {RUNS} WHERE run_id = 'run-1'")
        with pytest.raises(GuaranteeError, match="chain breaks behind genesis"):
            destination.runs.read()

    def test_a_pruned_chain_begins_with_its_border(self, destination: Any) -> None:
        chain = fill(destination, 6)
        prune = pruning(chain, border=chain[4])
        assert destination.runs.claim(prune)
        left = [chain[1], *chain[4:], prune]
        # What is to be removed may be there still, or not.
        assert destination.runs.read() == left
        for _ in range(2):
            destination.runs.forget_before(chain[4].run_id, [chain[1].run_id])
            assert destination.runs.read() == left
        destination.runs.mark(prune.run_id, COMMITTED)
        left[-1] = msgspec.structs.replace(prune, status=COMMITTED)
        assert destination.runs.read() == left
        # A small ledger may be read as a whole.
        assert destination.runs.tail() in ([chain[1], chain[6], left[-1]], left)
        assert [run.run_id for run in destination.runs.backwards()][:3] == [
            run.run_id for run in left[::-1][:3]
        ]
        following = with_landmarks(record("run-8", prune.run_id, COMMITTED), left)
        assert destination.runs.claim(following)
        assert destination.runs.read() == [*left, following]

    @pytest.mark.parametrize("missing", [1, 4, 5])
    def test_a_pruned_chain_that_lacks_a_record_is_broken(
        self, destination: Any, missing: int
    ) -> None:
        chain = fill(destination, 6)
        assert destination.runs.claim(pruning(chain, border=chain[4], status=COMMITTED))
        destination.runs.forget_before(chain[4].run_id, [chain[1].run_id])
        assert len(destination.runs.read()) == 5
        gone = chain[missing].run_id
        self.execute(destination, f"DELETE FROM {RUNS} WHERE run_id = '{gone}'")
        with pytest.raises(GuaranteeError, match="chain"):
            destination.runs.read()

    def test_records_that_no_prune_has_left_are_outside_of_the_chain(
        self, destination: Any
    ) -> None:
        chain = fill(destination, 6)
        assert destination.runs.claim(pruning(chain, border=chain[4], status=COMMITTED))
        with pytest.raises(GuaranteeError, match="8 records, but the chain"):
            destination.runs.read()

    def test_a_tail_is_the_end_of_the_chain(self, destination: Any) -> None:
        assert destination.runs.tail() == []
        chain = fill(destination, 100)
        assert destination.runs.tail() == chain[-2:]
        assert destination.runs.claim(record("run-101", "run-100"))
        assert [run.run_id for run in destination.runs.tail()] == ["run-99", "run-100", "run-101"]
        destination.runs.mark("run-101", COMMITTED)
        # It names no landmarks, as those of versions that did not know them.
        assert [run.run_id for run in destination.runs.tail()] == ["run-99", "run-100", "run-101"]

    def test_a_tail_has_its_landmarks_wherever_they_are(self, destination: Any) -> None:
        chain = fill(destination, 100)
        older = [chain[2], chain[50], chain[100]]
        last = record("run-101", "run-100", COMMITTED)
        marks = [[run.run_id, run.plan_time] for run in older]
        settings = {**last.settings, LANDMARKS: marks}
        last = msgspec.structs.replace(last, settings=settings)
        assert destination.runs.claim(last)
        assert destination.runs.tail() == [*older, last]

    def test_a_ledger_without_landmarks_is_read_as_a_whole(self, destination: Any) -> None:
        predecessor = None
        for number in range(30):
            run_id = f"run-{number}" if predecessor else GENESIS
            destination.runs.claim(record(run_id, predecessor, COMMITTED))
            predecessor = run_id
        assert destination.runs.tail() == destination.runs.read()
        assert len(destination.runs.tail()) == 30

    def test_the_chain_is_read_backwards_as_far_as_it_is_asked_for(self, destination: Any) -> None:
        chain = fill(destination, 100)
        backwards = destination.runs.backwards()
        assert next(backwards) == chain[-1]
        assert list(backwards) == chain[-2::-1]

    @pytest.mark.parametrize(
        ("broken", "words"),
        [
            # The newest record; the one before it; one that is a landmark.
            ("DELETE FROM {} WHERE run_id = 'run-100'", "chain breaks behind run-99: its succ"),
            ("DELETE FROM {} WHERE run_id = 'run-99'", "chain breaks behind run-98: its succ"),
            ("UPDATE {} SET successor = 'x' WHERE run_id = 'run-99'", "behind run-99: its succ"),
            ("UPDATE {} SET predecessor = 'x' WHERE run_id = 'run-100'", "breaks behind run-99"),
            # Two ends.
            ("UPDATE {} SET successor = NULL WHERE run_id = 'run-97'", "breaks behind run-97"),
        ],
    )
    def test_a_tail_that_meets_a_break_is_refused_as_the_whole_chain_is(
        self, destination: Any, broken: str, words: str
    ) -> None:
        fill(destination, 100)
        self.execute(destination, broken.format(RUNS))
        for read in (destination.runs.tail, destination.runs.read):
            with pytest.raises(GuaranteeError, match=words):
                read()
        with pytest.raises(GuaranteeError, match=words):
            list(destination.runs.backwards())

    def test_a_landmark_that_is_missing_breaks_the_chain(self, destination: Any) -> None:
        chain = fill(destination, 100)
        marks = [[run.run_id, run.plan_time] for run in (chain[50], chain[100])]
        last = record("run-101", "run-100", COMMITTED)
        last = msgspec.structs.replace(last, settings={**last.settings, LANDMARKS: marks})
        assert destination.runs.claim(last)
        self.execute(destination, f"DELETE FROM {RUNS} WHERE run_id = 'run-50'")
        with pytest.raises(GuaranteeError, match="chain breaks behind run-49"):
            destination.runs.tail()

    def test_a_repair_ends_what_it_repairs_by_the_same_statement(self, destination: Any) -> None:
        destination.runs.claim(record(GENESIS, None, COMMITTED))
        destination.runs.claim(record("run-1", GENESIS))
        assert destination.runs.claim(
            msgspec.structs.replace(record("run-2", "run-1"), repairs="run-1")
        )
        assert [(run.run_id, run.status) for run in destination.runs.read()][1:] == [
            ("run-1", ABORTED),
            ("run-2", PREPARED),
        ]

    def test_a_record_of_many_partitions_and_streams_comes_back(self, destination: Any) -> None:
        genesis = record(GENESIS, None, COMMITTED)
        parts = [
            msgspec.structs.replace(genesis.partitions[0], partition=number, topic_id=None)
            for number in range(300)
        ]
        table = TableProgress(
            table=PAYMENTS,
            rows=1,
            commit_groups=[[f"stream-{number}" for number in range(1000)], []],
        )
        big = msgspec.structs.replace(
            genesis, partitions=parts, tables=[table], settings={"text": "'quoted' \"twice\" \\ ü"}
        )
        assert destination.runs.claim(big)
        assert destination.runs.read() == [big]

    def test_reports_are_kept_per_attempt(self, destination: Any) -> None:
        destination.reports.save("run-1", "b", [b"1", b"2"])
        destination.reports.save("run-1", "a", [b"3"])
        found = destination.reports.read("run-1")
        assert {attempt: sorted(reports) for attempt, reports in found.items()} == {
            "a": [b"3"],
            "b": [b"1", b"2"],
        }
        assert destination.reports.read("run-2") == {}

    def test_reports_that_nobody_asks_for_may_be_forgotten(self, destination: Any) -> None:
        for run_id in ("run-1", "run-2"):
            destination.reports.save(run_id, "a", [b"1"])
        destination.reports.forget("run-1")
        assert destination.reports.read("run-2") == {"a": [b"1"]}
