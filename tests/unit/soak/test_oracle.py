"""The oracle of the soak test finds each kind of wrong row, and nothing in right tables."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.soak.oracle import differences
from tests.soak.sending import Log
from tests.soak.traffic import Record
from tests.support.checked_file import tamper
from tests.support.in_memory_kafka import MARKER, NOW_US, InMemoryKafka, config, payment, run
from transforms.destinations.open import open_destination
from transforms.model.rejected import INVALID_JSON

A = Record(0, payment("a"), "a", NOW_US, "1.00")
B = Record(1, payment("b"), "b", NOW_US, "1.00")
BROKEN = Record(0, b"broken", reason=INVALID_JSON)
LOG = Log({(0, 0): A, (0, 1): BROKEN, (1, 0): B, (1, 1): A, (1, 2): B}, {(0, 2): A})


@pytest.fixture
def file(kafka: InMemoryKafka, tmp_path: Path) -> Path:
    """Two payments, two copies, a broken record, and an aborted one."""
    kafka.create("payments", 2)
    kafka.send("payments", 0, A.value, BROKEN.value, MARKER, MARKER)
    kafka.send("payments", 1, B.value, A.value, B.value)
    path = tmp_path / "payments.duckdb"
    run(config(path))
    return path


def found(file: Path, log: Log = LOG) -> str:
    with open_destination(f"duckdb:{file}") as destination:
        return "\n".join(differences(destination, log))


def test_right_tables_have_no_difference(file: Path) -> None:
    assert found(file) == ""


MOVED = "INSERT INTO {} SELECT * FROM {} WHERE kafka_partition = {} AND kafka_offset = {}"
DELETED = "DELETE FROM {} WHERE kafka_partition = {} AND kafka_offset = {}"
DUPLICATES, PAYMENTS = "duplicate_transactions", "payment_transactions"


@pytest.mark.parametrize(
    ("statement", "difference"),
    [
        (DELETED.format(DUPLICATES, 1, 2), "(1, 2) lies in no table"),
        (DELETED.format(PAYMENTS, 0, 0), "a is paid 0 times"),
        (MOVED.format(DUPLICATES, PAYMENTS, 0, 0), "(0, 0) lies in ['payment_transactions', 'dup"),
        (MOVED.format(PAYMENTS, DUPLICATES, 1, 2), "b is paid 2 times"),
        (f"UPDATE {PAYMENTS} SET amount = 2", "Decimal('2.000000000')"),
        (f"UPDATE {DUPLICATES} SET transaction_id = 'c'", "('c', "),
        (f"UPDATE {PAYMENTS} SET kafka_offset = 2 WHERE kafka_partition = 0", "which was aborted"),
        (f"UPDATE {PAYMENTS} SET kafka_offset = 9 WHERE kafka_partition = 0", "was never sent"),
        ("UPDATE rejected_records SET reason = 'late'", "('late', b'broken') instead of"),
        ("UPDATE rejected_records SET payload = 'x'::BLOB", "b'x') instead of"),
        ("DELETE FROM offset_gaps", "(0, 2) was aborted, but is no gap"),
        ("UPDATE offset_gaps SET first_offset = 1", "(0, 1) is a gap, but was sent"),
        ("DELETE FROM control_totals", "check: "),
    ],
)
def test_a_wrong_row_is_found(file: Path, statement: str, difference: str) -> None:
    tamper(file, statement)
    assert difference in found(file)


def test_a_record_in_a_table_where_it_does_not_belong_is_found(file: Path) -> None:
    late = Record(0, A.value, "a", NOW_US, "1.00", "late")
    log = Log({**LOG.committed, (0, 0): late}, LOG.aborted)
    assert "payment_transactions (0, 0): does not belong here" in found(file, log)
