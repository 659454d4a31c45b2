"""Interleavings and inputs that once lost, doubled or hid a record, or raised a false alarm; each
was searched for.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.options.run_config import parse_start
from pipeline.options.schema_file import load_schema
from pipeline.run.command import run_until_caught_up
from tests.faults.dying import die_after
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
from tests.support.whole_runs import IDS, expire, failures
from transforms.destinations.contract.run_ledger import PREPARED
from transforms.destinations.duckdb import run_ledger as duckdb_ledger
from transforms.destinations.duckdb.destination import DuckDBDestination
from transforms.model.errors import GuaranteeError, UsageError
from transforms.model.schema import PaymentSchema

REJECTED = "SELECT reason, kafka_partition, kafka_offset FROM rejected_records ORDER BY ALL"


def message(**members: Any) -> bytes:
    return json.dumps(
        {
            "transaction_id": "a",
            "event_time": "2026-09-21T14:13:20Z",
            "amount": "1",
            "currency": "EUR",
            **members,
        }
    ).encode()


def schema_with(tmp_path: Path, name: str) -> PaymentSchema:
    fields = json.loads(Path("pipeline/options/default_schema.json").read_text())
    file = tmp_path / "schema.json"
    file.write_text(json.dumps([*fields, {"name": name, "type": "STRING"}]))
    return load_schema(str(file))


# Idle partitions: two answers of the broker, not one answer that has grown old.


def test_a_partition_that_is_written_all_the_time_is_not_idle_however_long_a_run_takes(
    kafka: InMemoryKafka, path: Path
) -> None:
    """Each transaction of the run takes two minutes; the broker was asked once, at its start."""
    kafka.create("payments", 2)
    backfill = NOW_US - 5 * HOUR_US
    kafka.send("payments", 0, *(payment(f"a{number}", backfill) for number in range(9)))
    kafka.send("payments", 1, payment("b", backfill))
    clock = iter(NOW_US + number * 2 * MINUTE_US for number in range(100))
    with DuckDBDestination(str(path)) as destination:
        for record in run_until_caught_up(
            config(path, max_records_per_run=4), destination, lambda: next(clock)
        ):
            kafka.send("payments", 1, payment(f"b after {record.run_id}", backfill))
    run(config(path), now_us=NOW_US + HOUR_US)
    assert table(path, REJECTED) == []


def test_an_answer_that_has_grown_old_while_another_topic_was_asked_for_is_no_sign_of_idleness(
    kafka: InMemoryKafka, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    topics, backfill, clock = ("a", "b"), NOW_US - 5 * HOUR_US, [NOW_US]
    for topic in topics:
        kafka.create(topic, 1)
        kafka.send(topic, 0, payment(topic, backfill))

    def run_now() -> None:
        with DuckDBDestination(str(path)) as destination:
            list(run_until_caught_up(config(path, topics=topics), destination, lambda: clock[0]))

    run_now()
    original = kafka.topic_state

    def slow(topic: str, now_us: int) -> Any:
        if topic == "b":
            clock[0] += 2 * MINUTE_US
            kafka.send("a", 0, payment("a2", backfill))
        return original(topic, now_us)

    with monkeypatch.context() as patch:
        patch.setattr(kafka, "topic_state", slow)
        clock[0] += 1_000_000
        run_now()
    clock[0] += 1_000_000
    run_now()
    assert table(path, REJECTED) == []


# Repairs.


def test_a_record_that_was_compacted_before_its_repair_is_a_loss_and_no_gap(
    kafka: InMemoryKafka, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The expired run had read it, so it is known that something was there."""
    kafka.create("payments", 1)
    kafka.send("payments", 0, payment("a"), MARKER, payment("a"), b"broken")
    die_after(1, path, monkeypatch)
    expire(path)
    kafka.topics["payments"].partitions[0].records[3] = MARKER
    with pytest.raises(
        GuaranteeError,
        match=r"offsets 0 to 3 3 records were read .* together hold 2 .*--on_data_loss=accept",
    ):
        run(config(path))
    assert table(path, "SELECT status FROM pipeline_runs WHERE successor IS NULL") == [(PREPARED,)]
    run(config(path, on_data_loss="accept"))
    assert table(path, "SELECT first_offset, cause FROM offset_gaps ORDER BY ALL") == [
        (1, "deleted"),
        (3, "deleted"),
    ]
    assert failures(path) == []


