"""Faults that once left `check` green or silent: duplicates of nothing, a run that died between its
tables, a topic that is no longer named, losses that were accepted, and repairs.
"""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import sha256
from itertools import count
from pathlib import Path

import pyarrow as pa
import pytest

from pipeline.check.command import check, check_command
from pipeline.check.result import FAILED, NOTED, CheckResult
from pipeline.run.command import run_until_caught_up
from tests.faults.dying import die_after, die_while_committing
from tests.support.checked_file import tamper
from tests.support.in_memory_kafka import (
    HOUR_US,
    NOW_US,
    InMemoryKafka,
    Partition,
    config,
    payment,
    run,
)
from tests.support.whole_runs import expire, ids
from tests.unit.check.test_check import PAID
from transforms.destinations.contract.run_ledger import PREPARED_AT
from transforms.destinations.duckdb.destination import DuckDBDestination
from transforms.destinations.duckdb.dialect import DUCKDB
from transforms.destinations.duckdb.stored_rows import DuckDBStoredRows
from transforms.destinations.open import open_destination
from transforms.destinations.sql import hashing
from transforms.destinations.sql.checks import check_queries
from transforms.model.buckets import BUCKET_US
from transforms.model.fingerprints import FINGERPRINT, fingerprints_of
from transforms.model.tables import DUPLICATES, PAYMENTS, RUNS

IN_FLIGHT = "run in flight"
NOT_NAMED = "topics that the last run did not name"
LOST = "offsets accepted as lost"
REPAIRED = "repaired runs"


def results(path: Path, now_us: int | None = NOW_US) -> dict[str, CheckResult]:
    with DuckDBDestination(str(path)) as destination:
        return {
            result.name: result for result in check(destination, None, 100.0, 400, now_us=now_us)
        }


def failed(path: Path, now_us: int | None = NOW_US) -> set[str]:
    return {name for name, result in results(path, now_us).items() if result.status == FAILED}


# Duplicates without a payment.


