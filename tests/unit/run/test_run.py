from pathlib import Path

import pytest

from pipeline.check.command import check
from pipeline.options.config import EARLIEST, LATEST, Start
from pipeline.options.schema_file import load_schema
from pipeline.run import prepare as prepare_step
from tests.support.in_memory_kafka import (
    HOUR_US,
    MARKER,
    MINUTE_US,
    NOW_US,
    InMemoryKafka,
    config,
    payment,
    run,
    table,
)
from tests.support.whole_runs import COPIES, failures, ids
from transforms.destinations.contract.run_ledger import COMMITTED, GENESIS
from transforms.destinations.duckdb.destination import DuckDBDestination
from transforms.destinations.duckdb.streams import DuckDBStreams
from transforms.model.errors import GuaranteeError

REASONS = "SELECT reason, kafka_offset FROM rejected_records ORDER BY ALL"


def test_every_record_ends_in_one_row_and_a_second_run_changes_nothing(
    kafka: InMemoryKafka, path: Path
) -> None:
    kafka.create("payments", 2)
    kafka.send("payments", 0, payment("a"), payment("b"), b"broken", MARKER, payment("a"))
    kafka.send("payments", 1, payment("b"), None)
    (record,) = run(config(path))
    assert ids(path) == ["a", "b"]
    assert ids(path, COPIES) == ["a", "b"]
    assert table(path, REASONS) == [("invalid_json", 2), ("null_value", 1)]
    assert table(path, "SELECT first_offset, last_offset, cause FROM offset_gaps") == [
        (3, 3, "no_record")
    ]
    assert record.status == COMMITTED
    assert kafka.committed == {("payments", 0): 5, ("payments", 1): 2}
    assert run(config(path)) == []
    assert failures(path) == []


@pytest.mark.parametrize("layout", ["sharded", "per_key"])
def test_copies_are_known_across_transactions_runs_shards_and_layouts(
    kafka: InMemoryKafka, path: Path, layout: str
) -> None:
    kafka.create("payments", 1)
    kafka.send("payments", 0, *(payment(f"id-{number}") for number in range(10)))
    assert len(run(config(path, max_records_per_run=4, dedup_layout=layout))) == 3
    kafka.send("payments", 0, *(payment(f"id-{number}") for number in range(12)))
    run(config(path, shards=7, dedup_layout="per_key" if layout == "sharded" else "sharded"))
    assert ids(path) == sorted(f"id-{number}" for number in range(12))
    assert ids(path, COPIES) == sorted(f"id-{number}" for number in range(10))
    assert failures(path) == []


def test_late_is_judged_by_the_watermark_of_earlier_runs_only(
    kafka: InMemoryKafka, path: Path
) -> None:
    kafka.create("payments", 2)
    old = NOW_US - 2 * HOUR_US
    kafka.send("payments", 0, payment("new"), payment("old", old))
    run(config(path))
    kafka.send("payments", 0, payment("older", old))
    # The second partition is met with nothing read of it so far: it starts at the carried minimum,
    # not at the clock.
    kafka.send("payments", 1, payment("elsewhere", old), payment("edge", NOW_US - HOUR_US))
    run(config(path))
    assert ids(path) == ["edge", "new", "old"]
    assert table(path, REASONS) == [("late", 0), ("late", 2)]
    assert table(path, "SELECT payload FROM rejected_records WHERE kafka_offset = 2") == [
        (payment("older", old),)
    ]
    assert failures(path) == []


