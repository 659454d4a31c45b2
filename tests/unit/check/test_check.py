"""`check` finds a row that was deleted, doubled, moved or altered by hand, in any table. The list
of the columns that no check protects is right.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import duckdb
import pytest

from pipeline.check.command import UNPROTECTED_COLUMNS, check, check_command
from pipeline.check.result import FAILED, NOTED, CheckResult
from pipeline.run import commit as commit_step
from tests.support.checked_file import tamper, two_runs
from tests.support.in_memory_kafka import (
    InMemoryKafka,
    config,
    payment,
    run,
    use,
)
from transforms.destinations.duckdb.destination import DuckDBDestination
from transforms.model.errors import UsageError
from transforms.model.tables import DUPLICATES, GAPS, PAYMENTS, REJECTED, ROW_TABLES, RUNS, TOTALS
from transforms.stream.unobserved import mark_unobserved

CHAIN = "the ledger is one chain"
TWICE = "no coordinate twice over the three tables"
MISSING = "no coordinate missing"
IN_GAP = "no gap where a row is"
UNREAD = "no row that no run has read"
DELIVERED = "the tables hold what the reader delivered"
BY_RUN = "each run has the rows it wrote, table by table"
SUMS = "control totals add up to the tables"
PAID = "every duplicate is of a payment"
DISTINCT = "COUNT(DISTINCT transaction_id) = COUNT(*)"


@pytest.fixture
def path(untouched: Path, tmp_path: Path) -> Path:
    """Instead of the path of no file: a copy of the file with rows."""
    return Path(shutil.copy(untouched, tmp_path / "payments.duckdb"))


def results(path: Path, day: str | None = None) -> list[CheckResult]:
    with DuckDBDestination(str(path)) as destination:
        return list(check(destination, day, 100.0, 400))


def failed(path: Path) -> set[str]:
    return {result.name for result in results(path) if result.status == FAILED}


def one_row(table: str, column: str = "kafka_offset") -> str:
    """A condition that one row of the table meets."""
    return f"rowid = (SELECT min(rowid) FROM {table} WHERE {column} IS NOT NULL)"


def test_untouched_tables_pass_every_check(untouched: Path) -> None:
    found = results(untouched)
    assert not [result for result in found if result.status == FAILED]
    assert {CHAIN, TWICE, MISSING, IN_GAP, UNREAD, DELIVERED, BY_RUN, PAID, SUMS, DISTINCT} <= {
        result.name for result in found
    }


# What a check must say at least; others may fail too.
TAMPERING = {
    **{
        f"delete from {table}": (
            (f"DELETE FROM {table} WHERE {one_row(table)}",),
            {MISSING, DELIVERED, BY_RUN, SUMS},
        )
        for table in ROW_TABLES
    },
    **{
        f"double in {table}": (
            (f"INSERT INTO {table} SELECT * FROM {table} WHERE {one_row(table)}",),
            {TWICE, DELIVERED, BY_RUN, SUMS},
        )
        for table in ROW_TABLES
    },
    **{
        f"move from {source} to {target}": (
            (
                f"INSERT INTO {target} SELECT * FROM {source} WHERE {one_row(source)}",
                f"DELETE FROM {source} WHERE {one_row(source)}",
            ),
            {BY_RUN, SUMS},
        )
        for source, target in ((PAYMENTS, DUPLICATES), (DUPLICATES, PAYMENTS))
    },
    "move from payments to rejected": (
        (
            f"INSERT INTO {REJECTED} SELECT 'late', 'x', NULL, transaction_id, event_time,"
            " kafka_topic, kafka_partition, kafka_offset,"
            f" kafka_timestamp, ingest_time FROM {PAYMENTS} WHERE transaction_id = 'c'",
            f"DELETE FROM {PAYMENTS} WHERE transaction_id = 'c'",
        ),
        {BY_RUN, SUMS},
    ),
    **{
        f"{name} in {table}": (
            (f"UPDATE {table} SET kafka_{name} = {value} WHERE {one_row(table)}",),
            {MISSING, UNREAD, DELIVERED},
        )
        for name, value in (("offset", "1000"), ("partition", "7"), ("topic", "'other'"))
        for table in ROW_TABLES
    },
    **{
        f"id in {table}": (
            (f"UPDATE {table} SET transaction_id = 'z' WHERE {one_row(table, 'transaction_id')}",),
            {SUMS, PAID} if table == DUPLICATES else {SUMS},
        )
        for table in ROW_TABLES
    },
    "an id's duplicates without its payment": (
        (f"UPDATE {PAYMENTS} SET transaction_id = 'z' WHERE transaction_id = 'a'",),
        {SUMS, PAID},
    ),
    **{
        f"event time in {table}": (
            (
                f"UPDATE {table} SET event_time = event_time + INTERVAL 1 MINUTE WHERE"
                f" {one_row(table, 'event_time')}",
            ),
            {SUMS},
        )
        for table in ROW_TABLES
    },
    **{
        f"amount in {table}": (
            (f"UPDATE {table} SET amount = amount + 0.000000001 WHERE {one_row(table)}",),
            {SUMS},
        )
        for table in (PAYMENTS, DUPLICATES)
    },
    **{
        f"currency in {table}": (
            (f"UPDATE {table} SET currency = 'CHF' WHERE {one_row(table)}",),
            {SUMS},
        )
        for table in (PAYMENTS, DUPLICATES)
    },
    "an id accepted twice": (
        (f"UPDATE {PAYMENTS} SET transaction_id = 'a' WHERE transaction_id = 'c'",),
        {SUMS, DISTINCT},
    ),
    "delete a gap": (
        (f"DELETE FROM {GAPS} WHERE {one_row(GAPS, 'first_offset')}",),
        {MISSING, BY_RUN},
    ),
    "double a gap": (
        (f"INSERT INTO {GAPS} SELECT * FROM {GAPS} WHERE {one_row(GAPS, 'first_offset')}",),
        {IN_GAP, BY_RUN},
    ),
    "invent a gap": (
        (f"INSERT INTO {GAPS} VALUES ('payments', 1, 2, 2, 'no_record')",),
        {IN_GAP, BY_RUN},
    ),
    "gap: first offset": (
        (
            f"UPDATE {GAPS} SET first_offset = first_offset - 1"
            f" WHERE {one_row(GAPS, 'first_offset')}",
        ),
        {IN_GAP},
    ),
    "gap: last offset": (
        (f"UPDATE {GAPS} SET last_offset = first_offset WHERE last_offset > first_offset",),
        {MISSING},
    ),
    "gap: beyond the log": (
        (f"UPDATE {GAPS} SET last_offset = 1000 WHERE last_offset = 10",),
        {UNREAD},
    ),
    "gap: partition": (
        (f"UPDATE {GAPS} SET kafka_partition = 1 WHERE {one_row(GAPS, 'first_offset')}",),
        {MISSING},
    ),
    "gap: topic": (
        (f"UPDATE {GAPS} SET kafka_topic = 'other' WHERE {one_row(GAPS, 'first_offset')}",),
        {MISSING},
    ),
    "hide a payment behind a gap": (
        (
            f"DELETE FROM {PAYMENTS} WHERE transaction_id = 'c'",
            f"INSERT INTO {GAPS} VALUES ('payments', 0, 6, 6, 'no_record')",
        ),
        {DELIVERED, BY_RUN, SUMS},
    ),
    "delete a total": ((f"DELETE FROM {TOTALS} WHERE {one_row(TOTALS, 'records')}",), {SUMS}),
    "double a total": (
        (f"INSERT INTO {TOTALS} SELECT * FROM {TOTALS} WHERE {one_row(TOTALS, 'records')}",),
        {SUMS},
    ),
    "total: window": (
        (
            f"UPDATE {TOTALS} SET window_start = window_start + INTERVAL 1 DAY WHERE"
            f" {one_row(TOTALS, 'records')}",
        ),
        {SUMS},
    ),
    "total: outcome": (
        (f"UPDATE {TOTALS} SET outcome = 'duplicate' WHERE outcome = 'accepted'",),
        {SUMS},
    ),
    "total: currency": (
        (f"UPDATE {TOTALS} SET currency = 'CHF' WHERE {one_row(TOTALS, 'currency')}",),
        {SUMS},
    ),
    "total: records": (
        (f"UPDATE {TOTALS} SET records = records + 1 WHERE {one_row(TOTALS, 'records')}",),
        {SUMS},
    ),
    "total: amount": (
        (f"UPDATE {TOTALS} SET amount = amount + 1 WHERE {one_row(TOTALS, 'amount')}",),
        {SUMS},
    ),
    "total: checksum": (
        (f"UPDATE {TOTALS} SET checksum = checksum + 1 WHERE {one_row(TOTALS, 'records')}",),
        {SUMS},
    ),
    "delete the last run": (
        (
            f"DELETE FROM {RUNS} WHERE successor IS NULL",
            f"UPDATE {RUNS} SET successor = NULL WHERE successor NOT IN (SELECT run_id FROM"
            f" {RUNS})",
        ),
        {UNREAD},
    ),
    "delete a run in the middle": (
        (f"DELETE FROM {RUNS} WHERE predecessor = 'genesis'",),
        {CHAIN},
    ),
    "run: id": ((f"UPDATE {RUNS} SET run_id = 'other' WHERE predecessor = 'genesis'",), {CHAIN}),
    "run: predecessor": (
        (f"UPDATE {RUNS} SET predecessor = 'other' WHERE successor IS NULL",),
        {CHAIN},
    ),
    "run: successor": (
        (f"UPDATE {RUNS} SET successor = NULL WHERE predecessor = 'genesis'",),
        {CHAIN},
    ),
    "run: what was not loaded": (
        (
            f"UPDATE {RUNS} SET lowest_watermark = lowest_watermark + 7200000000 WHERE successor IS"
            " NULL",
        ),
        {CHAIN},
    ),
    "run: horizon": (
        (
            f"UPDATE {RUNS} SET settings ="
            ' json_merge_patch(settings, $${"dedup_horizon_us": 60000000}$$)'
            " WHERE successor IS NULL",
        ),
        {CHAIN},
    ),
    "run: cluster": ((f"UPDATE {RUNS} SET cluster_id = 'other' WHERE successor IS NULL",), {CHAIN}),
}


@pytest.mark.parametrize("name", TAMPERING)
def test_tampering_is_found_out(path: Path, name: str) -> None:
    statements, expected = TAMPERING[name]
    tamper(path, *statements)
    found = failed(path)
    assert expected <= found
    proofs = [
        result
        for result in results(path)
        if result.status == FAILED and result.name in expected and result.name != CHAIN
    ]
    assert all(result.proof for result in proofs), "a failed check shows the rows that prove it"


NEW_VALUE = {
    "from_offset": "part.from_offset + 1",
    "to_offset": "part.to_offset + 1",
    "records": "part.records + 1",
    "gap_offsets": "part.gap_offsets + 1",
    "coordinate_hash": "xor(part.coordinate_hash, 1::UBIGINT)",
    "watermark": "part.watermark - 3600000000",
    "watermark, ahead": "part.watermark + 1",
    "start_watermark": "part.start_watermark + 3600000000",
    "start_watermark, behind": "part.start_watermark - 1",
    "topic": "'other'",
    "partition": 'part."partition" + 5',
    "topic_id": "'other'",
}


@pytest.mark.parametrize("name", NEW_VALUE)
def test_an_altered_partition_of_the_last_run_is_found_out(path: Path, name: str) -> None:
    fields = (
        "topic",
        "partition",
        "topic_id",
        "from_offset",
        "to_offset",
        "records",
        "gap_offsets",
        "coordinate_hash",
        "start_watermark",
    )
    fields += ("watermark", "position_since")
    altered = name.partition(",")[0]
    values = {field: f'part."{field}"' for field in fields} | {altered: NEW_VALUE[name]}
    packed = ", ".join(f'"{field}" := {value}' for field, value in values.items())
    tamper(
        path,
        f"UPDATE {RUNS} SET partitions = list_transform(partitions, lambda part:"
        f" struct_pack({packed})) WHERE successor IS NULL",
    )
    assert failed(path)


@pytest.mark.parametrize("table", ROW_TABLES)
def test_an_altered_number_of_rows_in_the_ledger_is_found_out(path: Path, table: str) -> None:
    changed = f"""list_transform(tables, lambda t: struct_pack("table" := t."table",
        "rows" := t."rows" + (t."table" = '{table}')::INT, commit_groups := t.commit_groups))"""
    tamper(path, f"UPDATE {RUNS} SET tables = {changed} WHERE successor IS NULL")
    assert {CHAIN, BY_RUN} <= failed(path)


def test_a_status_that_was_set_back_reports_the_run_as_in_flight(path: Path) -> None:
    tamper(path, f"UPDATE {RUNS} SET status = 'PREPARED' WHERE successor IS NULL")
    assert "run in flight" in {result.name for result in results(path) if result.status == NOTED}


@pytest.mark.parametrize(
    "table,column",
    [(table, column) for table, columns in UNPROTECTED_COLUMNS.items() for column in columns],
)
def test_the_columns_that_no_check_protects_are_the_listed_ones(
    path: Path, table: str, column: str
) -> None:
    with duckdb.connect(str(path)) as connection:
        kind = dict(
            connection.execute(
                f"SELECT column_name, column_type FROM (DESCRIBE {table})"
            ).fetchall()
        )[column]
        value = {
            "VARCHAR": "'other'",
            "TIMESTAMP": "TIMESTAMP '2020-01-01'",
            "BLOB": "'\\x00'::BLOB",
            "BIGINT": "1",
        }[kind]
        # Rows without an event time are counted in the minute of their Kafka timestamp: of those
        # alone it is protected.
        condition = (
            " WHERE event_time IS NOT NULL"
            if (table, column) == (REJECTED, "kafka_timestamp")
            else ""
        )
        connection.execute(f"UPDATE {table} SET {column} = {value}{condition}")
    assert failed(path) == set()


def test_every_column_is_either_protected_or_listed(path: Path) -> None:
    """Protected by a case above: the name of the column, or what it is called there."""
    coordinate = {"kafka_topic", "kafka_partition", "kafka_offset"}
    payment_columns = {"transaction_id", "event_time", "amount", "currency", *coordinate}
    protected = {
        PAYMENTS: payment_columns,
        DUPLICATES: payment_columns,
        REJECTED: {"transaction_id", "event_time", *coordinate},
        GAPS: {"kafka_topic", "kafka_partition", "first_offset", "last_offset"},
        TOTALS: {"window_start", "outcome", "currency", "records", "amount", "checksum"},
        RUNS: {
            "run_id",
            "predecessor",
            "successor",
            "status",
            "cluster_id",
            "partitions",
            "tables",
            "lowest_watermark",
            "settings",
        },
    }
    with duckdb.connect(str(path)) as connection:
        for table, columns in protected.items():
            there = {
                name
                for (name,) in connection.execute(
                    f"SELECT column_name FROM (DESCRIBE {table})"
                ).fetchall()
            }
            assert there == columns | set(UNPROTECTED_COLUMNS.get(table, ()))


def test_repeats_within_the_horizon_are_not_excused_by_the_ones_beyond_it(path: Path) -> None:
    tamper(
        path,
        f"UPDATE {RUNS} SET lowest_watermark = lowest_watermark + 7200000000",
        f"INSERT INTO {PAYMENTS} SELECT * FROM {PAYMENTS}",
    )
    assert DISTINCT in failed(path)


def test_a_run_in_flight_is_reported_and_not_judged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, kafka = tmp_path / "payments.duckdb", InMemoryKafka()
    use(kafka, monkeypatch)
    two_runs(kafka, path)
    kafka.send("payments", 0, payment("h"), payment("a"), b"broken")
    original = commit_step.commit_table
    committed: list[str] = []

    class Killed(Exception):
        pass

    def commit_some(*arguments):  # type: ignore[no-untyped-def]
        if len(committed) == 2:
            raise Killed
        committed.append("one more")
        return original(*arguments)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(commit_step, "commit_table", commit_some)
        run(config(path))
    assert failed(path) == set()
    assert "run in flight" in {result.name for result in results(path) if result.status == NOTED}
    assert run(config(path)) == []
    assert "run in flight" not in {result.name for result in results(path)}
    assert failed(path) == set()


def test_health_checks_look_at_one_day(path: Path) -> None:
    day = "2026-09-21"  # the day of NOW_US
    assert all(result.status != FAILED for result in results(path, day))
    (other,) = [result for result in results(path, "2020-01-01") if result.name == DISTINCT]
    assert (other.status, other.figure) == (NOTED, "nothing to check: no payment on 2020-01-01")


def command(path: Path, *arguments: str) -> int:
    return check_command([f"--destination=duckdb:{path}", *arguments])


def test_the_command_prints_a_table_and_exits_1_or_6_when_a_check_fails(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(path, "--max_duplicate_rate=1") == 0
    printed = capsys.readouterr().out
    assert "passed  no coordinate missing" in printed and "FAILED" not in printed
    assert command(path) == 6, "more than 2 % are duplicates"
    printed = capsys.readouterr().out
    assert "FAILED  AVG(dup_count)" in printed and "[a limit, not the proof]" in printed
    assert command(path, "--max_duplicate_rate=1", "--max_state_mb=0.00001") == 6
    assert "FAILED  state size" in capsys.readouterr().out
    tamper(path, f"DELETE FROM {PAYMENTS} WHERE transaction_id = 'c'")
    assert command(path, "--max_duplicate_rate=1", "--json") == 1
    found = {result["name"]: result for result in json.loads(capsys.readouterr().out)}
    assert found[MISSING]["status"] == FAILED
    assert [row["kafka_offset"] for row in found[MISSING]["proof"]] == [6]
    assert found[MISSING]["kind"] == "proof"
    assert {result["name"] for result in found.values() if result["kind"] == "limit"} == {
        "state size",
        "AVG(dup_count)",
        "rejected records",
    }
    assert command(path) == 1, "where both kinds fail, the proof counts"


def test_a_destination_without_a_row_has_nothing_to_check(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path, kafka = tmp_path / "empty.duckdb", InMemoryKafka()
    use(kafka, monkeypatch)
    kafka.create("payments", 1)
    run(config(path))
    assert command(path) == 0
    assert "nothing to check" in capsys.readouterr().out


def test_a_file_that_no_run_has_written_to_is_wrong_usage(tmp_path: Path) -> None:
    """A monitoring job with a wrong path must not stay green."""
    path = tmp_path / "foreign.duckdb"
    with duckdb.connect(str(path)) as connection:
        connection.execute(f"CREATE TABLE {PAYMENTS} AS SELECT 'a' AS transaction_id")
    with pytest.raises(UsageError, match="no run has written here"):
        command(path)


@pytest.mark.parametrize(
    "argument,message",
    [
        ("--date=yesterday", "--date=yesterday: not a day. Write YYYY-MM-DD"),
        ("--date=2026-02-30", "--date=2026-02-30: not a day"),
        ("--max_duplicate_rate=2%", "--max_duplicate_rate=2%"),
        ("--max_rejected_rate=1.1", "--max_rejected_rate=1.1"),
        ("--max_state_mb=many", "--max_state_mb=many: must be a number of megabytes"),
        ("--dates=2026-02-03", "--dates"),
    ],
)
def test_wrong_arguments_are_named(path: Path, argument: str, message: str) -> None:
    with pytest.raises(UsageError) as wrong:
        command(path, argument)
    assert message in str(wrong.value)


def test_a_file_that_is_not_there_is_not_created(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no such file"):
        command(tmp_path / "nothing.duckdb")
    assert not (tmp_path / "nothing.duckdb").exists()


@pytest.mark.parametrize(
    "change",
    ["UPDATE {} SET amount = amount + 1 WHERE {}", "DELETE FROM {} WHERE {}"],
    ids=["altered", "removed"],
)
def test_a_window_with_rows_that_were_altered_or_removed_is_not_taken_for_one_that_was_open(
    path: Path, change: str
) -> None:
    tamper(path, change.format(PAYMENTS, one_row(PAYMENTS, "kafka_offset")))
    broken = failed(path)
    assert SUMS in broken
    with DuckDBDestination(str(path)) as destination:
        assert mark_unobserved(destination, {}) == []
    assert failed(path) == broken


def test_windows_that_were_open_when_a_job_began_without_a_checkpoint_are_told_apart(
    path: Path,
) -> None:
    with DuckDBDestination(str(path)) as destination:
        assert mark_unobserved(destination, {}) == []
    tamper(
        path, f"DELETE FROM {TOTALS} WHERE outcome = 'accepted' AND {one_row(TOTALS, 'records')}"
    )
    assert failed(path) == {SUMS}
    with DuckDBDestination(str(path)) as destination:
        (window,) = mark_unobserved(destination, {})
        assert mark_unobserved(destination, {}) == [], "marked once"
    assert failed(path) == set()
    (noted,) = [
        result
        for result in results(path)
        if result.name == "windows that nobody observed as a whole"
    ]
    assert (noted.status, noted.figure[:9], noted.proof[0]["window_start"]) == (
        NOTED,
        "1 window ",
        window,
    )
    tamper(
        path,
        f"UPDATE {TOTALS} SET records = records + 1 WHERE outcome <> 'unobserved' AND window_start"
        f" <> '{window}'",
    )
    assert failed(path) == {SUMS}, "the other windows are checked as before"