def test_copies_of_a_payment_that_never_was_are_found_out(
    kafka: InMemoryKafka, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wrong verdict, which sums and counts cannot see: the tables agree with one another."""
    original = DuckDBStoredRows.live_ids

    def with_a_phantom(rows: DuckDBStoredRows, *arguments: int) -> pa.Table:
        phantom = fingerprints_of(pa.array(["phantom"])).tobytes()
        more = pa.table(
            {
                "fingerprint": pa.array([phantom], FINGERPRINT),
                "bucket": pa.array([NOW_US // BUCKET_US], pa.int64()),
            }
        )
        return pa.concat_tables([original(rows, *arguments), more], promote_options="permissive")

    kafka.create("payments", 1)
    kafka.send("payments", 0, payment("a"), payment("a"))
    run(config(path))
    kafka.send("payments", 0, payment("phantom"), payment("b"), payment("phantom"))
    with monkeypatch.context() as patch:
        patch.setattr(DuckDBStoredRows, "live_ids", with_a_phantom)
        run(config(path))
    assert ids(path) == ["a", "b"]
    assert failed(path) == {PAID}
    assert results(path)[PAID].proof == [{"transaction_id": "phantom", "copies": 2}]
    assert check_command([f"--destination=duckdb:{path}", "--max_duplicate_rate=1"]) == 1


def twin_of(transaction_id: str) -> str:
    """Another id with the same fingerprint, if that has one byte."""
    wanted = sha256(transaction_id.encode()).digest()[:1]
    return next(
        other
        for other in map(str, count())
        if sha256(other.encode()).digest()[:1] == wanted and other != transaction_id
    )


def test_an_id_that_shares_its_fingerprint_with_a_paid_one_is_told_apart(
    kafka: InMemoryKafka, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kafka.create("payments", 1)
    kafka.send("payments", 0, payment("a"), payment("a"), payment("a"))
    run(config(path))
    twin = twin_of("a")
    tamper(path, f"UPDATE {DUPLICATES} SET transaction_id = '{twin}' WHERE kafka_offset = 1")
    assert results(path)[PAID].proof == [{"transaction_id": twin, "copies": 1}]
    monkeypatch.setattr(hashing, "FINGERPRINT_BYTES", 1)
    monkeypatch.setattr(DuckDBDestination, "checks", check_queries(DUCKDB))
    assert PAID not in failed(path)
    tamper(path, f"DELETE FROM {PAYMENTS}")
    assert {row["transaction_id"] for row in results(path)[PAID].proof} == {"a", twin}


@pytest.mark.parametrize("commits", [0, 1, 2])
def test_a_run_in_flight_shows_payments_before_their_duplicates(
    kafka: InMemoryKafka, path: Path, monkeypatch: pytest.MonkeyPatch, commits: int
) -> None:
    kafka.create("payments", 1)
    kafka.send("payments", 0, payment("a"), payment("a"), payment("b"))
    die_after(commits, path, monkeypatch)
    assert failed(path) == set()


# A run that is PREPARED for too long.


@pytest.fixture
def dead(kafka: InMemoryKafka, path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file with a run that died between its tables."""
    kafka.create("payments", 1)
    kafka.send("payments", 0, payment("a"), payment("a"), payment("b"))
    die_after(2, path, monkeypatch)
    return path


def test_a_run_that_died_between_its_tables_fails_when_its_hour_is_over(dead: Path) -> None:
    assert results(dead, NOW_US + HOUR_US)[IN_FLIGHT].status == NOTED
    assert failed(dead, NOW_US + HOUR_US) == set()
    found = results(dead, NOW_US + HOUR_US + 1)[IN_FLIGHT]
    assert (found.status, found.kind) == (FAILED, "proof")
    assert "Start `run` again" in found.figure and "2026-09-21" in found.figure
    run(config(dead), NOW_US + 240 * HOUR_US)
    assert IN_FLIGHT not in results(dead, NOW_US + 480 * HOUR_US)
    assert failed(dead, NOW_US + 480 * HOUR_US) == set()


def test_the_command_ends_with_1_ten_days_later(
    dead: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [f"--destination=duckdb:{dead}", "--max_duplicate_rate=1"]
    assert check_command(arguments, lambda: NOW_US + 1) == 0
    assert check_command(arguments, lambda: NOW_US + 240 * HOUR_US) == 1
    assert "FAILED  run in flight" in capsys.readouterr().out


def test_the_hour_begins_with_the_claim_and_not_with_the_plan(
    kafka: InMemoryKafka, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reading took hours: the run is as alive as one that was quick."""
    kafka.create("payments", 1)
    kafka.send("payments", 0, payment("a"))
    clock: Iterator[int] = count(NOW_US, HOUR_US)

    def slow_run() -> None:
        with open_destination(f"duckdb:{path}") as destination:
            list(run_until_caught_up(config(path), destination, lambda: next(clock)))

    die_while_committing(1, slow_run, monkeypatch)
    with DuckDBDestination(str(path)) as destination:
        record = destination.runs.read()[-1]
    claimed = record.settings[PREPARED_AT]
    assert isinstance(claimed, int) and claimed >= record.plan_time + HOUR_US
    assert failed(path, claimed + HOUR_US) == set()
    assert failed(path, claimed + HOUR_US + 1) == {IN_FLIGHT}


def test_a_record_of_the_first_version_tells_the_time_of_its_plan(dead: Path) -> None:
    tamper(
        dead,
        f"""UPDATE {RUNS} SET settings = json_merge_patch(settings, '{{"{PREPARED_AT}": null}}')
        WHERE successor IS NULL""",
    )
    assert failed(dead, NOW_US + HOUR_US) == set()
    assert failed(dead, NOW_US + HOUR_US + 1) == {IN_FLIGHT}


# Topics that the last run did not name.


def test_a_topic_that_the_last_run_did_not_name_is_noted(kafka: InMemoryKafka, path: Path) -> None:
    for topic in ("payments", "refunds", "chargebacks"):
        kafka.create(topic, 1)
        kafka.send(topic, 0, payment(topic))
    run(config(path, topics=("payments", "refunds", "chargebacks")))
    assert NOT_NAMED not in results(path)
    kafka.send("payments", 0, payment("a"))
    run(config(path))
    found = results(path)[NOT_NAMED]
    assert found.status == NOTED
    assert found.figure.startswith("chargebacks, refunds: nothing of them is read")
    tamper(
        path,
        f"""UPDATE {RUNS} SET settings = json_merge_patch(settings, '{{"topics": null}}')
        WHERE successor IS NULL""",
    )
    assert NOT_NAMED not in results(path), "a record of the first version does not tell"


# Accepted losses.


def test_accepted_losses_are_noted_with_their_totals(kafka: InMemoryKafka, path: Path) -> None:
    kafka.create("payments", 2)
    for partition in range(2):
        kafka.send("payments", partition, payment(f"a{partition}"))
    run(config(path))
    assert LOST not in results(path)
    for deleted, more in ((921, 922), (1_000, 1_001)):
        log = kafka.topics["payments"].partitions[0]
        kafka.send("payments", 0, *[payment("lost")] * (more - len(log.records)))
        log.deleted = deleted
        run(config(path, on_data_loss="accept"))
    kafka.topics["payments"].partitions.append(Partition())
    kafka.send("payments", 2, payment("x"), payment("y"))
    kafka.topics["payments"].partitions[2].deleted = 1
    run(config(path, on_data_loss="accept"))
    found = results(path)[LOST]
    assert found.status == NOTED
    assert found.figure.startswith("999 offsets in 2 partitions, deleted")
    where = {"kafka_topic": "payments", "kafka_partition": 0}
    assert found.proof == [
        {**where, "first_offset": 1, "last_offset": 999, "offsets": 998},
        {**where, "kafka_partition": 2, "first_offset": 0, "last_offset": 0, "offsets": 1},
    ]
    assert failed(path) == set()
    assert ids(path) == ["a0", "a1", "lost", "y"]


# Repairs.


def test_a_repair_is_noted_with_its_totals(dead: Path) -> None:
    assert REPAIRED not in results(dead)
    expire(dead)
    (record,) = run(config(dead))
    found = results(dead)[REPAIRED]
    assert found.status == NOTED
    assert found.figure.startswith("1 run with 3 records")
    assert found.proof == [{"run_id": record.run_id, "repairs": record.repairs}]
    assert failed(dead) == set()
