"""A run that would reject nearly all of a topic stops before anything is visible."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pipeline import cli
from pipeline.failures import GUARANTEE_REFUSED
from pipeline.options.schema_file import load_schema
from pipeline.run.notes import Notes
from pipeline.run.rejected_rate import newest_records
from pipeline.run.summary import print_summary, summarize
from tests.bigquery_stand_in import BigQueryStandIn
from tests.faults.dying import die_after
from tests.support.bigquery import bigquery
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
from transforms.destinations.contract.run_ledger import COMMITTED, PartitionProgress, RunRecord
from transforms.model.errors import GuaranteeError
from transforms.model.rejected import REJECTED_COLUMNS
from transforms.model.rejected_counts import (
    CAUSES,
    EXAMPLE_BYTES,
    count_rejected,
    describe,
    merge_rejected,
)

RATE = {"max_rejected_rate": 0.1}
REJECTED = "SELECT COUNT(*) FROM rejected_records"


def payments(first: int, count: int) -> list[bytes]:
    return [payment(f"id-{number}") for number in range(first, first + count)]


def test_a_topic_of_epoch_millis_stops_at_its_first_record(
    kafka: InMemoryKafka, path: Path
) -> None:
    kafka.create("payments", 2)
    value = b'{"transaction_id":"a","event_time":1790000000000,"amount":"1","currency":"EUR"}'
    kafka.send("payments", 0, *[value] * 5)
    kafka.send("payments", 1, *[value] * 3)
    with pytest.raises(GuaranteeError) as stopped:
        run(config(path, **RATE))
    message = stopped.value.message
    assert "topic payments: 8 of 8 (100.0%) records would be rejected" in message
    assert "8 wrong_type: event_time: " in message
    assert "for example payments:" in message and value.decode() in message
    assert "--schema" in message and "--max_rejected_rate=0.1" in message
    assert table(path, REJECTED) == [(0,)]
    assert table(path, "SELECT run_id FROM pipeline_runs") == [("genesis",)]
    assert kafka.committed == {}
    run(config(path, max_rejected_rate=1.0))
    assert table(path, REJECTED) == [(8,)]
    assert failures(path) == []


def test_it_is_exit_status_3(
    kafka: InMemoryKafka, path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kafka.create("payments", 1)
    kafka.send("payments", 0, b"broken")
    arguments = [
        "run", "--bootstrap_servers=in-memory:1", "--topic=payments",
        f"--destination=duckdb:{path}",
    ]  # fmt: skip
    assert cli.main(arguments) == GUARANTEE_REFUSED == 3
    assert "stopped: topic payments: 1 of 1" in capsys.readouterr().err


def test_a_first_run_that_was_stopped_is_possible_with_another_event_time_field(
    kafka: InMemoryKafka, path: Path, tmp_path: Path
) -> None:
    kafka.create("payments", 1)
    kafka.send("payments", 0, b'{"transaction_id":"a","at":"2026-01-01T00:00:00Z"}')
    with pytest.raises(GuaranteeError, match="missing_field"):
        run(config(path, **RATE))
    file = tmp_path / "schema.json"
    names = {"transaction_id": "STRING", "at": "TIMESTAMP"}
    file.write_text(
        json.dumps(
            [{"name": name, "type": kind, "mode": "REQUIRED"} for name, kind in names.items()]
        )
    )
    run(config(path, schema=load_schema(str(file), event_time_field="at"), **RATE))
    assert table(path, IDS) == [("a",)]
    assert failures(path) == []


@pytest.mark.parametrize(("broken", "stops"), [(10, False), (11, True)])
def test_the_rate_itself_is_allowed(
    kafka: InMemoryKafka, path: Path, broken: int, stops: bool
) -> None:
    kafka.create("payments", 1)
    kafka.send("payments", 0, *payments(0, 100 - broken), *[b"broken"] * broken)
    if stops:
        with pytest.raises(GuaranteeError, match=r"11 of 100 \(11.0%\)"):
            run(config(path, **RATE))
    else:
        run(config(path, **RATE))


def test_a_rate_without_an_exact_binary_fraction_is_allowed_itself(
    kafka: InMemoryKafka, path: Path
) -> None:
    kafka.create("payments", 1)
    kafka.send("payments", 0, *payments(0, 71), *[b"broken"] * 29)
    run(config(path, max_rejected_rate=0.29))
    assert table(path, REJECTED) == [(29,)]


def test_topics_are_judged_one_by_one(kafka: InMemoryKafka, path: Path) -> None:
    for topic in ("payments", "refunds"):
        kafka.create(topic, 1)
    kafka.send("payments", 0, *payments(0, 100))
    kafka.send("refunds", 0, b"broken")
    with pytest.raises(GuaranteeError, match=r"topic refunds: 1 of 1 \(100.0%\)") as stopped:
        run(config(path, topics=("payments", "refunds"), **RATE))
    assert "topic payments" not in stopped.value.message
    assert table(path, IDS) == []
    run(config(path, **RATE))
    assert len(table(path, IDS)) == 100


def test_a_good_history_lets_a_broken_transaction_pass_until_it_is_history_itself(
    kafka: InMemoryKafka, path: Path
) -> None:
    """Of 5,000 good records only the newest 1,000 count."""
    kafka.create("payments", 2)
    for partition in range(2):
        kafka.send("payments", partition, *payments(2500 * partition, 2500))
    run(config(path, **RATE))
    kafka.send("payments", 0, *[b"broken"] * 100)
    run(config(path, **RATE))
    kafka.send("payments", 1, b"broken")
    run(config(path, **RATE))  # 100 of the newest 1,000 are not more than a tenth
    kafka.send("payments", 0, *[b"broken"] * 50)
    with pytest.raises(GuaranteeError, match=r"50 of 50 .*and so were 101 of 1,000"):
        run(config(path, **RATE))
    assert table(path, REJECTED) == [(101,)]
    kafka.send("payments", 0, *payments(9000, 450))
    run(config(path, **RATE))
    assert table(path, REJECTED) == [(151,)]
    assert failures(path) == []


def test_the_end_of_a_long_run_is_its_newest_part(kafka: InMemoryKafka, path: Path) -> None:
    kafka.create("payments", 1)
    kafka.send("payments", 0, *payments(0, 1000), *[b"broken"] * 990)
    run(config(path))
    kafka.send("payments", 0, b"broken")
    with pytest.raises(GuaranteeError, match=r"990 of 1,000 \(99.0%\)"):
        run(config(path, **RATE))


def test_a_record_without_a_value_does_not_count_and_a_late_one_does(
    kafka: InMemoryKafka, path: Path
) -> None:
    kafka.create("payments", 1)
    kafka.send("payments", 0, *[None] * 50, payment("a"))
    run(config(path, **RATE))
    kafka.send("payments", 0, *[None] * 50)
    run(config(path, **RATE))
    kafka.send("payments", 0, *[payment("late", NOW_US - 9 * HOUR_US)] * 3)
    run(config(path, **RATE))  # of the newest that count, one in one was right
    kafka.send("payments", 0, payment("late", NOW_US - 9 * HOUR_US))
    with pytest.raises(GuaranteeError, match=r"1 of 1 .*and so were 3 of 4(.|\n)*--dedup_horizon"):
        run(config(path, **RATE))
    assert failures(path) == []


def test_a_topic_of_nothing_but_records_without_value_passes(
    kafka: InMemoryKafka, path: Path
) -> None:
    kafka.create("payments", 1)
    kafka.send("payments", 0, None, MARKER, None)
    run(config(path, max_rejected_rate=0.0))
    assert table(path, REJECTED) == [(2,)]


def test_copies_are_no_rejected_records(kafka: InMemoryKafka, path: Path) -> None:
    kafka.create("payments", 1)
    kafka.send("payments", 0, *[payment("a")] * 50)
    run(config(path, max_rejected_rate=0.0))
    assert table(path, IDS) == [("a",)]


def test_records_that_a_person_has_named_are_not_judged(kafka: InMemoryKafka, path: Path) -> None:
    kafka.create("payments", 1)
    kafka.send("payments", 0, payment("a"), payment("b"))
    run(config(path, reject_records={("payments", 0): (0, 1)}, **RATE))
    assert table(path, REJECTED) == [(2,)]
    kafka.send("payments", 0, b"broken")
    with pytest.raises(GuaranteeError, match="1 of 1"):
        run(config(path, **RATE))


def test_a_transaction_that_stops_leaves_those_before_it(kafka: InMemoryKafka, path: Path) -> None:
    kafka.create("payments", 1)
    kafka.send("payments", 0, *payments(0, 10), *[b"broken"] * 20)
    with pytest.raises(GuaranteeError, match=r"10 of 10 .*10 of 20"):
        run(config(path, max_records_per_run=10, **RATE))
    assert len(table(path, IDS)) == 10
    assert table(path, REJECTED) == [(10,)]
    assert failures(path) == []


def test_a_repair_is_not_judged(
    kafka: InMemoryKafka, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Part of it is visible already, so it must be completed."""
    kafka.create("payments", 1)
    kafka.send("payments", 0, payment("a"), *[b"broken"] * 5)
    die_after(1, path, monkeypatch)
    expire(path)
    (record,) = run(config(path, **RATE))
    assert record.repairs is not None
    assert table(path, REJECTED) == [(5,)]
    assert failures(path) == []


