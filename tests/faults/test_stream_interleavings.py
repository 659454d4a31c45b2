"""One test per interleaving that docs/streaming.md names."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.support.payments import MINUTE
from tests.support.streaming.destination import duckdb_destination, look, tamper
from tests.support.streaming.faults import Kill, Killed, UnreliableDestination
from tests.support.streaming.log import HORIZON, Sent
from tests.support.streaming.oracle import compare, compare_totals, gaps_of, rows_of
from tests.support.streaming.runner import (
    FOR_EVER,
    Attempt,
    Cluster,
    DictCells,
    read_to_the_end,
    state_settings,
)
from transforms.deduplicate import known_ids
from transforms.deduplicate.process_memory import ProcessMemory
from transforms.destinations.contract.write_streams import StreamNotFound
from transforms.model.errors import GuaranteeError
from transforms.model.fingerprints import split_for_stream
from transforms.model.tables import DUPLICATES, PAYMENTS, REJECTED, TOTALS
from transforms.stream import bundle
from transforms.stream.bundle import StreamBundle
from transforms.stream.errors import StreamGone, Superseded

GAP = Sent(None, 0, gap=True)


def whole(cluster: Cluster) -> None:
    compare(cluster.real, cluster.log)
    compare_totals(cluster.real, cluster.log)


# 1 (a): claims.


class Expired(UnreliableDestination):
    """Days later: the streams of all older epochs have expired."""

    def finalize_stream(self, stream: str) -> int:
        raise StreamNotFound(stream, "expired")


def test_two_jobs_cannot_take_turns(destination: Any) -> None:
    cluster = Cluster(
        destination, [[Sent("a", 0), Sent("b", 0), Sent("c", 0), Sent("d", 0)]], shards=1
    )
    old = cluster.start(cluster.nothing())
    old.bundle([(0, 1)])
    kept = old.checkpoint()
    cluster.begin_job()
    new = cluster.start(kept)
    new.bundle([(0, 1)])
    with pytest.raises(Superseded):
        old.bundle([(0, 1)])
    for _ in range(2):
        with pytest.raises(GuaranteeError, match="is refused for good"):
            old.bundle([(0, 1)])
    new.bundle([(0, 1)])
    read_to_the_end(new)
    whole(cluster)


def test_a_claim_whose_answer_was_lost_is_read_back_by_its_nonce(destination: Any) -> None:
    class LosingTheAnswer(UnreliableDestination):
        def swap_shards(self, job: Any, seen: Any, rows: Any) -> bool:
            self.real.shards.swap(job, seen, rows)
            return bool(self.real.shards.swap(job, seen, rows))

    cluster = Cluster(destination, [[Sent("a", 0), Sent("a", 0)]])
    attempt = Attempt(LosingTheAnswer(destination), cluster.settings(), cluster.nothing())
    read_to_the_end(attempt)
    whole(cluster)
    assert {row.epoch for row in destination.shards.read([0, 1])} <= {0, 1}, (
        "no shard was claimed twice"
    )


def test_all_shards_of_a_process_recover_with_one_claim_and_one_query(destination: Any) -> None:
    cluster = Cluster(destination, [[Sent(letter, 0) for letter in "abcdefgh"]], shards=8)
    attempt = cluster.start(cluster.nothing())
    attempt.bundle([(0, 8)])
    taken = attempt.destination.calls
    assert taken["rows_above"] == 0, "calls count from 0"
    assert taken["swap_shards"] + 1 == 4, (
        "claim and close, of all row shards together and of the totals shard"
    )


# 1 (b): streams of older epochs.


def test_streams_that_have_expired_are_written_to_by_nobody_and_do_not_stop_a_recovery(
    destination: Any,
) -> None:
    cluster = Cluster(destination, [[Sent("a", 0), Sent("b", 0), Sent("a", 1), Sent("c", 0)]])
    first = cluster.start(cluster.nothing())
    first.bundle([(0, 2)])
    kept = first.checkpoint()
    first.bundle([(0, 1)])
    later = Attempt(Expired(destination), cluster.settings(), kept)
    read_to_the_end(later)
    whole(cluster)


def test_a_stream_that_expired_under_a_living_process_makes_it_recover(destination: Any) -> None:
    class ExpiresOnce(UnreliableDestination):
        def send(self, stream: str, offset: int, rows: Any) -> Any:
            if offset:
                raise StreamNotFound(stream, "expired")
            return super().send(stream, offset, rows)

    cluster = Cluster(destination, [[Sent("a", 0), Sent("a", 1), Sent("a", 2)]], shards=1)
    attempt = Attempt(ExpiresOnce(destination), cluster.settings(), cluster.nothing())
    attempt.bundle([(0, 1)])
    attempt.bundle([(0, 1)])
    with pytest.raises(StreamGone):
        attempt.bundle([(0, 1)])
    attempt.bundle([(0, 1)])
    assert len(rows_of(destination)[DUPLICATES]) == 2


def test_rows_present_from_several_epochs_are_all_expected(destination: Any) -> None:
    cluster = Cluster(destination, [[Sent(letter, 0) for letter in "abcdefghij"]])
    start = cluster.nothing()
    for records in (3, 5, 8):
        attempt = cluster.start(start)
        attempt.bundle([(0, records)])
        if records == 5:
            # Its state still has rows above its offsets that epoch 1 wrote, and none of its own.
            half = cluster.start(start)
            half.bundle([(0, 2)])
            start = half.checkpoint()
    attempt = cluster.start(start)
    read_to_the_end(attempt)
    whole(cluster)


# 1 (c): what must be visible.


def test_rows_that_are_not_visible_yet_are_waited_for(destination: Any) -> None:
    cluster = Cluster(destination, [[Sent("a", 0), Sent("a", 1)]], shards=1)
    cluster.start(cluster.nothing()).bundle([(0, 2)])
    patient = cluster.start(cluster.nothing(), hidden_looks=2)
    read_to_the_end(patient)
    whole(cluster)


def test_rows_that_stay_invisible_stop_the_job(destination: Any) -> None:
    cluster = Cluster(destination, [[Sent("a", 0), Sent("a", 1)]], shards=1)
    cluster.start(cluster.nothing()).bundle([(0, 2)])
    with pytest.raises(GuaranteeError, match="0 rows of 1"):
        cluster.start(cluster.nothing(), hidden_looks=99).bundle([(0, 2)])


def test_rows_that_streaming_did_not_write_stop_a_restore_and_are_the_truth_for_adopt(
    destination: Any,
) -> None:
    cluster = Cluster(destination, [[Sent("a", 0), Sent("b", 0), Sent("a", 0)]], shards=1)
    attempt = cluster.start(cluster.nothing())
    attempt.bundle([(0, 1)])
    tamper(
        destination,
        f"INSERT INTO {PAYMENTS} BY NAME SELECT * REPLACE (1 AS kafka_offset, 'b' AS"
        f" transaction_id) FROM {PAYMENTS}",
    )
    with pytest.raises(GuaranteeError, match="Somebody else writes to these tables"):
        cluster.start(cluster.nothing()).bundle([(0, 2)])
    cluster.begin_job()
    start, cold_start = cluster.adopt()
    assert start.source.positions == {0: 2}
    read_to_the_end(cluster.start(start, cold_start=cold_start))
    compare(destination, cluster.log)


def test_a_checkpoint_of_another_destination_is_refused(destination: Any, tmp_path: Path) -> None:
    cluster = Cluster(destination, [[Sent("a", 0), Sent("b", 0)]], shards=1)
    attempt = cluster.start(cluster.nothing())
    attempt.bundle([(0, 1)])
    (tmp_path / "other").mkdir()
    with duckdb_destination(tmp_path / "other") as other:
        elsewhere = Cluster(other, cluster.log, shards=1)
        with pytest.raises(GuaranteeError, match="belongs to another destination"):
            elsewhere.start(attempt.checkpoint()).bundle([(0, 1)])


def test_a_checkpoint_is_refused_for_a_topic_that_was_recreated_and_for_another_cluster(
    destination: Any,
) -> None:
    """Neither writes a row, and a restore of the topic and the cluster of before goes on."""
    cluster = Cluster(destination, [[Sent("a", 0), Sent("b", 0), Sent("c", 0)]], shards=2)
    attempt = cluster.start(cluster.nothing())
    attempt.bundle([(0, 1)])
    kept = attempt.checkpoint()
    recreated = cluster.start(kept)
    recreated.now.source.topic_id = "another"
    with pytest.raises(GuaranteeError, match="was deleted and created again"):
        recreated.bundle([(0, 2)])
    elsewhere = cluster.start(kept)
    elsewhere.settings = replace(
        elsewhere.settings, state=state_settings(2, cluster_id="elsewhere")
    )
    with pytest.raises(GuaranteeError, match="leads to the Kafka cluster elsewhere"):
        elsewhere.bundle([(0, 2)])
    assert [len(rows) for rows in rows_of(destination).values()] == [1, 0, 0]
    read_to_the_end(cluster.start(kept))
    whole(cluster)


def test_a_shard_without_state_in_an_older_checkpoint_begins_where_the_job_began(
    destination: Any,
) -> None:
    cluster = Cluster(
        destination, [[Sent("a", 0), Sent("a", 1), Sent("a", 2), Sent("a", 3)]], shards=1
    )
    first = cluster.start(cluster.nothing())
    oldest = first.checkpoint()
    first.bundle([(0, 2)])
    newer = first.checkpoint()
    cluster.start(newer).bundle([(0, 1)])
    read_to_the_end(cluster.start(oldest))
    whole(cluster)


# 1 (d): ids before verdicts.


def test_a_copy_that_comes_before_its_payment_in_the_replay_finds_the_id(destination: Any) -> None:
    cluster = Cluster(destination, [[Sent("a", 0)], [Sent("a", 1)]])
    cluster.start(cluster.nothing()).bundle([(0, 1)])
    replay = cluster.start(cluster.nothing())
    replay.bundle([(1, 1)])
    assert rows_of(destination) == {
        PAYMENTS: [((0, 0), "a")],
        DUPLICATES: [((1, 0), "a")],
        REJECTED: [],
    }
    read_to_the_end(replay)
    whole(cluster)


def written_behind_the_expiry(destination: Any) -> tuple[Cluster, Any]:
    """A payment that an older process has accepted, and a state that has expired its minute.

    An idle partition follows the clock, so a process restored from before that may do so.
    """
    cluster = Cluster(destination, [[Sent("a", MINUTE), Sent("a", 9 * MINUTE)], []], shards=1)
    first = cluster.start(cluster.nothing())
    first.now.source.idle(1, 0)
    older = first.checkpoint()
    first.now.source.idle(0, 8 * MINUTE)
    first.now.source.idle(1, 8 * MINUTE)
    first.now.cells[0] = expired_state(cluster, first)
    newer = first.checkpoint()
    cluster.start(older).bundle([(0, 1)])
    assert rows_of(destination)[PAYMENTS] == [((0, 0), "a")]
    return cluster, newer


@pytest.mark.parametrize("wrapped", [lambda real: real, Expired], ids=["streams", "expired"])
def test_a_payment_that_an_older_process_wrote_behind_the_expiry_is_known_to_its_copies(
    destination: Any, wrapped: Any
) -> None:
    """Where its stream has expired, a look that is bounded by event time proves nothing."""
    cluster, newer = written_behind_the_expiry(destination)
    Attempt(wrapped(destination), cluster.settings(), newer).bundle([(0, 2)])
    assert rows_of(destination) == {
        PAYMENTS: [((0, 0), "a")],
        DUPLICATES: [((0, 1), "a")],
        REJECTED: [],
    }


def expired_state(cluster: Cluster, attempt: Attempt) -> Any:
    """The cells of shard 0 when its first bundle was a timer."""
    attempt.now.cells[0] = DictCells()
    attempt.bundle([])
    return attempt.now.cells[0]


def test_a_timer_of_a_shard_that_nobody_holds_recovers_it_first(destination: Any) -> None:
    """Else the expiry would move the state's floor past rows that are present, and the first look
    for them would miss them.
    """
    cluster = Cluster(destination, [[Sent("a", 0), Sent("a", 1)], [Sent("z", 0)]], shards=1)
    first = cluster.start(cluster.nothing())
    first.bundle([(1, 1)])
    kept = first.checkpoint()
    first.bundle([(0, 1)])
    restored = cluster.start(kept)
    restored.now.source.idle(0, 0)
    restored.bundle([])
    assert destination.shards.read([0])[0].epoch == 2
    read_to_the_end(restored)
    whole(cluster)


# 2: what is present.


def test_a_present_coordinate_with_another_id_stops_the_job(destination: Any) -> None:
    cluster = Cluster(destination, [[Sent("a", 0)]], shards=1)
    cluster.start(cluster.nothing()).bundle([(0, 1)])
    cluster.log[0][0] = Sent("b", 0)
    with pytest.raises(
        GuaranteeError, match="payments:0:0 is in payment_transactions with another id"
    ):
        cluster.start(cluster.nothing()).bundle([(0, 1)])


def test_a_record_at_or_below_the_highest_offset_seen_stops_the_job(destination: Any) -> None:
    cluster = Cluster(destination, [[Sent("a", 0), Sent("a", 1)]], shards=1)
    attempt = cluster.start(cluster.nothing())
    attempt.bundle([(0, 2)])
    attempt.now.source.positions[0] = 1
    with pytest.raises(GuaranteeError, match="payments:0:1 comes although 1 was seen before"):
        attempt.bundle([(0, 1)])


def test_a_present_coordinate_that_belongs_to_another_shard_now_stops_the_job(
    destination: Any,
) -> None:
    """The shard that holds its row gets no record for it, and the offset is in no gap."""
    cluster = Cluster(destination, [[Sent("a", 0)]], shards=2)
    cluster.start(cluster.nothing()).bundle([(0, 1)])
    cluster.log[0][0] = Sent("c", 0)
    with pytest.raises(GuaranteeError, match="payments:0:0 is in the tables as a row of shard"):
        cluster.start(cluster.nothing()).bundle([(0, 1)])


def test_a_source_that_is_ahead_of_the_state_stops_the_job(destination: Any) -> None:
    cluster = Cluster(destination, [[Sent("a", 0), Sent("a", 1), Sent("a", 2)]], shards=1)
    attempt = cluster.start(cluster.nothing())
    attempt.bundle([(0, 1)])
    attempt.now.source.positions[0] = 2
    with pytest.raises(GuaranteeError, match="payments:0:2 comes although 1 did not"):
        attempt.bundle([(0, 1)])


def test_a_shard_without_a_record_passes_offsets_too(destination: Any) -> None:
    """So its recovery asks for rows above them only."""
    cluster = Cluster(destination, [[Sent("a", 0), Sent("a", 1)], [Sent("a", 2)]], shards=4)
    attempt = cluster.start(cluster.nothing())
    attempt.bundle([(0, 2), (1, 1)])
    cluster.start(attempt.checkpoint()).bundle([(0, 1)])
    latest = [row.latest.offsets for row in destination.shards.read(range(4))]
    assert latest == [{"payments": {0: 1, 1: 0}}] * 4


def test_a_record_that_is_late_in_the_replay_keeps_the_verdict_of_the_table(
    destination: Any,
) -> None:
    cluster = Cluster(destination, [[Sent("a", MINUTE), Sent("b", 9 * MINUTE)]], shards=1)
    cluster.start(cluster.nothing()).bundle([(0, 1)])
    replay = cluster.start(cluster.nothing())
    replay.now.source.idle(0, 8 * MINUTE)
    read_to_the_end(replay)
    assert rows_of(destination)[REJECTED] == []
    compare_totals(destination, cluster.log)


def test_a_present_record_that_kafka_delivers_no_more_still_counts(destination: Any) -> None:
    cluster = Cluster(
        destination, [[Sent("a", 0), Sent("b", 0), Sent("a", 1), Sent("c", 0)]], shards=2
    )
    cluster.start(cluster.nothing()).bundle([(0, 3)])
    for offset in (0, 2):
        cluster.log[0][offset] = GAP
    read_to_the_end(cluster.start(cluster.nothing()))
    assert gaps_of(destination) == []
    compare_totals(destination, cluster.log)


def test_a_payment_behind_what_its_shard_has_expired_is_rejected_with_its_bytes(
    destination: Any,
) -> None:
    """A partition found while the job runs: the others' watermark has gone past its records."""
    cluster = Cluster(destination, [[Sent("a", 0), Sent("b", 0), Sent("c", 9 * MINUTE)]], shards=2)
    cluster.start(cluster.nothing()).bundle([(0, 1)])
    ((block, covered),) = cluster.nothing().source.read(0, 3)
    covered = msgspec.structs.replace(covered, payloads={0: b"a ", 1: b"b "})
    opened = StreamBundle(destination, cluster.settings(), ProcessMemory())
    opened.open({0: DictCells(), 1: DictCells()})
    for shard, batch in split_for_stream(block, covered, 2):
        opened.expire(shard, 2 * MINUTE)
        opened.process(shard, batch)
    assert opened.finish().late_behind_expiry == 1
    assert rows_of(destination) == {
        PAYMENTS: [((0, 0), "a"), ((0, 2), "c")],
        DUPLICATES: [],
        REJECTED: [((0, 1), "b")],
    }
    assert look(destination, f"SELECT reason, payload FROM {REJECTED}") == [("late", b"b ")]