def test_an_id_is_forgotten_only_when_the_watermark_has_passed_its_minute(
    kafka: InMemoryKafka, path: Path
) -> None:
    kafka.create("payments", 1)
    first = NOW_US - 3 * HOUR_US
    kafka.send("payments", 0, payment("early", first))
    run(config(path))
    kafka.send("payments", 0, payment("mover", NOW_US))
    run(config(path))
    kafka.send("payments", 0, payment("early", NOW_US), payment("mover", NOW_US))
    (record,) = run(config(path))
    assert ids(path) == ["early", "early", "mover"]
    assert ids(path, COPIES) == ["mover"]
    assert record.lowest_watermark == NOW_US - HOUR_US
    with DuckDBDestination(str(path)) as destination:
        results = {result.name: result for result in check(destination, None, 100.0, 400)}
    assert all(result.status != "FAILED" for result in results.values())
    (repeat,) = results["ids that came again beyond the dedup horizon"].proof
    assert (repeat["transaction_id"], repeat["kafka_offset"], repeat["seconds_apart"]) == (
        "early",
        2,
        3 * 3600,
    )


def test_extra_retention_keeps_ids_that_much_longer(kafka: InMemoryKafka, path: Path) -> None:
    kafka.create("payments", 1)
    long = config(path, extra_retention_us=3 * HOUR_US)
    for values in (
        [payment("early", NOW_US - 3 * HOUR_US)],
        [payment("mover")],
        [payment("early")],
    ):
        kafka.send("payments", 0, *values)
        run(long)
    assert ids(path) == ["early", "mover"]
    assert ids(path, COPIES) == ["early"]


def test_an_idle_partition_follows_the_clock_once_two_answers_of_the_broker_agree(
    kafka: InMemoryKafka, path: Path
) -> None:
    kafka.create("payments", 2)
    kafka.send("payments", 0, payment("a"))
    kafka.send("payments", 1, payment("b"))
    run(config(path))
    later = NOW_US + 10 * HOUR_US
    kafka.send("payments", 0, payment("c", later), timestamp_us=later)
    (record,) = run(config(path), now_us=later)
    marks = {part.partition: part.watermark for part in record.partitions}
    assert marks == {0: later - HOUR_US, 1: later - HOUR_US}
    assert record.lowest_watermark == NOW_US - HOUR_US, (
        "partition 0 was not idle, and judged by what it had seen"
    )
    kafka.send("payments", 0, payment("d", later), timestamp_us=later)
    (never,) = run(config(path, idle_timeout_us=None), now_us=later + 10 * HOUR_US)
    assert {part.partition: part.watermark for part in never.partitions} == marks


def test_start_is_resolved_once_and_what_comes_later_is_read_from_its_beginning(
    kafka: InMemoryKafka, path: Path
) -> None:
    kafka.create("payments", 1)
    kafka.send("payments", 0, payment("before"))
    latest = config(path, start=Start(LATEST))
    assert run(latest) == []
    kafka.send("payments", 0, payment("after"))
    kafka.topics["payments"].partitions.append(type(kafka.topics["payments"].partitions[0])())
    kafka.send("payments", 1, payment("new partition"))
    kafka.create("refunds", 1)
    kafka.send("refunds", 0, payment("new topic"))
    run(config(path, start=Start(LATEST), topics=("payments", "refunds")))
    assert ids(path) == ["after", "new partition", "new topic"]
    assert failures(path) == []


def test_a_topic_that_is_not_named_any_more_keeps_its_position(
    kafka: InMemoryKafka, path: Path
) -> None:
    kafka.create("payments", 1)
    kafka.create("refunds", 1)
    kafka.send("payments", 0, payment("a"))
    kafka.send("refunds", 0, payment("b"))
    run(config(path, topics=("payments", "refunds")))
    kafka.send("payments", 0, payment("c"))
    kafka.send("refunds", 0, payment("d"), payment("c"))
    run(config(path, topics=("payments",)))
    run(config(path, topics=("refunds",)))
    assert ids(path) == ["a", "b", "c", "d"]
    assert ids(path, COPIES) == ["c"]
    assert failures(path) == []


