"""Which tables may be the ids that another job has paid, and what refuses others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline import preflight as preflight_module
from pipeline.check.result import FAILED
from pipeline.options.run_config import run_config
from pipeline.preflight import preflight
from tests.support.in_memory_kafka import HOUR_US, MINUTE_US, NOW_US, InMemoryKafka, payment
from tests.support.pruned import Kept
from tests.support.seeded import (
    OLD,
    WATERMARK_US,
    begin,
    change,
    checkpoint,
    ids,
    pay_before,
    seed_of_old,
)
from tests.support.whole_runs import COPIES
from transforms.destinations.bigquery.dialect import google_sql
from transforms.destinations.contract.seed import SeedTable
from transforms.destinations.sql.seeds import seed_rows
from transforms.model.errors import GuaranteeError, UsageError


def test_event_times_with_a_zone(file: Kept, tmp_path: Path) -> None:
    """DuckDB reads those of Spark's Parquet files so, and compares them in the session's zone."""
    file.real.session.cursor().execute("SET TimeZone = 'Asia/Tokyo'")
    pay_before(file, [("a", NOW_US), ("b", WATERMARK_US)], time="TIMESTAMP WITH TIME ZONE")
    file.send(0, payment("a"), payment("b"), payment("c"))
    begin(file, tmp_path)
    assert (ids(file), ids(file, COPIES)) == (["c"], ["a", "b"])
    assert file.failures() == []


def test_event_times_without_a_zone_are_utc_in_bigquery() -> None:
    """The stand-in has no DATETIME. The bare column is compared, so partitions are left out."""
    where = SeedTable(table="p.d.old", key_column="id", event_time_column="at")
    text = " ".join(seed_rows(google_sql(str), where, "DATETIME", "@oldest", "7").split())
    assert text == (
        "SELECT CAST(`id` AS STRING) AS transaction_id, TIMESTAMP(`at`) AS event_time"
        " FROM `p.d.old` WHERE `id` IS NOT NULL AND `at` BETWEEN"
        " DATETIME(TIMESTAMP_MICROS(@oldest)) AND DATETIME(TIMESTAMP_MICROS(7))"
    )


def test_ids_that_are_whole_numbers(kept: Kept, tmp_path: Path) -> None:
    pay_before(kept, [(7, NOW_US), (8, NOW_US)], key="BIGINT")
    kept.send(0, payment("7"), payment("9"))
    begin(kept, tmp_path)
    assert (ids(kept), ids(kept, COPIES)) == (["9"], ["7"])
    assert kept.failures() == []


Make = Callable[[Kept], None]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda kept: None, "there is no such table"),
        (lambda kept: pay_before(kept, [("a", None)]), "1 rows have an id and no event_time"),
        (lambda kept: pay_before(kept, [(None, NOW_US)]), "there is no id"),
        (lambda kept: pay_before(kept, [("a", WATERMARK_US - HOUR_US)]), "there is no id"),
    ],
)
def test_a_table_that_says_nothing_sure_is_refused(
    kept: Kept, tmp_path: Path, make: Make, words: str
) -> None:
    make(kept)
    kept.send(0, payment("a"))
    with pytest.raises(GuaranteeError, match=words) as refused:
        begin(kept, tmp_path)
    assert refused.value.message.startswith("--seed_ids=")
    assert not kept.real.tables.exist()


def test_preflight_says_it_in_the_same_words(
    file: Kept, tmp_path: Path, kafka: InMemoryKafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preflight_module, "KafkaAdmin", kafka)
    file.send(0, payment("a"))
    start = checkpoint(tmp_path / "old", [({"payments": {"0": 1}}, WATERMARK_US, True)])
    file.settings = replace(file.settings, start=start, seed=seed_of_old(file))
    (refused,) = [one for one in preflight(file.settings, lambda: NOW_US) if one.status == FAILED]
    assert refused.figure == f"--seed_ids={OLD}: there is no such table."
    pay_before(file, [("a", NOW_US)])
    results = {one.name: one for one in preflight(file.settings, lambda: NOW_US)}
    assert not [one for one in results.values() if one.status == FAILED]
    assert results["the plan"].figure == "0 offsets wait, in 0 transactions"
    assert not file.real.tables.exist()


def test_event_times_in_the_future_are_refused(file: Kept, tmp_path: Path) -> None:
    """Until the watermark has passed them the table would be asked."""
    pay_before(file, [("a", NOW_US + 6 * MINUTE_US)])
    with pytest.raises(GuaranteeError, match="which --max_future_skew forbids"):
        begin(file, tmp_path)


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ("'a' AS id, TIMESTAMP '2026-09-21' AS event_time", "it has no column transaction_id"),
        ("1.5 AS transaction_id, TIMESTAMP '2026-09-21' AS event_time", "is DECIMAL"),
        ("'a' AS transaction_id, DATE '2026-09-21' AS event_time", "event_time is DATE; it must"),
    ],
)
def test_columns_that_cannot_be_used_are_refused(
    file: Kept, tmp_path: Path, columns: str, words: str
) -> None:
    change(file, f"CREATE TABLE {{old}} AS SELECT {columns}")
    with pytest.raises(GuaranteeError, match=words):
        begin(file, tmp_path)


def test_a_column_that_changes_its_type_refuses_the_next_run(file: Kept, tmp_path: Path) -> None:
    pay_before(file, [("a", NOW_US)])
    file.send(0, payment("c"))
    begin(file, tmp_path)
    change(file, "ALTER TABLE {old} ALTER event_time TYPE TIMESTAMP WITH TIME ZONE")
    file.send(0, payment("d"))
    with pytest.raises(GuaranteeError, match="event_time was TIMESTAMP, and is TIMESTAMP WITH"):
        file.run()


def test_it_cannot_be_changed_or_named_later(file: Kept, tmp_path: Path) -> None:
    pay_before(file, [("a", NOW_US)])
    file.send(0, payment("c"))
    begin(file, tmp_path)
    seed = file.settings.seed
    file.settings = replace(file.settings, seed=None)
    file.send(0, payment("a"))
    file.run()
    assert ids(file, COPIES) == ["a"], "the ledger carries it on"
    assert seed is not None
    for other in (
        type(seed)(table="others", key_column="transaction_id", event_time_column="event_time"),
        type(seed)(table=OLD, key_column="id", event_time_column="event_time"),
    ):
        file.settings = replace(file.settings, seed=other)
        with pytest.raises(GuaranteeError, match=f"began with --seed_ids={OLD}"):
            file.run()


def test_a_destination_that_began_without_one_gets_none(file: Kept) -> None:
    file.send(0, payment("c"))
    file.run()
    pay_before(file, [("a", NOW_US)])
    file.settings = replace(file.settings, seed=seed_of_old(file))
    with pytest.raises(GuaranteeError, match="began without one"):
        file.run()


PLACE = ("--bootstrap_servers=localhost:9092", "--topic=payments")
DUCK, BIG = "--destination=duckdb:payments.duckdb", "--destination=bigquery:project-1.d"


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ([DUCK, "--seed_key=id"], "--seed_key=id without --seed_ids"),
        ([DUCK, "--seed_ids=d.old"], "a table of the same DuckDB file"),
        ([DUCK, "--seed_ids=payment_transactions"], "this pipeline writes to a table of that name"),
        ([BIG, "--seed_ids=payment_transactions"], "this pipeline writes to a table of that name"),
        ([BIG, "--seed_ids=d.old"], "must be PROJECT.DATASET.TABLE"),
        ([DUCK, "--seed_ids=old", "--seed_event_time=a b"], "--seed_event_time=a b: must be"),
    ],
)
def test_flags_that_name_no_table_are_refused(flags: list[str], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        run_config([*PLACE, *flags])


def test_a_table_has_one_name_however_it_is_given() -> None:
    short = run_config([*PLACE, BIG, "--seed_ids=old", "--seed_key=id"]).seed
    assert short == run_config([*PLACE, BIG, "--seed_ids=project-1.d.old", "--seed_key=id"]).seed
    assert short is not None
    assert (short.table, short.key_column, short.event_time_column) == (
        "project-1.d.old",
        "id",
        "event_time",
    )
    prefixed = [*PLACE, BIG, "--table_prefix=new_", "--seed_ids=payment_transactions"]
    assert run_config(prefixed).seed is not None