# 3: appends. tests/unit/stream/test_append.py has every answer.


def test_a_failed_bundle_is_tried_again_in_the_same_process_from_the_state_before_it(
    destination: Any,
) -> None:
    cluster = Cluster(
        destination, [[Sent(None, 0), Sent("a", 0), Sent("a", 1), Sent("b", 0)]], shards=1
    )
    attempt = cluster.start(cluster.nothing(), kill=Kill("send", 1, after=True))
    with pytest.raises(Killed):
        attempt.bundle([(0, 3)])
    attempt.destination.dead, attempt.destination.kill = False, None
    attempt.bundle([(0, 3)])
    read_to_the_end(attempt)
    whole(cluster)


def test_a_process_that_is_rolled_back_does_not_use_what_it_remembers_of_the_lost_future(
    destination: Any,
) -> None:
    cluster = Cluster(
        destination, [[Sent("a", 0), Sent("b", 0), Sent("b", 1), Sent("a", 1)]], shards=1
    )
    attempt = cluster.start(cluster.nothing())
    attempt.bundle([(0, 1)])
    kept = attempt.checkpoint()
    attempt.bundle([(0, 2)])
    attempt.now = kept.copy()
    attempt.bundle([(0, 2)])
    read_to_the_end(attempt)
    whole(cluster)


