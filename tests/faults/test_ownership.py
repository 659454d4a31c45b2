"""Who owns the tables: one test per interleaving that docs/guarantees.md names."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from pipeline.failures import GUARANTEE_REFUSED, failure_of
from pipeline.options.config import LATEST, AdoptTopic, Start
from pipeline.run import command as command_step
from pipeline.run import commit as commit_step
from pipeline.streaming.found import FoundPartition, record_partitions
from pipeline.streaming.stop import look_before_stop
from tests.faults.dying import ProcessDied, die_while_committing
from tests.support.in_memory_kafka import InMemoryKafka
from tests.support.payments import MINUTE
from tests.support.streaming.destination import duckdb_destination, expire, look
from tests.support.streaming.faults import Kill, Killed
from tests.support.streaming.hand_over import DyingDestination, Tables
from tests.support.streaming.keys import key_of_shard
from tests.support.streaming.log import TOPIC, Sent
from tests.support.streaming.oracle import compare, rows_of
from tests.support.streaming.runner import Attempt, read_to_the_end
from transforms.destinations.contract.ownership import last_stop, owner_of
from transforms.destinations.contract.run_ledger import COMMITTED, PREPARED
from transforms.destinations.contract.stop_mark import StopMark
from transforms.model.errors import GuaranteeError, TryAgainLater
from transforms.model.tables import DUPLICATES, PAYMENTS
from transforms.stream.errors import Superseded

LOG = [
    [Sent("a", 0), Sent("b", MINUTE), Sent(None, 0), Sent("c", 2 * MINUTE), Sent("a", 0)],
    [Sent("a", 0), Sent("d", 0), Sent(None, 0, gap=True), Sent("e", MINUTE), Sent("f", MINUTE)],
]


@pytest.fixture
def tables(destination: Any, kafka: InMemoryKafka) -> Tables:
    """Kafka has two records of each partition at first."""
    return Tables(destination, kafka, [list(records) for records in LOG], offered=[2, 2])


def offer_all(tables: Tables) -> None:
    tables.offer([len(records) for records in tables.log])


def whole(tables: Tables) -> None:
    compare(tables.real, tables.log)
    assert tables.failures() == []


def holes_in(attempt: Attempt, reads: list[tuple[int, int]]) -> None:
    """The process dies when one shard's rows have arrived, and the other's not."""
    attempt.destination.kill, attempt.destination.calls = Kill("send", 0, after=True), {}
    with pytest.raises(Killed):
        attempt.bundle(reads)
    attempt.destination.network.deliver(9)


class At(DyingDestination):
    """Something happens right before the driver's first call of this name."""

    def __init__(self, real: Any, name: str, happens: Callable[[], Any]) -> None:
        super().__init__(real)
        self._name = name
        self._happens: Callable[[], Any] | None = happens

    def _change(self, name: str, effect: Callable[[], Any]) -> Any:
        if name == self._name and self._happens is not None:
            happens, self._happens = self._happens, None
            happens()
        return super()._change(name, effect)


class Paused:
    """An operation in a thread of its own, held right before its first call of this name."""

    def __init__(self, real: Any, name: str, operation: Callable[..., Any]) -> None:
        self._there, self._go_on = Event(), Event()
        self._threads = ThreadPoolExecutor(1)
        self._result = self._threads.submit(operation, At(real, name, self._hold))

    def __enter__(self) -> Paused:
        assert self._there.wait(60)
        return self

    def __exit__(self, *_: object) -> None:
        self._go_on.set()
        self._threads.shutdown()

    def _hold(self) -> None:
        self._there.set()
        assert self._go_on.wait(60)

    def go_on(self) -> Any:
        """To its end: what it returns, or raises."""
        self._go_on.set()
        return self._result.result(60)


# Bounded runs and jobs.


def test_a_run_is_refused_while_a_job_owns_the_tables(tables: Tables) -> None:
    begun = tables.begin()
    with pytest.raises(GuaranteeError, match="stop --lost") as refused:
        tables.run()
    assert begun.job.job_id in refused.value.message
    assert "since 2026-09-21T" in refused.value.message
    assert failure_of(refused.value).status == GUARANTEE_REFUSED
    assert rows_of(tables.real) == {table: [] for table in rows_of(tables.real)}


