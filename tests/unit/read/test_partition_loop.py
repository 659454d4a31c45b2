"""One poll of a partition: what it accounts for, and what stops it. The broker is a list."""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest

from pipeline.options.schema_file import load_schema
from transforms.decode.decoder import Decoder
from transforms.decode.judge_arrivals import JudgeArrivals
from transforms.model.elements import RawBlock, StreamBatch, merge
from transforms.model.errors import GuaranteeError
from transforms.model.moments import moment_in_words
from transforms.read.partition_loop import Judge, PartitionLoop, ReadSettings, Step
from transforms.read.partition_poller import Polled
from transforms.read.position import PartitionPosition
from transforms.read.topic_identity import TopicIdentity

NOW = 1_790_000_000_000_000
MINUTE = 60_000_000
HOUR = 60 * MINUTE
SAME = TopicIdentity("cluster", "id")
BEGIN = PartitionPosition("payments", 0, "id", "cluster", 0, None)
SHARDS = 3

MARKER = None


def payment(number: int, event_time_us: int = NOW) -> bytes:
    time = moment_in_words(event_time_us)
    return json.dumps(
        {"transaction_id": f"t{number}", "event_time": time, "amount": 1, "currency": "EUR"}
    ).encode()


@dataclass
class Log:
    """The poller's side of the broker. records: value by offset, MARKER where there is none."""

    records: list[bytes | None] = field(default_factory=list)
    first: int = 0
    end: int | None = None
    ids: TopicIdentity | None = SAME
    answers: bool = True
    epoch: int | None = 0
    next_offset: int | None = None
    asked: int = 0
    asked_whose: int = 0
    delivers: int = 10**9
    loses: bool = False
    forgets: bool = False
    """Behind the records of a poll the broker says that it does not know the topic."""

    def assign(self, offset: int) -> None:
        self.next_offset = offset

    def poll(self, records: int, size: int, seconds: float) -> Polled:
        assert self.next_offset is not None
        if self.loses:
            self.next_offset = None
            return Polled(RawBlock("payments", 0, [], [], []), ())
        until = min(len(self.records), self.next_offset + self.delivers)
        found = [
            (offset, value)
            for offset, value in enumerate(self.records[:until])
            if offset >= self.next_offset and value is not MARKER
        ]
        self.next_offset = None if self.forgets else max(self.next_offset, until)
        offsets = [offset for offset, _ in found]
        block = RawBlock(
            "payments", 0, offsets, [NOW // 1000] * len(found), [value for _, value in found]
        )
        return Polled(block, (self.epoch,) if found and self.epoch is not None else ())

    def ends(self) -> tuple[int, int] | None:
        self.asked += 1
        if not self.answers:
            return None
        return self.first, len(self.records) if self.end is None else self.end

    def known_end(self) -> int | None:
        return len(self.records)

    def identity(self) -> TopicIdentity | None:
        self.asked_whose += 1
        return self.ids

    def close(self) -> None:
        self.next_offset = None


class Partition:
    """A loop with its state, as the runner keeps it; time is set by hand."""

    def __init__(self, log: Log, begin: PartitionPosition = BEGIN, **changes: Any) -> None:
        self.now = NOW
        self.position = begin
        self.written: dict[tuple[str, int], int] = {}
        settings = {
            "consumer_config": {}, "job_id": "job", "dedup_horizon_us": HOUR,
            "max_future_skew_us": 5 * MINUTE, "idle_timeout_us": MINUTE, "accept_data_loss": False,
            "first_missing": self._first_missing,
        }  # fmt: skip
        poller: Any = log
        self.loop = PartitionLoop(poller, ReadSettings(**{**settings, **changes}), lambda: self.now)
        decoder = Decoder(load_schema(None))
        self.judge: Judge = JudgeArrivals(decoder, 5 * MINUTE, SHARDS, {})

    def _first_missing(self, begins: dict[tuple[str, int], int]) -> dict[tuple[str, int], int]:
        return {at: self.written.get(at, begin) for at, begin in begins.items()}

    def step(self, seconds: float = 0.05) -> Step:
        self.now += int(seconds * 1_000_000)
        step = self.loop.step(self.position, self.judge)
        self.position = step.position
        return step


def whole(step: Step) -> StreamBatch:
    """The elements of all shards as one; every shard has the same ranges."""
    assert [shard for shard, _ in step.elements] == list(range(SHARDS))
    covered = [
        [msgspec.structs.replace(each, payloads={}) for each in batch.covered]
        for _, batch in step.elements
    ]
    assert covered.count(covered[0]) == SHARDS
    both = merge([batch for _, batch in step.elements])
    return StreamBatch(both.payments, both.rejected, covered[0])


def test_a_poll_accounts_for_every_offset_between_the_positions() -> None:
    log = Log([payment(0), MARKER, MARKER, payment(3), b"broken", MARKER])
    partition = Partition(log)
    batch = whole(partition.step())
    (covered,) = batch.covered
    assert (covered.first, covered.last) == (0, 5)
    assert [(gap.first, gap.last, gap.cause) for gap in covered.gaps] == [
        (1, 2, "no_record"), (5, 5, "no_record"),
    ]  # fmt: skip
    assert sorted(batch.payments.column("kafka_offset").to_pylist()) == [0, 3]
    assert batch.rejected.column("kafka_offset").to_pylist() == [4]
    assert partition.position.offset == 6


def test_a_poll_that_reads_nothing_goes_to_no_shard() -> None:
    partition = Partition(Log([]))
    assert not partition.step().elements
    assert partition.position.offset == 0


def test_offsets_that_hold_no_record_move_the_position_although_nothing_is_delivered() -> None:
    partition = Partition(Log([MARKER, MARKER]))
    (covered,) = whole(partition.step()).covered
    assert [(gap.first, gap.last) for gap in covered.gaps] == [(0, 1)]


def test_the_watermark_is_the_highest_event_time_less_the_horizon_and_never_goes_back() -> None:
    log = Log([payment(0, NOW - 7), payment(1, NOW - MINUTE)])
    partition = Partition(log)
    partition.step()
    assert partition.position.watermark_us == (NOW - 7 - HOUR) // 1000 * 1000
    log.records.append(payment(2, NOW - 30 * MINUTE))
    partition.step()
    assert partition.position.watermark_us == (NOW - 7 - HOUR) // 1000 * 1000


def test_late_is_judged_by_the_watermark_before_the_poll() -> None:
    log = Log([payment(0, NOW), payment(1, NOW - 2 * HOUR)])
    partition = Partition(log)
    assert whole(partition.step()).rejected.num_rows == 0
    log.records.append(payment(2, NOW - 2 * HOUR))
    assert whole(partition.step()).rejected.column("reason").to_pylist() == ["late"]


def test_a_payment_from_the_future_does_not_move_the_watermark() -> None:
    partition = Partition(Log([payment(0, NOW + HOUR)]))
    assert whole(partition.step()).rejected.column("reason").to_pylist() == ["future_event_time"]
    assert partition.position.watermark_us is None


def test_a_quiet_partition_follows_the_clock() -> None:
    partition = Partition(Log([payment(0, NOW - MINUTE)]))
    partition.step()
    for _ in range(100):
        partition.step(1)
    mark = partition.position.watermark_us
    assert mark is not None
    assert partition.now - HOUR - 20_000_000 < mark <= partition.now - HOUR


def test_a_broker_that_is_away_for_longer_than_the_idle_timeout_makes_nothing_late() -> None:
    log = Log([payment(0, NOW - MINUTE)])
    partition = Partition(log)
    partition.step()
    before = partition.position.watermark_us
    log.answers = False
    for _ in range(300):
        partition.step(60)
    log.answers = True
    log.records += [payment(number, NOW) for number in range(1, 4)]
    step = partition.step(60)
    assert whole(step).rejected.num_rows == 0
    assert partition.position.watermark_us == max(before or 0, NOW - HOUR)


def test_a_backlog_behind_broken_records_is_not_late() -> None:
    """After five hours without the job the first records are broken, and the good ones behind them
    are hours old.
    """
    log = Log([b"broken"] * 1_000 + [payment(number, NOW) for number in range(10)])
    begin = msgspec.structs.replace(BEGIN, watermark_us=NOW - HOUR)
    partition = Partition(log, begin)
    partition.now = NOW + 5 * HOUR
    log.delivers = 1
    for _ in range(1_000):
        partition.step(1)
    assert partition.position.watermark_us == NOW - HOUR
    log.delivers = 100
    assert whole(partition.step()).rejected.num_rows == 0


@pytest.mark.parametrize(
    "found", [TopicIdentity("cluster", "another"), TopicIdentity("another", "id")]
)
def test_no_record_of_another_topic_goes_on(found: TopicIdentity) -> None:
    log = Log([payment(0)])
    partition = Partition(log)
    partition.step()
    partition.step(1)
    log.ids = found
    log.records.append(payment(1))
    with pytest.raises(GuaranteeError, match="another"):
        partition.step(1)
    assert partition.position.offset == 1


def test_a_recreated_topic_is_noticed_although_nothing_is_read_of_it() -> None:
    log = Log([payment(0)])
    partition = Partition(log)
    partition.step()
    log.ids = TopicIdentity("cluster", "another")
    with pytest.raises(GuaranteeError, match="created again"):
        partition.step(10)


def test_a_topic_that_is_recreated_while_old_records_lie_ready_is_noticed() -> None:
    """The client had fetched so much that no poll was empty: what it has read behind the error is
    of the new topic.
    """
    log = Log([payment(0)])
    partition = Partition(log)
    partition.step()
    log.records += [payment(1), payment(2)]
    log.forgets, log.ids = True, TopicIdentity("cluster", "another")
    with pytest.raises(GuaranteeError, match="created again"):
        partition.step()
    log.ids = None
    assert not partition.step().elements
    assert partition.position.offset == 1, "nothing goes on before the broker has said whose it is"
    log.forgets, log.ids = False, SAME
    partition.step()
    assert partition.position.offset == 3


def test_a_recreated_topic_is_noticed_although_the_clock_was_set_back() -> None:
    log = Log([payment(0)])
    partition = Partition(log)
    partition.step()
    log.ids = TopicIdentity("cluster", "another")
    with pytest.raises(GuaranteeError, match="created again"):
        partition.step(-3600)


def test_a_quiet_partition_asks_whose_it_is_every_ten_seconds_and_before_a_record_goes_on() -> None:
    log = Log([payment(0)])
    partition = Partition(log)
    for _ in range(600):
        partition.step()
    assert log.asked_whose <= 4
    before = log.asked_whose
    log.records.append(payment(1))
    assert whole(partition.step()).payments.num_rows == 1
    assert log.asked_whose == before + 1


def test_the_silence_begins_anew_where_reading_does() -> None:
    """Another attempt of the job may have read payments, which this loop has not seen."""
    log = Log([payment(0, NOW - MINUTE)])
    partition = Partition(log)
    for _ in range(100):
        partition.step(1)
    assert (partition.position.watermark_us or 0) > NOW - HOUR
    log.records.append(payment(1))
    before = partition.position.watermark_us
    partition.position = msgspec.structs.replace(partition.position, offset=2)
    for _ in range(50):
        partition.step(1)
        assert partition.position.watermark_us == before
    for _ in range(50):
        partition.step(1)
    assert (partition.position.watermark_us or 0) > (before or 0)


def test_the_broker_is_asked_while_the_records_are_judged() -> None:
    judging = threading.Event()

    class Answers(Log):
        def identity(self) -> TopicIdentity | None:
            # The first question is asked before anything is read.
            assert not self.asked_whose or judging.wait(20)
            return super().identity()

    log = Answers([payment(1)])
    partition = Partition(log)
    judge = partition.judge

    def judged(*arguments: Any) -> Any:
        judging.set()
        return judge(*arguments)

    partition.judge = judged
    assert partition.step().elements
    log.records.append(payment(2))
    judging.clear()
    assert partition.step(1).elements
    assert log.asked_whose == 3, "before anything is read, and before each of the records goes on"


def fails(*_: Any) -> Any:
    """A Judge."""
    raise RuntimeError("these offsets do not rise")


def test_another_topic_says_more_than_an_error_of_what_was_read_of_it() -> None:
    log = Log([payment(1)])
    partition = Partition(log)
    partition.step()
    log.ids = TopicIdentity("cluster", "another id")
    log.records.append(payment(2))
    partition.judge = fails
    with pytest.raises(GuaranteeError, match="another id"):
        partition.step(1)


def test_an_error_of_what_was_read_is_told_where_the_topic_is_the_same() -> None:
    log = Log([payment(1)])
    partition = Partition(log)
    partition.step()
    log.records.append(payment(2))
    partition.judge = fails
    with pytest.raises(RuntimeError, match="do not rise"):
        partition.step(1)


def test_what_was_read_waits_until_the_broker_has_said_whose_it_is() -> None:
    log = Log([payment(0)])
    partition = Partition(log)
    partition.step()
    log.ids = None
    log.records.append(payment(1))
    assert not partition.step(1).elements
    assert partition.position.offset == 1
    log.ids = SAME
    assert whole(partition.step(1)).payments.num_rows == 1
    assert partition.position.offset == 2


def test_a_leader_epoch_that_falls_back_stops_before_the_records_go_on() -> None:
    log = Log([payment(0)], epoch=4)
    partition = Partition(log)
    partition.step()
    assert partition.position.leader_epoch == 4
    log.epoch = 3
    log.records.append(payment(1))
    with pytest.raises(GuaranteeError, match="falls from 4 to 3"):
        partition.step()


def test_deleted_offsets_stop_the_job() -> None:
    partition = Partition(Log([MARKER] * 5 + [payment(5)], first=5))
    with pytest.raises(GuaranteeError, match="offsets 0 to 4 were deleted"):
        partition.step()


def test_deleted_offsets_that_are_all_in_the_tables_are_passed() -> None:
    partition = Partition(Log([MARKER] * 5 + [payment(5)], first=5))
    partition.written["payments", 0] = 5
    (covered,) = whole(partition.step()).covered
    # The shards take what is present off the gap: nothing is left of it.
    assert [(gap.first, gap.last, gap.cause) for gap in covered.gaps] == [(0, 4, "deleted")]
    assert partition.position.offset == 6


def test_an_accepted_loss_becomes_a_gap() -> None:
    log = Log([MARKER] * 5 + [payment(5)], first=5)
    partition = Partition(log, accept_data_loss=True)
    (covered,) = whole(partition.step()).covered
    assert [(gap.first, gap.last, gap.cause) for gap in covered.gaps] == [(0, 4, "deleted")]


def test_offsets_that_are_deleted_while_the_job_runs_are_judged_at_the_next_poll() -> None:
    log = Log([payment(0)])
    partition = Partition(log)
    partition.step()
    log.loses, log.first, log.records = True, 4, [*log.records, MARKER, MARKER, MARKER, payment(4)]
    partition.step()
    log.loses = False
    with pytest.raises(GuaranteeError, match="offsets 1 to 3 were deleted"):
        partition.step()


def test_a_log_that_ends_before_the_position_stops_the_job() -> None:
    begin = msgspec.structs.replace(BEGIN, offset=9)
    with pytest.raises(GuaranteeError, match="the log ends at 1"):
        Partition(Log([payment(0)]), begin).step()


def test_a_partition_found_while_running_judges_nothing_late_and_keeps_the_bytes() -> None:
    old = payment(0, NOW - 10 * HOUR)
    begin = msgspec.structs.replace(BEGIN, is_new=True, payloads_below=NOW - HOUR)
    log = Log([old])
    partition = Partition(log, begin)
    batches = [batch for _, batch in partition.step().elements]
    assert sum(batch.payments.num_rows for batch in batches) == 1
    assert [payload for batch in batches for payload in batch.covered[0].payloads.values()] == [old]
    log.records += [payment(1, NOW)]
    partition.step()
    log.records += [payment(2, NOW - HOUR + MINUTE)]
    assert all(not batch.covered[0].payloads for _, batch in partition.step().elements)