def test_deleted_offsets_stop_the_run_or_are_recorded_as_lost(
    kafka: InMemoryKafka, path: Path
) -> None:
    kafka.create("payments", 1)
    kafka.send("payments", 0, payment("a"), payment("b"), payment("c"))
    run(config(path, max_records_per_run=1))
    kafka.send("payments", 0, payment("d"), payment("e"))
    kafka.topics["payments"].partitions[0].deleted = 4
    with pytest.raises(GuaranteeError, match="offsets 3 to 3 were deleted before they were read"):
        run(config(path))
    run(config(path, on_data_loss="accept"))
    assert ids(path) == ["a", "b", "c", "e"]
    assert table(path, "SELECT first_offset, last_offset, cause FROM offset_gaps") == [
        (3, 3, "deleted")
    ]
    assert failures(path) == []


def test_what_would_repeat_or_lose_coordinates_is_refused(kafka: InMemoryKafka, path: Path) -> None:
    kafka.create("payments", 2)
    kafka.send("payments", 0, payment("a"))
    kafka.send("payments", 1, payment("b"))
    run(config(path))
    kafka.cluster = "cluster-2"
    with pytest.raises(
        GuaranteeError, match="cluster-2, but this destination was filled from cluster-1"
    ):
        run(config(path))
    kafka.cluster = "cluster-1"
    kafka.topics["payments"].topic_id = "another"
    with pytest.raises(GuaranteeError, match="deleted and created again"):
        run(config(path))
    kafka.topics["payments"].topic_id = "id of payments"
    removed = kafka.topics["payments"].partitions.pop()
    with pytest.raises(GuaranteeError, match=r"partition\(s\) 1 were read"):
        run(config(path))
    kafka.topics["payments"].partitions.append(removed)
    removed.records.clear()
    with pytest.raises(GuaranteeError, match="the next offset to read is 1, but the log ends at 0"):
        run(config(path))