def test_a_payment_beyond_the_horizon_stays_one_after_a_repair(
    kafka: InMemoryKafka, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A topic that is not named any more, and never had a payment, does not change what the
    repaired run had loaded.
    """
    kafka.create("payments", 1)
    kafka.create("refunds", 1)
    kafka.send("payments", 0, payment("x", NOW_US - 3 * HOUR_US))
    run(config(path, topics=("payments", "refunds")))
    kafka.send("payments", 0, payment("newer"))
    run(config(path))
    kafka.send("payments", 0, payment("x"), payment("y"), payment("y"))
    die_after(1, path, monkeypatch)
    expire(path)
    run(config(path))
    assert failures(path) == []


def test_offsets_whose_gap_is_visible_need_not_be_in_kafka_any_more(
    kafka: InMemoryKafka, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kafka.create("payments", 1)
    kafka.send("payments", 0, payment("a"), MARKER, payment("b"))
    die_after(2, path, monkeypatch)
    expire(path)
    kafka.topics["payments"].partitions[0].deleted = 3
    run(config(path))
    assert table(path, "SELECT first_offset, cause FROM offset_gaps") == [(1, "no_record")]
    assert failures(path) == []


def test_a_repair_of_nothing_but_totals_needs_no_kafka(
    kafka: InMemoryKafka, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kafka.create("payments", 1)
    kafka.send("payments", 0, payment("a"))
    die_after(1, path, monkeypatch)
    expire(path)
    kafka.topics.pop("payments")
    kafka.create("other", 1)
    kafka.send("other", 0, payment("z"))
    run(config(path, topics=("other",)))
    assert table(path, IDS) == [("a",), ("z",)]
    assert failures(path) == []


def test_the_settings_of_a_run_of_which_nothing_became_visible_bind_nobody(
    kafka: InMemoryKafka, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kafka.create("payments", 1)
    kafka.send("payments", 0, payment("a"))
    run(config(path))
    kafka.send("payments", 0, payment("b"))
    die_after(0, path, monkeypatch, dedup_horizon_us=24 * HOUR_US)
    expire(path)
    run(config(path))
    assert table(path, IDS) == [("a",), ("b",)]


# Times at the edges of what a column holds.


def test_the_first_and_last_moments_of_a_minute_are_in_it_in_every_year(
    kafka: InMemoryKafka, path: Path
) -> None:
    """A division as floating point rounds them up, before 1684 and after 2255."""
    kafka.create("payments", 1)
    times = [
        f"{year:04}-12-31T23:59:{second}Z"
        for year in (1, 500, 1600, 1684, 1969, 2255)
        for second in ("00.000000", "59.999999")
    ]
    kafka.send("payments", 0, *(message(transaction_id=time, event_time=time) for time in times))
    kafka.send(
        "payments", 0, message(transaction_id="future", event_time="9999-12-31T23:59:59.999999Z")
    )
    run(config(path))
    assert failures(path) == []
    assert table(
        path, "SELECT COUNT(DISTINCT window_start) FROM control_totals WHERE outcome = 'accepted'"
    ) == [(5,)]


def test_repeats_before_1970_are_judged_alike(kafka: InMemoryKafka, path: Path) -> None:
    kafka.create("payments", 1)
    for message in (
        payment("x", -30_000_000),
        payment("newer", HOUR_US + 10_000_000),
        payment("x", HOUR_US + 10_000_000),
    ):
        kafka.send("payments", 0, message)
        run(config(path))
    assert table(path, "SELECT COUNT(*) FROM payment_transactions WHERE transaction_id = 'x'") == [
        (2,)
    ]
    assert failures(path) == []


@pytest.mark.parametrize(
    "garbage",
    [
        -1,
        -5,
        1_790_000_000_000_000_000,
        9_223_372_036_854_775,
        9_223_372_036_854_776,
        (1 << 63) - 1,
        -(1 << 63),
    ],
)
def test_a_kafka_timestamp_that_is_no_moment_counts_as_none(
    kafka: InMemoryKafka, path: Path, garbage: int
) -> None:
    """Producers may write anything there, nanoseconds for instance: a product that wraps would make
    a good payment one of the future.
    """
    kafka.create("payments", 1)
    kafka.send("payments", 0, payment("a"), b"broken")
    kafka.topics["payments"].partitions[0].timestamps[:] = [garbage, garbage]
    run(config(path))
    assert table(path, "SELECT transaction_id, kafka_timestamp FROM payment_transactions") == [
        ("a", None)
    ]
    assert table(path, "SELECT reason, kafka_timestamp FROM rejected_records") == [
        ("invalid_json", None)
    ]
    assert failures(path) == []


@pytest.mark.parametrize(
    "time", ["1969-12-31T23:59:59.999Z", "1969-12-31T23:59:59.998Z", "0001-01-01T00:00:00Z"]
)
def test_a_start_before_1970_is_refused(time: str) -> None:
    """Kafka takes -1 ms for `latest`, which would pass over everything."""
    with pytest.raises(UsageError, match="from 1970 on"):
        parse_start(f"timestamp:{time}")
    assert parse_start("timestamp:1969-12-31T23:59:59.9999Z").timestamp_ms == 0


# Amounts.


@pytest.mark.parametrize(
    "amount",
    [
        "1e-9999999999999999999",
        "-1e-9999999999999999999",
        "5e-1000000000000000005",
        "0." + "0" * 70 + "1",
    ],
)
@pytest.mark.parametrize("quote", ["", '"'])
def test_an_amount_too_small_for_its_type_is_never_rounded_to_nothing(
    kafka: InMemoryKafka, path: Path, amount: str, quote: str
) -> None:
    kafka.create("payments", 1)
    kafka.send(
        "payments", 0, message(amount="@").replace(b'"@"', f"{quote}{amount}{quote}".encode())
    )
    kafka.send("payments", 0, message(transaction_id="zero", amount="0e-9999999999999999999"))
    run(config(path))
    assert table(path, REJECTED) == [("out_of_range", 0, 0)]
    assert table(path, "SELECT transaction_id, amount FROM payment_transactions") == [("zero", 0)]


# What a user may do.


def test_a_horizon_that_has_grown_holds_for_the_next_run_already(
    kafka: InMemoryKafka, path: Path
) -> None:
    kafka.create("payments", 1)
    for message in (payment("x", NOW_US - 3 * HOUR_US), payment("newer")):
        kafka.send("payments", 0, message)
        run(config(path))
    kafka.send("payments", 0, payment("x", NOW_US - 30 * MINUTE_US))
    (grown,) = run(config(path, dedup_horizon_us=10 * HOUR_US))
    assert grown.partitions[0].start_watermark == NOW_US - HOUR_US, "what was late stays late"
    assert table(path, IDS) == [("newer",), ("x",)]
    assert failures(path) == []
    # Once the watermark has moved by the new horizon, it is the bound again.
    kafka.send(
        "payments",
        0,
        payment("much newer", NOW_US + 10 * HOUR_US),
        timestamp_us=NOW_US + 10 * HOUR_US,
    )
    run(config(path, dedup_horizon_us=10 * HOUR_US), now_us=NOW_US + 10 * HOUR_US)
    kafka.send(
        "payments", 0, payment("last", NOW_US + 10 * HOUR_US), timestamp_us=NOW_US + 10 * HOUR_US
    )
    (last,) = run(config(path, dedup_horizon_us=10 * HOUR_US), now_us=NOW_US + 10 * HOUR_US)
    assert last.lowest_watermark == NOW_US


def test_a_refused_run_has_changed_no_table(
    kafka: InMemoryKafka, path: Path, tmp_path: Path
) -> None:
    kafka.create("payments", 1)
    kafka.send("payments", 0, payment("a"))
    run(config(path))
    with pytest.raises(GuaranteeError, match="--dedup_horizon"):
        run(config(path, schema=schema_with(tmp_path, "typo"), dedup_horizon_us=MINUTE_US))
    kafka.send("payments", 0, payment("b"))
    run(config(path))
    assert table(path, IDS) == [("a",), ("b",)]


def test_a_first_run_that_does_not_reach_kafka_leaves_no_table(
    kafka: InMemoryKafka, path: Path, tmp_path: Path
) -> None:
    with pytest.raises(GuaranteeError, match="--topic=payments"):
        run(config(path, schema=schema_with(tmp_path, "typo")))
    kafka.create("payments", 1)
    kafka.send("payments", 0, payment("a"))
    run(config(path))
    assert table(path, IDS) == [("a",)]


def test_a_table_of_the_users_own_is_never_taken_for_the_rows_of_a_run(
    kafka: InMemoryKafka, path: Path
) -> None:
    kafka.create("payments", 1)
    kafka.send("payments", 0, payment("a"))
    run(config(path))
    for name in ("rows", "encoded", "cursor", "page"):
        table(path, f"CREATE TABLE {name} AS FROM payment_transactions")
    kafka.send("payments", 0, payment("b"))
    run(config(path))
    assert table(path, IDS) == [("a",), ("b",)]
    assert failures(path) == []


@pytest.mark.parametrize(
    "name", ["__dict__", "__weakref__", "_PARTITIONTIME", "_table_suffix", "_FILE_NAME"]
)
def test_names_that_no_table_or_struct_can_have_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match=f"field {name}: BigQuery reserves names"):
        schema_with(tmp_path, name)


def test_no_partition_has_to_wait_for_the_others_however_small_the_budget(
    kafka: InMemoryKafka, path: Path
) -> None:
    """In a first transaction nothing is late; in a later one the partition would be judged by what
    the others have read.
    """
    kafka.create("payments", 2)
    kafka.send("payments", 0, payment("a"), payment("b"))
    kafka.send("payments", 1, payment("c", NOW_US - 2 * HOUR_US))
    run(config(path, max_records_per_run=1))
    assert table(path, REJECTED) == []


def test_accepted_losses_do_not_eat_the_budget(kafka: InMemoryKafka, path: Path) -> None:
    kafka.create("payments", 1)
    kafka.send("payments", 0, payment("a"))
    run(config(path))
    kafka.send("payments", 0, *(payment(f"b{number}") for number in range(25)))
    kafka.topics["payments"].partitions[0].deleted = 21
    assert len(run(config(path, on_data_loss="accept", max_records_per_run=5))) == 1
    assert table(path, "SELECT first_offset, last_offset FROM offset_gaps") == [(1, 20)]


# The ledger.


def test_ids_that_the_broker_tells_later_are_no_alarm(kafka: InMemoryKafka, path: Path) -> None:
    kafka.create("payments", 1)
    kafka.topics["payments"].topic_id = None
    kafka.send("payments", 0, payment("a"))
    run(config(path))
    kafka.topics["payments"].topic_id = "known now"
    kafka.send("payments", 0, payment("b"))
    run(config(path))
    assert failures(path) == []


def test_a_claim_that_lost_against_another_one_leaves_a_connection_that_works(
    kafka: InMemoryKafka, path: Path
) -> None:
    import msgspec

    kafka.create("payments", 1)
    kafka.send("payments", 0, payment("a"))
    run(config(path))
    with DuckDBDestination(str(path)) as winner, DuckDBDestination(str(path)) as other:
        last = winner.runs.read()[-1]
        mine, theirs = (
            msgspec.structs.replace(last, run_id=name, predecessor=last.run_id, status=PREPARED)
            for name in ("mine", "theirs")
        )
        cursor = winner.session.cursor()
        cursor.begin()
        assert duckdb_ledger.claim(cursor, mine)
        assert not other.runs.claim(theirs)
        cursor.commit()
        assert [found.run_id for found in other.runs.read()][-1] == "mine"
