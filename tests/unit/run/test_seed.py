"""Ids that another job has paid: a copy of one is a duplicate, as long as it is known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.check.command import check
from pipeline.check.result import FAILED, CheckResult
from tests.support.in_memory_kafka import (
    HOUR_US,
    MINUTE_US,
    NOW_US,
    payment,
)
from tests.support.pruned import Kept
from tests.support.seeded import (
    WATERMARK_US,
    also_paid,
    begin,
    change,
    ids,
    pay_before,
    seed_of_old,
)
from tests.support.whole_runs import COPIES
from transforms.destinations.contract.run_ledger import GENESIS
from transforms.destinations.contract.seed import seed_of
from transforms.destinations.duckdb.destination import DuckDBDestination
from transforms.destinations.duckdb.stored_rows import DuckDBStoredRows
from transforms.model.errors import GuaranteeError

PAID = "every duplicate is of a payment"
ONCE = "no payment was paid by the old job too"


def results(kept: Kept) -> dict[str, CheckResult]:
    return {one.name: one for one in check(kept.real, None, 100.0, 400)}


def failed(kept: Kept) -> set[str]:
    return {one.name for one in results(kept).values() if one.status == FAILED}


def test_what_is_paid_already_is_a_duplicate_in_every_run(kept: Kept, tmp_path: Path) -> None:
    pay_before(
        kept,
        [
            ("a", NOW_US),
            ("a", NOW_US - MINUTE_US),  # a doubled row of the old job
            ("b", NOW_US - 30 * MINUTE_US),
            ("expired", WATERMARK_US - 2 * MINUTE_US),
            (None, NOW_US),
        ],
    )
    kept.send(0, payment("a"), payment("c"), payment("expired"))
    begin(kept, tmp_path)
    assert ids(kept) == ["c", "expired"]
    assert ids(kept, COPIES) == ["a"]
    # An id known in the first run only would be paid twice in the second.
    kept.send(0, payment("b"), payment("a"), payment("c"), payment("d"))
    kept.run()
    assert ids(kept) == ["c", "d", "expired"]
    assert ids(kept, COPIES) == ["a", "a", "b", "c"]
    assert failed(kept) == set()
    found = results(kept)
    assert "2 ids with duplicates of ours is paid there alone" in (
        found["ids that another job has paid"].figure
    )
    # `expired` was paid twice over both tables, and no run could know it.
    (beyond,) = found["ids of the old job that came again beyond the dedup horizon"].proof
    assert beyond["transaction_id"] == "expired"
    chain = kept.real.runs.read()
    assert len({seed_of(record) for record in chain}) == 1
    seed = seed_of(chain[-1])
    assert seed is not None
    assert (seed.since_us, seed.through_us, seed.rows) == (
        WATERMARK_US // MINUTE_US * MINUTE_US,
        NOW_US,
        3,
    )


def test_the_number_of_live_ids_is_that_of_what_the_next_run_loads(
    kept: Kept, tmp_path: Path
) -> None:
    pay_before(kept, [("a", NOW_US), ("a", NOW_US), ("b", NOW_US), (None, NOW_US)])
    kept.send(0, payment("a"), payment("c"))
    begin(kept, tmp_path)
    assert kept.real.runs.tail()[-1].live_ids == 3
    found = kept.real.rows.live_ids(WATERMARK_US, 0, None, seed_of(kept.real.runs.tail()[-1]))
    assert found.num_rows == 3


def test_once_the_watermark_has_passed_it_it_is_not_asked_any_more(
    kept: Kept, tmp_path: Path
) -> None:
    pay_before(kept, [("a", NOW_US), ("b", NOW_US)])
    kept.send(0, payment("c"))
    begin(kept, tmp_path)
    kept.now_us += HOUR_US + MINUTE_US
    kept.send(0, payment("mover", kept.now_us))
    kept.run()
    change(kept, "DROP TABLE {old}")
    kept.send(0, payment("next", kept.now_us))
    kept.run()
    assert ids(kept) == ["c", "mover", "next"]
    assert failed(kept) == set()
    assert "cannot be looked at" in results(kept)[ONCE].figure


def test_an_id_that_only_a_copy_keeps_known_is_looked_up_in_the_seed(
    kept: Kept, tmp_path: Path
) -> None:
    """Its latest copy counts, so it outlives the seed's own event times."""
    pay_before(kept, [("a", NOW_US), ("b", NOW_US)])
    kept.send(0, payment("c"))
    begin(kept, tmp_path)
    kept.now_us += 50 * MINUTE_US
    kept.send(0, payment("a", kept.now_us))
    kept.run()
    kept.now_us += 30 * MINUTE_US
    kept.send(0, payment("mover", kept.now_us))
    kept.run()
    # The watermark has passed the seed, and not the copy.
    kept.now_us += MINUTE_US
    kept.send(0, payment("a", kept.now_us), payment("b", kept.now_us))
    kept.run()
    assert ids(kept) == ["b", "c", "mover"]
    assert ids(kept, COPIES) == ["a", "a"]
    assert failed(kept) == set()
    change(kept, "DROP TABLE {old}")
    kept.send(0, payment("next", kept.now_us))
    with pytest.raises(GuaranteeError, match="cannot be read: there is no such table"):
        kept.run()
    assert failed(kept) == {PAID}


