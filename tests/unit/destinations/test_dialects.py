"""Every question has one meaning in both dialects.

GoogleSQL on the stand-in answers as DuckDB's SQL does on the same rows, untouched or altered by
hand.
"""

from __future__ import annotations

import shutil
from dataclasses import asdict
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pipeline.check.command import check
from tests.support.checked_file import tamper
from tests.support.google_sql import AskedInGoogleSql, GoogleSql
from tests.support.in_memory_kafka import HOUR_US, MINUTE_US, NOW_US
from tests.unit.check.test_check import TAMPERING
from tests.unit.check.test_silent_faults import twin_of
from transforms.destinations.bigquery.checks import bigquery_checks
from transforms.destinations.contract.checks import OFFSETS_PER_BLOCK, ingest_times
from transforms.destinations.contract.live_ids import SomeShards
from transforms.destinations.duckdb.destination import DuckDBDestination
from transforms.destinations.duckdb.dialect import DUCKDB
from transforms.destinations.sql import hashing
from transforms.destinations.sql.checks import check_queries
from transforms.model.buckets import BUCKET_US
from transforms.model.coordinates import TopicPartition, expand_runs
from transforms.model.fingerprints import fingerprints_in, shards_of
from transforms.model.tables import DUPLICATES, PAYMENTS, REJECTED, ROW_TABLES, RUNS, TOTALS

RANGES = [("payments", 0, 1, 9), ("payments", 1, 0, 6), ("refunds", 0, 0, 10)]


@pytest.fixture
def path(untouched: Path, tmp_path: Path) -> Path:
    """Instead of the path of no file: a copy of the file with rows."""
    return Path(shutil.copy(untouched, tmp_path / "payments.duckdb"))


def say_the_same(path: Path, google_sql: GoogleSql, day: str | None = None) -> list[dict[str, Any]]:
    """What `check` says of the file, once both dialects have said it."""
    google_sql.load(path)
    with DuckDBDestination(str(path)) as duckdb:
        expected = [asdict(result) for result in check(duckdb, day, 100.0, 400)]
        found = [
            asdict(result)
            for result in check(AskedInGoogleSql(duckdb, google_sql), day, 100.0, 400)
        ]
    assert found == expected
    return found


def test_untouched_tables_pass_in_both_dialects(untouched: Path, google_sql: GoogleSql) -> None:
    assert not [
        result for result in say_the_same(untouched, google_sql) if result["status"] == "FAILED"
    ]


@pytest.mark.parametrize("name", TAMPERING)
def test_both_dialects_find_the_same_tampering(
    path: Path, google_sql: GoogleSql, name: str
) -> None:
    statements, _ = TAMPERING[name]
    tamper(path, *statements)
    assert [result for result in say_the_same(path, google_sql) if result["status"] == "FAILED"]


@pytest.mark.parametrize("day", [None, "2026-09-21", "2026-09-20", "9999-12-31"])
def test_both_dialects_find_the_same_repeated_ids_on_the_same_day(
    path: Path, google_sql: GoogleSql, day: str | None
) -> None:
    """Three ids have two payments each.

    One comes again beyond the horizon, one within it, one has its other payment a day before.
    """
    tamper(
        path,
        f"UPDATE {RUNS} SET lowest_watermark = {NOW_US + HOUR_US} WHERE successor IS NULL",
        f"UPDATE {PAYMENTS} SET transaction_id = 'a' WHERE transaction_id = 'f'",
        f"UPDATE {PAYMENTS} SET transaction_id = 'b', event_time = event_time - INTERVAL 1 DAY"
        " WHERE transaction_id = 'd'",
        f"UPDATE {PAYMENTS} SET transaction_id = 'c' WHERE transaction_id = 'e'",
    )
    found = {result["name"]: result for result in say_the_same(path, google_sql, day)}
    if day == "2026-09-21":
        assert "ids that came again beyond the dedup horizon" in found
        assert {
            row["transaction_id"]
            for row in found["COUNT(DISTINCT transaction_id) = COUNT(*)"]["proof"]
        } == {"b", "c"}


def test_both_dialects_leave_out_a_run_in_flight(path: Path, google_sql: GoogleSql) -> None:
    tamper(path, f"UPDATE {RUNS} SET status = 'PREPARED' WHERE successor IS NULL")
    say_the_same(path, google_sql)
    tamper(path, f"DELETE FROM {TOTALS} WHERE rowid = (SELECT MIN(rowid) FROM {TOTALS})")
    assert "control totals add up to the tables" in {
        result["name"] for result in say_the_same(path, google_sql) if result["status"] == "FAILED"
    }