def test_a_run_that_is_half_way_loses_to_a_job_that_begins(
    tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = []
    original = command_step.read_and_write

    def reading(*arguments: Any) -> None:
        original(*arguments)
        begun.append(tables.begin())

    with monkeypatch.context() as patch, pytest.raises(GuaranteeError, match="owns") as refused:
        patch.setattr(command_step, "read_and_write", reading)
        tables.run()
    assert not isinstance(refused.value, TryAgainLater)
    assert not any(rows_of(tables.real).values())
    attempt = tables.attempt(begun[0])
    attempt.bundle([(0, 2), (1, 2)])
    tables.stop()
    offer_all(tables)
    tables.run()
    whole(tables)


def test_a_job_that_begins_loses_to_a_run_that_is_faster(tables: Tables) -> None:
    tables.run()
    offer_all(tables)
    with pytest.raises(TryAgainLater, match="has followed"):
        tables.begin(At(tables.real, "claim", tables.run))
    assert owner_of(tables.real.runs.read()) is None
    whole(tables)


def test_a_run_that_died_while_it_became_visible_is_finished_before_a_job_begins(
    tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:

    tables.run()
    offer_all(tables)
    with monkeypatch.context() as patch, pytest.raises(ProcessDied):
        patch.setattr(commit_step, "mark", dies)
        tables.run()
    assert tables.real.runs.read()[-1].status == PREPARED
    begun = tables.begin()
    assert [run.status for run in tables.real.runs.read()][-2:] == [COMMITTED, COMMITTED]
    assert [part.position for part in begun.partitions] == [5, 5]
    tables.stop()
    whole(tables)


def dies(*_: Any) -> None:
    raise ProcessDied


def test_a_run_that_needs_a_repair_refuses_a_job_that_begins(
    kafka: InMemoryKafka, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:

    with duckdb_destination(tmp_path) as destination:
        tables = Tables(destination, kafka, [list(records) for records in LOG])
        die_while_committing(1, tables.run, monkeypatch)
        expire(destination)
        with pytest.raises(GuaranteeError, match="without --streaming"):
            tables.begin()
        tables.run()
        tables.begin()
        tables.stop()
        whole(tables)


def test_a_first_start_needs_no_run_before_it(tables: Tables) -> None:
    begun = tables.begin()
    attempt = tables.attempt(begun)
    assert [(part.position, part.watermark_us) for part in begun.partitions] == [(0, None)] * 2
    assert begun.lowest_watermark_us is None
    offer_all(tables)
    read_to_the_end(attempt)
    assert tables.failures() == [], "a job that no run came before is judged too"
    assert tables.stop().unobserved == []
    whole(tables)


def test_start_latest_is_resolved_once(tables: Tables) -> None:

    begun = tables.begin(start=Start(LATEST))
    offer_all(tables)
    again = tables.begin(take_over=True, start=Start(LATEST))
    assert [part.position for part in begun.partitions] == [2, 2]
    assert [part.position for part in again.partitions] == [2, 2]


def test_what_a_job_has_read_of_a_topic_that_was_adopted_since_is_accounted_for(
    tables: Tables,
) -> None:
    """By the stop: the job that takes over carries on where the one before it began."""
    begun = tables.begin()
    offer_all(tables)
    read_to_the_end(tables.attempt(begun))
    tables.kafka.create(TOPIC, len(LOG), topic_id="new")
    adopted = AdoptTopic(TOPIC, "new")
    tables.begin(take_over=True, adopt_topics=(adopted,), on_data_loss="accept")
    assert tables.failures() == []
    stopped = tables.stop().record
    assert {(part.topic, part.to_offset) for part in stopped.partitions} == {
        (TOPIC, 5), (f"{TOPIC}#2", 0),
    }  # fmt: skip
    assert tables.failures() == []
    tables.run()
    assert tables.failures() == []


# MUST 1: a stop takes a generation of its own.


def test_no_worker_takes_a_shard_over_behind_a_stop(tables: Tables) -> None:
    begun = tables.begin()
    offer_all(tables)
    first = tables.attempt(begun)
    first.bundle([(0, 2)])
    kept = first.checkpoint()

    def restarted() -> None:
        with pytest.raises(GuaranteeError, match="superseded"):
            tables.attempt(begun, kept).bundle([(0, 1), (1, 1)])

    stopped = tables.stop(At(tables.real, "claim", restarted))
    assert [part.to_offset for part in stopped.record.partitions] == [2, 0]
    tables.run()
    whole(tables)


# MUST 2: a stop with a savepoint closes all streams too, and takes positions from the tables.


def test_what_a_worker_wrote_behind_the_savepoint_is_not_read_again(tables: Tables) -> None:
    begun = tables.begin()
    offer_all(tables)
    believed_dead = tables.attempt(begun)
    believed_dead.bundle([(0, 1)])
    seen = look_before_stop(tables.real)
    believed_dead.bundle([(0, 2), (1, 3)])
    stopped = tables.stop(seen=seen)
    with pytest.raises((Superseded, GuaranteeError)):
        believed_dead.bundle([(0, 1)])
    assert [part.to_offset for part in stopped.record.partitions] == [3, 3]
    tables.run()
    whole(tables)


# MUST 3: a run passes over what is present above its position, and knows the ids.


def test_a_record_behind_a_hole_is_passed_over_and_its_id_is_known(
    destination: Any, kafka: InMemoryKafka
) -> None:
    """Ids of shard 0 and of shard 1 take turns, and each comes a second time in another place."""

    here, there = (key_of_shard(shard, 2) for shard in (0, 1))
    log = [[Sent(there, 0), Sent(here, 0), Sent(there, 0), Sent(here, 0), Sent(None, 0, gap=True)]]
    tables = Tables(destination, kafka, log)
    holes_in(tables.attempt(tables.begin()), [(0, 4)])
    written = [offset for rows in rows_of(destination).values() for (_, offset), _ in rows]
    assert sorted(written) in ([1], [1, 3]), "one shard's payment is there, above a hole"
    stopped = tables.stop()
    assert [part.to_offset for part in stopped.record.partitions] == [0]
    stop = last_stop(destination.runs.read())
    assert stop is not None and stop[1].ends_above() == {(TOPIC, 0): max(written) + 1}
    records = tables.run(max_records_per_run=1)
    assert sum(part.records for record in records for part in record.partitions) == 4
    whole(tables)
    found = rows_of(destination)
    assert len(found[PAYMENTS]) == len(found[DUPLICATES]) == 2


def test_what_is_present_above_the_position_is_no_loss_when_kafka_has_deleted_it(
    destination: Any, kafka: InMemoryKafka
) -> None:
    keys = [key_of_shard(offset % 2, 2, after=offset) for offset in range(5)]
    tables = Tables(destination, kafka, [[Sent(key, 0) for key in keys]])
    holes_in(tables.attempt(tables.begin()), [(0, 4)])
    tables.stop()
    present = sorted(offset for rows in rows_of(destination).values() for (_, offset), _ in rows)
    assert present in ([0, 2], [1, 3])
    hole = 1 - present[0]
    kafka.topics[TOPIC].partitions[0].deleted = hole + 2
    with pytest.raises(GuaranteeError, match=f"offsets {hole} to {hole + 1} were deleted"):
        tables.run()
    tables.run(on_data_loss="accept")
    assert look(destination, "SELECT first_offset, last_offset, cause FROM offset_gaps") == [
        (hole, hole, "deleted")
    ]
    assert tables.failures() == []


# MUST 4: begin_job follows the generation that was read before the chain was claimed.


def test_a_job_that_begins_while_it_is_stopped_does_not_go_on(tables: Tables) -> None:
    """Between its claim and its generation it is the owner, so a stop ends it."""
    with pytest.raises(GuaranteeError, match="another job has begun"):
        tables.begin(At(tables.real, "begin_job", tables.stop))
    assert owner_of(tables.real.runs.read()) is None
    offer_all(tables)
    tables.run()
    whole(tables)


def test_a_job_without_its_generation_is_not_begun_behind_a_stop_that_has_closed_its_streams(
    tables: Tables,
) -> None:
    """Else the stop, which has only to claim the chain yet, and the job would both succeed."""
    with (
        Paused(tables.real, "begin_job", tables.begin) as begins,
        Paused(tables.real, "claim", tables.stop) as stops,
    ):
        with pytest.raises(GuaranteeError, match="another job has begun"):
            begins.go_on()
        stops.go_on()
    assert owner_of(tables.real.runs.read()) is None
    offer_all(tables)
    tables.run()
    whole(tables)


def test_a_stop_of_the_old_job_loses_to_a_job_that_has_taken_over(tables: Tables) -> None:
    tables.begin()
    with Paused(tables.real, "claim", tables.stop) as stops:
        begun = tables.begin(take_over=True)
        with pytest.raises(GuaranteeError, match="was to be stopped"):
            stops.go_on()
    owner = owner_of(tables.real.runs.read())
    assert owner is not None
    assert owner.job_id == begun.job.job_id
    offer_all(tables)
    read_to_the_end(tables.attempt(begun))
    tables.stop()
    whole(tables)


# Stops.


def test_two_stops_at_once_end_the_job_once(tables: Tables) -> None:
    begun = tables.begin()
    tables.attempt(begun).bundle([(0, 2), (1, 1)])
    first = []
    second = tables.stop(At(tables.real, "claim", lambda: first.append(tables.stop())))
    assert second.already
    assert second.record == first[0].record
    assert tables.stop().already
    offer_all(tables)
    tables.run()
    whole(tables)


def test_a_stop_does_not_end_a_job_that_has_begun_since_it_looked(tables: Tables) -> None:
    tables.begin()
    seen = look_before_stop(tables.real)
    tables.begin(take_over=True)
    with pytest.raises(GuaranteeError, match="was to be stopped"):
        tables.stop(seen=seen)
    assert owner_of(tables.real.runs.read()) is not None


def test_where_no_job_owns_the_tables_there_is_none_to_stop(tables: Tables) -> None:
    for step in (lambda: look_before_stop(tables.real), tables.stop):
        with pytest.raises(GuaranteeError, match="none to stop"):
            step()
        tables.run()


# Restores.


def test_a_restore_goes_on_under_a_generation_of_its_own(tables: Tables) -> None:
    begun = tables.begin()
    offer_all(tables)
    old = tables.attempt(begun)
    old.bundle([(0, 2)])
    kept = old.checkpoint()
    old.bundle([(0, 1), (1, 2)])
    restored = tables.restore(checkpoint_of=begun.job.job_id)
    assert restored.job.generation == begun.job.generation + 1
    new = tables.attempt(restored, kept)
    read_to_the_end(new)
    with pytest.raises((Superseded, GuaranteeError)):
        old.bundle([(0, 1)])
    assert tables.stop().unobserved == []
    whole(tables)


def test_a_restore_lifts_the_stop_mark_and_says_so(tables: Tables) -> None:
    begun = tables.begin()
    mark = StopMark(generation=1, shard=None, subject=TOPIC, reason="recreated", token="1")
    assert tables.real.shards.write_mark(mark, begun.job.job_id, None)
    assert tables.restore().lifted == (mark,)
    assert tables.begin(take_over=True).lifted == ()


def test_a_checkpoint_from_before_a_hand_over_is_refused_before_anything_is_claimed(
    tables: Tables,
) -> None:
    old = tables.begin()
    tables.stop()
    tables.run()
    for checkpoint_of in (old.job.job_id, None):
        with pytest.raises(GuaranteeError, match="leave --restore out"):
            tables.restore(checkpoint_of=checkpoint_of)
    new = tables.begin()
    with pytest.raises(GuaranteeError, match="--from_tables"):
        tables.restore(checkpoint_of=old.job.job_id)
    owner = owner_of(tables.real.runs.read())
    assert owner is not None and owner.job_id == new.job.job_id


def test_a_second_job_begins_only_where_it_says_that_it_takes_over(tables: Tables) -> None:
    begun = tables.begin()
    offer_all(tables)
    old = tables.attempt(begun)
    old.bundle([(0, 3), (1, 1)])
    with pytest.raises(GuaranteeError, match="--from_tables"):
        tables.begin()
    new = tables.begin(take_over=True)
    assert [part.position for part in new.partitions] == [3, 1]
    with pytest.raises((Superseded, GuaranteeError)):
        old.bundle([(0, 1)])
    read_to_the_end(tables.attempt(new))
    tables.stop()
    whole(tables)


def test_records_that_kafka_has_deleted_since_a_job_began_are_in_the_tables(
    tables: Tables,
) -> None:
    offer_all(tables)
    tables.attempt(tables.begin()).bundle([(0, 3)])
    tables.kafka.topics[TOPIC].partitions[0].deleted = 3
    new = tables.begin(take_over=True)
    assert [part.position for part in new.partitions] == [3, 0]


# Partitions that are found while the job runs.


def test_a_partition_that_is_found_is_written_down_before_it_is_read(
    destination: Any, kafka: InMemoryKafka
) -> None:
    tables = Tables(destination, kafka, [list(records) for records in LOG[:1]])
    begun = tables.begin()
    tables.log.append(list(LOG[1]))
    kafka.topics[TOPIC].partitions.append(type(kafka.topics[TOPIC].partitions[0])())
    offer_all(tables)
    found = [FoundPartition(TOPIC, 1, f"id of {TOPIC}", 0)]
    (first,) = record_partitions(destination, begun.job, found)
    assert (first.position, first.partition) == (0, 1)
    assert record_partitions(destination, begun.job, found) == [first]
    tables.attempt(begun).bundle([(0, 2), (1, 2)])
    assert tables.failures() == []
    recreated = [FoundPartition(TOPIC, 2, "another id", 0)]
    with pytest.raises(GuaranteeError, match=r"created again.*=payments@another id "):
        record_partitions(destination, begun.job, recreated)
    stopped = tables.stop()
    assert [part.to_offset for part in stopped.record.partitions] == [2, 2]
    with pytest.raises(GuaranteeError, match="does not own"):
        record_partitions(destination, begun.job, found)
    tables.run()
    whole(tables)


def test_a_partition_that_is_found_while_the_job_is_stopped_is_stopped_too(
    tables: Tables,
) -> None:
    begun = tables.begin()
    found = [FoundPartition(TOPIC, 7, f"id of {TOPIC}", 3)]
    at = At(tables.real, "claim", lambda: record_partitions(tables.real, begun.job, found))
    stopped = tables.stop(at)
    assert [(part.partition, part.to_offset) for part in stopped.record.partitions] == [
        (0, 0),
        (1, 0),
        (7, 3),
    ]