def test_a_lost_answer_that_the_client_retries_is_proven_by_the_table(destination: Any) -> None:
    cluster = Cluster(destination, [[Sent("a", 0), Sent("a", 1), Sent(None, 0)]])
    attempt = cluster.start(cluster.nothing(), lost_answers=range(99))
    read_to_the_end(attempt)
    compare(destination, cluster.log)


# 4: totals and gaps.


def test_totals_are_written_once_and_a_replay_that_knows_more_writes_the_difference(
    destination: Any,
) -> None:
    cluster = Cluster(
        destination, [[Sent("a", 0), Sent("b", 0), Sent("c", 1)], [Sent("a", 1), Sent("d", 0)]]
    )
    first = cluster.start(cluster.nothing())
    first.bundle([(0, 2), (1, 1)])
    for partition in (0, 1):
        first.now.source.idle(partition, MINUTE)
    first.bundle([])
    assert destination.rows.count_in_totals() == 3
    replay = cluster.start(cluster.nothing())
    replay.bundle([(1, 2), (0, 3)])
    read_to_the_end(replay)
    whole(cluster)


def test_a_replay_that_closes_a_window_with_less_writes_nothing_until_it_knows_more(
    destination: Any,
) -> None:
    cluster = Cluster(destination, [[Sent("a", 0), Sent("b", 0)], [Sent("c", 0), Sent("d", 0)]])
    first = cluster.start(cluster.nothing())
    first.bundle([(0, 2), (1, 1)])
    for partition in (0, 1):
        first.now.source.idle(partition, FOR_EVER)
    first.bundle([])
    before = look(destination, f"SELECT * FROM {TOTALS} ORDER BY ALL")
    replay = cluster.start(cluster.nothing())
    for partition in (0, 1):
        replay.now.source.idle(partition, FOR_EVER)
    replay.bundle([(1, 1)])
    replay.bundle([(0, 2)])
    assert look(destination, f"SELECT * FROM {TOTALS} ORDER BY ALL") == before
    replay.bundle([(1, 1)])
    compare_totals(destination, cluster.log)