def test_the_same_in_bigquery(kafka: InMemoryKafka, stand_in: BigQueryStandIn) -> None:
    kafka.create("payments", 1)
    kafka.send("payments", 0, *payments(0, 30))
    run(bigquery(stand_in, **RATE))
    kafka.send("payments", 0, *[b"broken"] * 5)
    run(bigquery(stand_in, **RATE))
    kafka.send("payments", 0, None, b"broken")
    with pytest.raises(GuaranteeError, match=r"1 of 1 .*and so were 5 of 35 \(14.3%\)"):
        run(bigquery(stand_in, **RATE))


# The history of a topic.


def record(
    number: int, *parts: tuple[str, int, int, int, int], status: str = COMMITTED
) -> RunRecord:
    """parts: topic, partition, from, to, records."""
    return RunRecord(
        run_id=f"run-{number}", predecessor=None, status=status, plan_time=number, cluster_id=None,
        partitions=[
            PartitionProgress(
                topic=topic, partition=partition, topic_id=None, from_offset=first, to_offset=end,
                records=records, gap_offsets=end - first - records, coordinate_hash=0,
                start_watermark=None, watermark=None, position_since=0,
            )
            for topic, partition, first, end, records in parts
        ],
        tables=[], lowest_watermark=None, live_ids=0, state_bytes=0, settings={},
    )  # fmt: skip