def test_while_it_is_needed_it_must_be_as_it_was(kept: Kept, tmp_path: Path) -> None:
    pay_before(kept, [("a", NOW_US), ("b", NOW_US)])
    kept.send(0, payment("c"), payment("a"))
    begin(kept, tmp_path)
    # What the old job writes behind the bound does not count.
    also_paid(kept, "later", NOW_US + 1)
    kept.send(0, payment("later", NOW_US + 1))
    kept.run()
    assert ids(kept) == ["c", "later"]
    assert failed(kept) == set()
    # What it writes before it would be known to some runs only.
    also_paid(kept, "earlier", NOW_US)
    kept.send(0, payment("x"))
    with pytest.raises(GuaranteeError, match=r"has changed: 3 rows .* there were 2"):
        kept.run()
    assert failed(kept) == {PAID}, "nothing of a table that has changed is taken on trust"
    change(kept, "DROP TABLE {old}")
    with pytest.raises(GuaranteeError, match="there is no such table"):
        kept.run()
    pay_before(kept, [("a", NOW_US), ("b", NOW_US)])
    kept.run()
    assert ids(kept) == ["c", "later", "x"]
    assert failed(kept) == set()


def test_another_id_in_its_place_is_noticed(file: Kept, tmp_path: Path) -> None:
    pay_before(file, [("a", NOW_US), ("b", NOW_US)])
    file.send(0, payment("a"))
    begin(file, tmp_path)
    change(file, "UPDATE {old} SET transaction_id = 'z' WHERE transaction_id = 'b'")
    file.send(0, payment("x"))
    with pytest.raises(GuaranteeError, match="or other ids"):
        file.run()


def test_a_copy_of_nothing_still_fails(kept: Kept, tmp_path: Path) -> None:
    pay_before(kept, [("a", NOW_US)])
    kept.send(0, payment("a"), payment("c"), payment("c"))
    begin(kept, tmp_path)
    assert failed(kept) == set()
    text = "UPDATE {} SET transaction_id = 'phantom' WHERE transaction_id = 'a'"
    kept.sql(text.format("duplicate_transactions"))
    assert PAID in failed(kept)
    assert results(kept)[PAID].proof == [{"transaction_id": "phantom", "copies": 1}]


def test_a_payment_that_the_old_job_has_paid_fails(kept: Kept, tmp_path: Path) -> None:
    pay_before(kept, [("a", NOW_US)])
    kept.send(0, payment("c"))
    begin(kept, tmp_path)
    kept.sql("UPDATE payment_transactions SET transaction_id = 'a' WHERE transaction_id = 'c'")
    assert ONCE in failed(kept)


def test_a_ledger_that_has_lost_its_seed_is_found_out(file: Kept, tmp_path: Path) -> None:
    pay_before(file, [("a", NOW_US)])
    file.send(0, payment("c"))
    begin(file, tmp_path)
    file.sql(
        "UPDATE pipeline_runs SET settings = json_merge_patch(settings, '{\"seed\": null}')"
        f" WHERE run_id <> '{GENESIS}'"
    )
    assert failed(file) == {"the ledger is one chain"}


def test_without_offsets_all_ids_of_the_table_count(kept: Kept) -> None:
    pay_before(kept, [("a", NOW_US - 50 * HOUR_US), ("b", NOW_US)])
    kept.settings = replace(kept.settings, seed=seed_of_old(kept))
    kept.send(0, payment("a", NOW_US - 50 * HOUR_US), payment("b"), payment("c"))
    kept.run()
    assert ids(kept) == ["c"]
    assert ids(kept, COPIES) == ["a", "b"]
    assert failed(kept) == set()


def test_a_prune_carries_it_on_and_takes_the_copies(kept: Kept, tmp_path: Path) -> None:
    pay_before(kept, [("a", NOW_US), ("b", NOW_US)])
    kept.send(0, payment("a"), payment("c"))
    begin(kept, tmp_path)
    for _ in range(3):
        kept.now_us += 2 * HOUR_US
        kept.send(0, payment(f"at {kept.now_us}", kept.now_us))
        kept.run()
    kept.prune(kept.now_us)
    assert ids(kept, COPIES) == []
    assert failed(kept) == set()
    assert seed_of(kept.real.runs.tail()[-1]) == seed_of(kept.real.runs.read()[0]) is not None
    change(kept, "DROP TABLE {old}")
    assert failed(kept) == set(), "no copy of it is left"
    kept.send(0, payment("next", kept.now_us))
    kept.run()
    assert failed(kept) == set()


def test_the_ids_of_state_dir_are_those_of_the_tables(
    file: Kept, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pay_before(file, [("a", NOW_US), ("b", NOW_US)])
    file.send(0, payment("c"))
    begin(file, tmp_path, state_dir=str(tmp_path / "ids"))
    asked: list[Any] = []
    original = DuckDBStoredRows.live_ids

    def counted(rows: DuckDBStoredRows, *given: Any) -> Any:
        asked.append(given)
        return original(rows, *given)

    monkeypatch.setattr(DuckDBStoredRows, "live_ids", counted)
    file.send(0, payment("a"))
    file.run()
    assert asked == []
    for each in (tmp_path / "ids").iterdir():
        each.unlink()
    file.send(0, payment("b"), payment("a"))
    file.run()
    assert len(asked) == 1
    assert (ids(file), ids(file, COPIES)) == (["c"], ["a", "a", "b"])
    assert failed(file) == set()


def test_workers_get_it_with_the_cold_start(file: Kept, tmp_path: Path) -> None:
    """A destination is pickled by its path, and the seed travels beside it."""
    pay_before(file, [("a", NOW_US)])
    file.send(0, payment("a"))
    begin(file, tmp_path)
    seed = seed_of(file.real.runs.tail()[-1])
    with DuckDBDestination(file.real.path) as worker:
        assert worker.rows.live_ids(WATERMARK_US, 0, None, seed).num_rows == 1