def test_a_record_in_flight_at_a_dead_process_is_no_gap_even_when_kafka_has_dropped_it(
    destination: Any,
) -> None:
    cluster = Cluster(destination, [[Sent("a", 0), Sent("b", 0)]], shards=1)
    dead = cluster.start(cluster.nothing(), kill=Kill("send", 0, after=True))
    with pytest.raises(Killed):
        dead.bundle([(0, 2)])
    cluster.log[0][0] = GAP
    assert len(cluster.network.in_flight) == 1
    read_to_the_end(cluster.start(cluster.nothing()))
    cluster.network.deliver(9)
    assert gaps_of(destination) == [(0, 0)]
    compare(destination, cluster.log)


# Adopt.


def test_adopt_finalizes_every_stream_of_every_job_before_it_reads_a_table(
    destination: Any,
) -> None:
    cluster = Cluster(destination, [[Sent(letter, 0) for letter in "abcd"]], shards=2)
    zombie = cluster.start(cluster.nothing())
    zombie.bundle([(0, 2)])
    cluster.begin_job()
    order: list[str] = []

    class NotingRows:
        def __getattr__(self, name: str) -> Any:
            order.append(name)
            return getattr(destination.rows, name)

    class Noting(UnreliableDestination):
        rows = NotingRows()

        def finalize_stream(self, stream: str) -> int:
            if stream not in mine:
                order.append("finalize")
            return super().finalize_stream(stream)

        def create_stream(self, table: str, kind: str) -> str:
            """For the marks of open windows."""
            mine.append(super().create_stream(table, kind))
            return mine[-1]

    mine: list[str] = []
    start, cold_start = cluster.adopt(Noting(destination))
    assert order.count("finalize") >= 3 and "finalize" not in order[order.index("count_above") :]
    with pytest.raises((Superseded, GuaranteeError)):
        zombie.bundle([(0, 1)])
    read_to_the_end(cluster.start(start, cold_start=cold_start))
    compare(destination, cluster.log)