def test_a_history_takes_the_end_of_the_oldest_run_that_it_needs() -> None:
    runs = [
        record(1, ("p", 0, 0, 9000, 9000)),
        record(2, ("p", 0, 9000, 11000, 1000), ("p", 1, 0, 3000, 3000), ("q", 0, 0, 7, 7)),
        record(3, ("p", 0, 11000, 11500, 500), status="ABORTED"),
        record(4, ("p", 0, 11000, 11600, 600), ("p", 1, 3000, 3000, 0), ("q", 0, 7, 7, 0)),
    ][::-1]
    history = newest_records("p", runs)
    assert (history.records, history.first_time, history.last_time) == (1000, 2, 4)
    assert sorted(history.ranges) == [("p", 0, 10800, 11600), ("p", 1, 2700, 3000)]
    assert newest_records("q", runs).records == 7
    assert newest_records("r", runs).records == 0


# Causes.


def rejected(
    *details: str, reason: str = "wrong_type", payload: bytes | None = b"x" * 999
) -> pa.RecordBatch:
    rows = [
        {
            "reason": reason, "detail": detail, "payload": payload, "kafka_topic": "t",
            "kafka_partition": 0, "kafka_offset": offset,
        }
        for offset, detail in enumerate(details)
    ]  # fmt: skip
    return pa.RecordBatch.from_pylist(rows, schema=REJECTED_COLUMNS)


def test_details_that_differ_in_their_values_have_one_cause() -> None:
    counts = count_rejected(
        rejected('at: "1" is no time', "a1: 5 us behind", 'at: "2" is no time', "a2: 5 us behind")
    )
    assert [(count.records, count.detail, count.offset) for count in counts] == [
        (2, 'at: "1" is no time', 0),
        (1, "a1: 5 us behind", 1),
        (1, "a2: 5 us behind", 3),
    ]
    assert counts[0].text == "x" * EXAMPLE_BYTES + "..."


@pytest.mark.parametrize(
    ("payload", "text"),
    [
        (None, None),
        (b"", ""),
        (b"\xff", "\\xff"),
        (b"x" * EXAMPLE_BYTES, "x" * EXAMPLE_BYTES),
        (b"x" * (EXAMPLE_BYTES + 1), "x" * EXAMPLE_BYTES + "..."),
    ],
)
def test_an_example_says_where_it_was_cut(payload: bytes | None, text: str | None) -> None:
    (count,) = count_rejected(rejected("odd", payload=payload))
    assert count.text == text
    assert f" {'no value' if text is None else text})" in describe(count)


def test_the_sum_of_causes_is_exact_however_many_there_are() -> None:
    counts = count_rejected(
        rejected(*(f"field_{number}x: no" for number in range(900)), "usual", "usual")
    )
    counts = merge_rejected([*counts, *counts])
    assert sum(count.records for count in counts) == 2 * 902
    assert len(counts) == CAUSES


def test_the_summary_shows_the_most_frequent_causes(
    kafka: InMemoryKafka, path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kafka.create("payments", 1)
    kafka.send("payments", 0, payment("a"), *[b"broken"] * 3, b"\xff", None)
    notes = Notes()
    records = run(config(path), NOW_US + MINUTE_US, notes)
    figures: dict[str, Any] = summarize(
        records,
        [{"reason": "invalid_json", "n": 4}, {"reason": "null_value", "n": 1}],
        1.0,
        None,
        notes,
    )
    first = figures["rejected_details"][0]
    assert (first["records"], first["reason"], first["topic"]) == (4, "invalid_json", "payments")
    assert (first["example"], first["value"]) == ("payments:0:1", "broken")
    assert json.loads(json.dumps(figures)) == figures
    print_summary(figures, as_json=False)
    assert "  4 invalid_json: " in capsys.readouterr().out