def test_both_dialects_know_the_highest_event_time_of_a_run_and_the_reasons_of_its_rejected_rows(
    path: Path, google_sql: GoogleSql
) -> None:
    google_sql.load(path)
    with DuckDBDestination(str(path)) as duckdb:
        plan_times = [run.plan_time for run in duckdb.runs.read()]
        for destination in (duckdb, google_sql):
            highest = destination.query(destination.checks.highest_event_times).to_pylist()
            assert sorted((row["kafka_partition"], row["highest_us"]) for row in highest) == [
                (0, NOW_US),
                (0, NOW_US),
                (1, NOW_US),
                (1, NOW_US),
            ]
            found = destination.query(
                destination.checks.reasons, ingest_times(plan_times)
            ).to_pylist()
            assert {row["reason"]: row["n"] for row in found} == {
                "late": 1,
                "invalid_json": 2,
                "null_value": 1,
            }
            assert not destination.query(
                destination.checks.reasons, ingest_times([NOW_US - 1, NOW_US + 1])
            ).num_rows


def test_runs_of_offsets_end_at_the_borders_of_blocks_and_hold_repeated_ones(
    path: Path, google_sql: GoogleSql
) -> None:
    border = 3 * OFFSETS_PER_BLOCK
    offsets = [
        border - 3,
        border - 2,
        border - 1,
        border,
        border,
        border + 1,
        border + 3,
        border + 3,
        border + 4,
    ]
    tamper(path, *(_with_offset(offset) for offset in offsets))
    google_sql.load(path)
    expected = [(border - 3, border - 1, 3), (border, border + 1, 3), (border + 3, border + 4, 3)]
    with DuckDBDestination(str(path)) as duckdb:
        for destination in (duckdb, google_sql):
            rows = [
                row
                for row in destination.query(destination.checks.coordinate_runs).to_pylist()
                if row["kafka_topic"] == "blocks"
            ]
            assert (
                sorted((row["first_offset"], row["last_offset"], row["n"]) for row in rows)
                == expected
            )
            repeated = destination.query(destination.checks.repeated_coordinates).to_pylist()
            assert {(row["kafka_offset"], row["n"], row["tables"]) for row in repeated} == {
                (offset, 2, f"{PAYMENTS}, {PAYMENTS}") for offset in (border, border + 3)
            }
    first, last = (
        np.array(column) for column in zip(*((one[0], one[1]) for one in expected), strict=True)
    )
    assert expand_runs(first, last).tolist() == sorted(set(offsets))


def _with_offset(offset: int) -> str:
    return f"""INSERT INTO {PAYMENTS}
            SELECT * REPLACE ('blocks' AS kafka_topic, {offset} AS kafka_offset) FROM {PAYMENTS}
        WHERE transaction_id = 'c' AND kafka_topic = 'payments'"""


def test_a_healthy_check_asks_for_no_repeated_rows(untouched: Path, google_sql: GoogleSql) -> None:
    """Both questions read all coordinates again, and what a query reads is billed."""
    say_the_same(untouched, google_sql)
    assert google_sql.checks.coordinate_runs in google_sql.asked
    assert not {
        google_sql.checks.repeated_coordinates,
        google_sql.checks.copies_of_repeated_ids,
        google_sql.checks.unpaid_duplicates(None),
    } & set(google_sql.asked)