def test_adopt_begins_at_the_first_hole_and_takes_watermarks_from_below_it(
    destination: Any,
) -> None:
    cluster = Cluster(
        destination,
        [[Sent("a", 0), Sent("b", HORIZON + MINUTE), Sent("c", 2 * HORIZON)], [Sent("a", 1)]],
        shards=1,
    )
    attempt = cluster.start(cluster.nothing())
    attempt.bundle([(0, 3)])
    tamper(destination, f"DELETE FROM {PAYMENTS} WHERE transaction_id = 'c'")
    tamper(
        destination,
        "UPDATE shard_ledger SET open_epochs = '[]', closed_rows = '{}', nonce = '', latest = base",
    )
    cluster.begin_job()
    start, _ = cluster.adopt()
    assert start.source.positions == {0: 2, 1: 0}
    assert start.source.watermarks == {0: MINUTE, 1: MINUTE}, (
        "a partition without rows begins at the minimum of the others"
    )


def test_a_process_loads_the_ids_of_its_own_new_shards_with_one_query_and_keeps_none(
    destination: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = Cluster(
        destination,
        [[Sent(letter, 0) for letter in "abcdefgh"], [Sent(letter, 1) for letter in "abcdefgh"]],
        shards=6,
        processes=2,
    )
    cluster.start(cluster.nothing()).bundle([(0, 8)])
    cluster.begin_job()
    start, cold_start = cluster.adopt()
    asked: list[tuple[tuple[int, ...], int]] = []
    load = known_ids.load_ids_of_shards

    def noted(where: Any, start: Any, numbers: Any, shards: int) -> Any:
        found = load(where, start, numbers, shards)
        asked.append((tuple(numbers), len(found.buckets)))
        return found

    monkeypatch.setattr(bundle, "load_ids_of_shards", noted)
    attempt = cluster.start(start, cold_start=cold_start)
    attempt.bundle([(1, 4)])
    kept = attempt.checkpoint()
    attempt.bundle([(1, 4)])
    read_to_the_end(cluster.start(kept, cold_start=cold_start))
    assert [numbers for numbers, _ in asked] == [(0, 2, 4), (1, 3, 5)]
    assert sum(found for _, found in asked) == 8
    assert known_ids._LOADED == {}
    compare(destination, cluster.log)


def test_adopt_does_not_read_what_was_deleted_below_what_every_shard_has_passed(
    destination: Any,
) -> None:
    cluster = Cluster(
        destination, [[Sent("a", 0), Sent("a", 1), Sent("a", 2), Sent("a", 3)]], shards=1
    )
    first = cluster.start(cluster.nothing())
    first.bundle([(0, 2)])
    cluster.start(first.checkpoint()).bundle([(0, 1)])
    tamper(destination, f"DELETE FROM {PAYMENTS}")
    cluster.begin_job()
    start, _ = cluster.adopt()
    assert start.source.positions == {0: 3}


def test_adopt_stops_when_rows_that_a_stream_took_are_not_there(destination: Any) -> None:
    cluster = Cluster(destination, [[Sent("a", 0), Sent("b", 0)]], shards=1)
    cluster.start(cluster.nothing()).bundle([(0, 2)])
    tamper(destination, f"DELETE FROM {PAYMENTS} WHERE transaction_id = 'b'")
    cluster.begin_job()
    with pytest.raises(GuaranteeError, match="1 rows of 2"):
        cluster.adopt()


def test_adopt_marks_windows_whose_rows_a_replay_counts_again(destination: Any) -> None:
    """A gap was not written yet, so the job begins below rows of a window with whole totals."""
    log = [[Sent("a", 0), GAP, Sent("b", 0), Sent("c", HORIZON + MINUTE)]]
    cluster = Cluster(destination, log, shards=1)
    # After payments and totals, the gap is sent.
    died = cluster.start(cluster.nothing(), kill=Kill("send", 2, after=False))
    with pytest.raises(Killed):
        died.bundle([(0, 4)])
    assert destination.rows.count_in_totals() == 2 and gaps_of(destination) == []
    cluster.begin_job()
    start, cold_start = cluster.adopt()
    assert start.source.positions == {0: 1}
    read_to_the_end(cluster.start(start, cold_start=cold_start))
    whole(cluster)
    marked = destination.query(destination.checks.unobserved_windows).column("window_start")
    assert [window[11:16] for window in marked.to_pylist()] == ["00:00", "00:06"]


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize(
    "step", ["finalize_stream", "swap_shards", "read_shards", "create_stream", "send"]
)
def test_an_adopt_that_dies_anywhere_is_begun_again(
    destination: Any, step: str, after: bool
) -> None:
    cluster = Cluster(
        destination,
        [[Sent(letter, 0) for letter in "abcdef"], [Sent("a", 1), Sent("f", 1)]],
        shards=3,
    )
    with contextlib.suppress(Killed):
        cluster.start(cluster.nothing(), kill=Kill("send", 1, after=False)).bundle([(0, 4), (1, 1)])
    cluster.network.deliver(1)
    for at in range(3):
        cluster.begin_job()
        with contextlib.suppress(Killed):
            cluster.adopt(UnreliableDestination(destination, kill=Kill(step, at, after)))
    cluster.begin_job()
    start, cold_start = cluster.adopt()
    read_to_the_end(cluster.start(start, cold_start=cold_start))
    compare(destination, cluster.log)