def test_between_runs_the_horizon_may_grow_only_and_the_key_may_not_change(
    kafka: InMemoryKafka, path: Path
) -> None:
    kafka.create("payments", 1)
    kafka.send("payments", 0, payment("a", NOW_US - 90 * MINUTE_US), payment("b"))
    run(config(path))
    with pytest.raises(
        GuaranteeError,
        match="--dedup_horizon=30m, but this destination was filled with --dedup_horizon=1h",
    ):
        run(config(path, dedup_horizon_us=HOUR_US // 2))
    with pytest.raises(
        GuaranteeError,
        match="--dedup_key=payer_id, but this destination was filled with"
        " --dedup_key=transaction_id",
    ):
        run(config(path, schema=renamed_key()))
    kafka.send("payments", 0, payment("a", NOW_US - 90 * MINUTE_US), payment("b"))
    run(config(path, dedup_horizon_us=2 * HOUR_US))
    assert ids(path) == ["a", "b"]
    # The watermark stays where the shorter horizon had put it: it never goes back.
    assert table(path, REASONS) == [("late", 2)]
    assert failures(path) == []


def renamed_key():  # type: ignore[no-untyped-def]
    from dataclasses import replace

    return replace(load_schema(None), dedup_key="payer_id")


def test_rows_without_a_ledger_are_refused(kafka: InMemoryKafka, path: Path) -> None:
    kafka.create("payments", 1)
    kafka.send("payments", 0, payment("a"))
    run(config(path))
    table(path, "SELECT 1")
    import duckdb

    with duckdb.connect(str(path)) as connection:
        connection.execute("DELETE FROM pipeline_runs")
    with pytest.raises(GuaranteeError, match="the ledger pipeline_runs is empty"):
        run(config(path))


def test_the_first_run_leaves_a_genesis_record_even_when_there_is_nothing_to_read(
    kafka: InMemoryKafka, path: Path
) -> None:
    kafka.create("payments", 1)
    assert run(config(path, start=Start(EARLIEST))) == []
    assert table(path, "SELECT run_id, status FROM pipeline_runs") == [(GENESIS, COMMITTED)]


def test_of_two_runs_from_one_predecessor_one_stops_with_nothing_visible(
    kafka: InMemoryKafka, path: Path, monkeypatch
) -> None:
    """The other run starts and ends between this one's step 3 and step 4; both are in this process,
    below DuckDB's lock.
    """
    kafka.create("payments", 1)
    kafka.send("payments", 0, payment("a"), payment("b"), payment("a"))
    original, other = prepare_step.make_record, []

    def overtaken(*arguments):  # type: ignore[no-untyped-def]
        record = original(*arguments)
        monkeypatch.setattr(prepare_step, "make_record", original)
        # The other run may not remove this one's streams as left behind: this is the worst case,
        # where both reach the claim.
        with monkeypatch.context() as patch:
            patch.setattr(DuckDBStreams, "discard", lambda *_, **__: 0)
            other.extend(run(config(path)))
        return record

    monkeypatch.setattr(prepare_step, "make_record", overtaken)
    with pytest.raises(GuaranteeError, match="another run has followed genesis"):
        run(config(path))
    assert len(other) == 1
    assert run(config(path)) == []
    assert (ids(path), ids(path, COPIES)) == (["a", "b"], ["a"])
    assert failures(path) == []


def test_a_run_whose_streams_were_removed_by_another_one_stops(
    kafka: InMemoryKafka, path: Path, monkeypatch
) -> None:
    kafka.create("payments", 1)
    kafka.send("payments", 0, payment("a"))
    original = prepare_step.finalize_and_prove

    def overtaken(*arguments):  # type: ignore[no-untyped-def]
        monkeypatch.setattr(prepare_step, "finalize_and_prove", original)
        run(config(path))
        return original(*arguments)

    monkeypatch.setattr(prepare_step, "finalize_and_prove", overtaken)
    with pytest.raises(GuaranteeError):
        run(config(path))
    assert ids(path) == ["a"]
    assert failures(path) == []


def test_named_records_go_to_the_rejected_ones_and_nothing_else_does(
    kafka: InMemoryKafka, path: Path
) -> None:
    kafka.create("payments", 2)
    kafka.send("payments", 0, payment("a"), payment("b"), payment("a"))
    kafka.send("payments", 1, payment("c"), payment("d"))
    run(config(path, reject_records={("payments", 0): (1,), ("payments", 1): (0,)}))
    assert (ids(path), ids(path, COPIES)) == (["a", "d"], ["a"])
    rejected = table(
        path,
        "SELECT reason, kafka_partition, kafka_offset, payload FROM rejected_records ORDER BY ALL",
    )
    assert rejected == [
        ("refused_by_destination", 0, 1, payment("b")),
        ("refused_by_destination", 1, 0, payment("c")),
    ]
    assert failures(path) == []
    for coordinate in (("payments", 0), 2), (("payments", 0), 7), (("refunds", 0), 0):
        with pytest.raises(
            GuaranteeError, match=r"--reject_records=\w+:0:\d: this run reads offsets"
        ):
            run(config(path, reject_records={coordinate[0]: (coordinate[1],)}))


def test_the_epoch_unit_may_change_and_judges_what_is_not_read_yet(
    kafka: InMemoryKafka, path: Path
) -> None:
    number = b'{"transaction_id":"%s","event_time":%d,"amount":1,"currency":"EUR"}'
    kafka.create("payments", 1)
    kafka.send("payments", 0, number % (b"a", NOW_US // 1000), payment("b"))
    (before,) = run(config(path))
    assert ids(path) == ["b"] and table(path, REASONS) == [("wrong_type", 0)]
    kafka.send("payments", 0, number % (b"c", NOW_US // 1000), payment("b"))
    (after,) = run(config(path, schema=load_schema(None, epoch_unit="ms")))
    assert ids(path) == ["b", "c"] and ids(path, COPIES) == ["b"]
    assert table(path, REASONS) == [("wrong_type", 0)]
    units = (
        "SELECT DISTINCT event_time = make_timestamp(1790000000000000) FROM payment_transactions"
    )
    assert table(path, units) == [(True,)]
    assert [run.settings["epoch_units"] for run in (before, after)] == [{}, {"event_time": "ms"}]
    assert failures(path) == []