def test_both_dialects_tell_fingerprint_twins_apart(
    path: Path, google_sql: GoogleSql, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fingerprints of one byte: the twin of an id that is paid, and an id without one."""
    monkeypatch.setattr(hashing, "FINGERPRINT_BYTES", 1)
    tamper(
        path,
        f"UPDATE {DUPLICATES} SET transaction_id = '{twin_of('c')}' WHERE transaction_id = 'a'",
        f"UPDATE {PAYMENTS} SET transaction_id = 'z' WHERE transaction_id = 'b'",
    )
    google_sql.load(path)
    with DuckDBDestination(str(path)) as duckdb:
        for destination, questions in (
            (duckdb, check_queries(DUCKDB)),
            (google_sql, bigquery_checks(google_sql.name)),
        ):
            assert destination.query(questions.unpaid_ids(None)).to_pylist() == [{"n": 2}]
            assert destination.query(questions.unpaid_duplicates(None)).to_pylist() == [
                {"transaction_id": "b", "copies": 1}
            ]


# Cold start.


def live(
    google_sql: GoogleSql, watermark: int | None, extra_retention_us: int = 0
) -> set[tuple[bytes, int]]:
    return as_set(google_sql.rows.live_ids(watermark, extra_retention_us))


def as_set(table: pa.Table) -> set[tuple[bytes, int]]:
    assert table.column("fingerprint").type == pa.binary(10)
    found = list(
        zip(
            table.column("fingerprint").to_pylist(), table.column("bucket").to_pylist(), strict=True
        )
    )
    assert len(found) == len(set(found))
    return set(found)


@pytest.mark.parametrize("extra_retention_us", [0, HOUR_US])
@pytest.mark.parametrize(
    "watermark",
    [None, NOW_US, NOW_US - MINUTE_US, NOW_US + MINUTE_US, NOW_US + HOUR_US, NOW_US - 2 * HOUR_US],
)
def test_a_cold_start_loads_the_same_ids(
    path: Path, google_sql: GoogleSql, watermark: int | None, extra_retention_us: int
) -> None:
    """An id's payment is an hour, or days, older than its duplicate.

    Another id has a duplicate and no payment.
    """
    tamper(
        path,
        f"UPDATE {PAYMENTS} SET event_time = event_time - INTERVAL 1 HOUR WHERE transaction_id ="
        " 'a'",
        f"UPDATE {PAYMENTS} SET event_time = event_time - INTERVAL 9 DAY WHERE transaction_id ="
        " 'b'",
        f"DELETE FROM {PAYMENTS} WHERE transaction_id = 'f'",
    )
    google_sql.load(path)
    with DuckDBDestination(str(path)) as duckdb:
        assert live(google_sql, watermark, extra_retention_us) == as_set(
            duckdb.rows.live_ids(watermark, extra_retention_us)
        )


def test_a_cold_start_loads_the_ids_of_some_shards_alone(path: Path, google_sql: GoogleSql) -> None:
    """b has an old payment, which is looked up only where its shard is asked for."""
    tamper(
        path,
        f"UPDATE {PAYMENTS} SET event_time = event_time - INTERVAL 9 DAY WHERE transaction_id ="
        " 'b'",
    )
    google_sql.load(path)
    with DuckDBDestination(str(path)) as duckdb:
        everything = duckdb.rows.live_ids(NOW_US, 0)
        shards = shards_of(fingerprints_in(everything.column(0).combine_chunks()), 3)
        assert set(shards.tolist()) == {0, 2}, "shard 1 has no id"
        for numbers in ((0,), (1,), (1, 2), (0, 1, 2)):
            wanted = as_set(everything.filter(pa.array(np.isin(shards, numbers))))
            for rows in (duckdb.rows, google_sql.rows):
                assert as_set(rows.live_ids(NOW_US, 0, SomeShards(numbers, 3))) == wanted


def test_older_payments_are_looked_up_only_when_a_duplicate_asks_for_them(
    path: Path, google_sql: GoogleSql
) -> None:
    google_sql.load(path)
    assert len(live(google_sql, NOW_US - HOUR_US)) == 7
    assert len(google_sql.asked) == 1
    tamper(
        path,
        f"UPDATE {PAYMENTS} SET event_time = event_time - INTERVAL 2 HOUR WHERE transaction_id ="
        " 'a'",
    )
    google_sql.load(path)
    assert len(live(google_sql, NOW_US - HOUR_US)) == 7
    assert len(google_sql.asked) == 2, "the day before is enough"
    tamper(
        path,
        f"UPDATE {PAYMENTS} SET event_time = event_time - INTERVAL 2 DAY WHERE transaction_id ="
        " 'a'",
    )
    google_sql.load(path)
    assert len(live(google_sql, NOW_US - HOUR_US)) == 7
    assert len(google_sql.asked) == 3


def test_ids_of_one_minute_come_in_sixteen_rows(path: Path, google_sql: GoogleSql) -> None:
    """600,000 ids are 8 MB in base64, and a response of BigQuery holds 10 MB."""
    ids = 16_000
    one = (
        f"(SELECT * REPLACE ('many-' || i AS transaction_id) FROM {PAYMENTS}"
        " WHERE transaction_id = 'c')"
    )
    tamper(
        path, f"INSERT INTO {PAYMENTS} SELECT one.* FROM range({ids}) numbers(i), LATERAL {one} one"
    )
    google_sql.load(path)
    assert len(live(google_sql, NOW_US)) > ids
    (sql,) = google_sql.asked
    sizes = [
        len(blob) // 10
        for blob in google_sql.query(sql, {"oldest": NOW_US // MINUTE_US * MINUTE_US})
        .column("fingerprints")
        .to_pylist()
    ]
    assert len(sizes) == 16
    assert max(sizes) < 1.2 * ids / 16


@pytest.mark.parametrize(
    "time",
    [
        -1,
        0,
        -MINUTE_US - 1,
        9_100_000_000_000_000 // MINUTE_US * MINUTE_US - 1,
        -62_135_596_800_000_000,
    ],
)
def test_buckets_and_windows_are_exact_in_every_century(
    path: Path, google_sql: GoogleSql, time: int
) -> None:
    tamper(
        path,
        f"UPDATE {PAYMENTS} SET event_time = make_timestamp({time}) WHERE transaction_id = 'c'",
    )
    google_sql.load(path)
    assert time // BUCKET_US in {bucket for _, bucket in live(google_sql, None)}
    totals = google_sql.rows.present_totals(RANGES, "amount", "currency")
    assert (
        time // BUCKET_US * BUCKET_US in totals.column("window_start").cast(pa.int64()).to_pylist()
    )


# Repair.


@pytest.mark.parametrize("delete", [(), ROW_TABLES])
def test_a_repair_finds_the_same_rows_gaps_and_totals(
    path: Path, google_sql: GoogleSql, delete: tuple[str, ...]
) -> None:
    tamper(
        path,
        f"INSERT INTO {REJECTED} SELECT * FROM {REJECTED} LIMIT 1",
        *(f"DELETE FROM {table}" for table in delete),
    )
    google_sql.load(path)
    rows = google_sql.rows
    with DuckDBDestination(str(path)) as duckdb:
        expected, found = (
            duckdb.rows.present_offsets(RANGES),
            rows.present_offsets(RANGES),
        )
        assert as_lists(found) == as_lists(expected)
        assert set(found) == {("payments", 0), ("payments", 1), ("refunds", 0)}
        assert rows.present_gaps(RANGES) == duckdb.rows.present_gaps(RANGES)
        for columns in (("amount", "currency"), (None, None)):
            totals = rows.present_totals(RANGES, *columns)
            assert rows_of(totals) == rows_of(duckdb.rows.present_totals(RANGES, *columns))
        assert rows.count_rows() == duckdb.rows.count_rows()
        assert rows.count_in_totals() == duckdb.rows.count_in_totals()
        assert google_sql.tables.are_empty() == duckdb.tables.are_empty() == bool(delete)


def as_lists(offsets: Any) -> dict[TopicPartition, dict[str, list[int]]]:
    return {
        where: {table: found.tolist() for table, found in tables.items()}
        for where, tables in offsets.items()
    }


def rows_of(totals: pa.RecordBatch) -> list[tuple[Any, ...]]:
    return sorted(map(tuple, map(dict.values, totals.to_pylist())), key=str)


def test_a_totals_sum_that_is_altered_is_reported_in_the_same_figures(
    path: Path, google_sql: GoogleSql
) -> None:
    tamper(
        path,
        f"UPDATE {TOTALS} SET amount = 99999999999.999999999, checksum = {(1 << 60) - 1} WHERE"
        " outcome = 'accepted'",
    )
    found = {result["name"]: result for result in say_the_same(path, google_sql)}
    rows = found["control totals add up to the tables"]["proof"]
    assert {row["same_ids"] for row in rows} == {False}
    assert all(isinstance(row["amount_in_tables"], Decimal) for row in rows)


def test_copies_on_another_day_than_the_one_looked_at_are_found(
    path: Path, google_sql: GoogleSql
) -> None:
    tamper(
        path,
        f"UPDATE {PAYMENTS} SET transaction_id = 'a', event_time = event_time - INTERVAL 1 DAY"
        " WHERE transaction_id = 'c'",
    )
    found = {result["name"]: result for result in say_the_same(path, google_sql, "2026-09-20")}
    assert [
        row["kafka_offset"] for row in found["COUNT(DISTINCT transaction_id) = COUNT(*)"]["proof"]
    ] == [6]
