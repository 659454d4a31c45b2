"""`prune` removes whole runs, and what is left is proved as ever."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from pipeline.cli import main
from pipeline.prune.command import PruneResult, prune_command
from pipeline.prune.plan import Nothing, PrunePlan
from pipeline.run import command as run_module
from tests.support.in_memory_kafka import HOUR_US, MINUTE_US, NOW_US, payment
from tests.support.pruned import DAY_US, RUNS, Kept, expected
from transforms.destinations.contract.pruned import Pruned, judged, pruned_of
from transforms.destinations.contract.run_ledger import COMMITTED
from transforms.model.errors import GuaranteeError, TryAgainLater, UsageError

GAPS = "SELECT kafka_partition, first_offset, last_offset, cause FROM offset_gaps ORDER BY 1, 2"
RECORDS = "SELECT count(*) FROM pipeline_runs WHERE run_id <> 'root'"
COVERAGE = "SELECT SUM(repeated), SUM(missing) FROM offset_coverage"


def plan_of(result: PruneResult) -> Pruned:
    assert isinstance(result.plan, PrunePlan), result
    return result.plan.pruned


def why(result: PruneResult) -> str:
    assert isinstance(result.plan, Nothing), result
    return result.plan.why


def test_whole_runs_go_and_what_is_left_is_proved(kept: Kept) -> None:
    before, records = kept.rows(), kept.sql(RECORDS)[0][0]
    pruned = plan_of(kept.prune(kept.now_us - DAY_US))
    left = kept.rows()
    assert left == expected(before, pruned.below())
    assert 0 < len(left) < len(before) * 0.6
    assert kept.failures() == []
    assert kept.sql(COVERAGE) == [(0, 0)]
    assert kept.sql(RECORDS)[0][0] < records
    # What comes after it is a run as ever, and so is a prune.
    kept.now_us += HOUR_US
    kept.send(0, payment("new", kept.now_us), payment(f"{RUNS - 1}-0", kept.now_us - HOUR_US))
    kept.run()
    assert kept.failures() == []
    between = kept.rows()
    again = plan_of(kept.prune(kept.now_us - HOUR_US))
    assert kept.rows() == expected(between, again.below()) < between
    assert kept.failures() == []
    assert kept.sql(COVERAGE) == [(0, 0)]


def test_ids_that_are_still_known_stay(kept: Kept) -> None:
    kept.settings = replace(kept.settings, extra_retention_us=10 * DAY_US)
    kept.send(0, payment("again", kept.now_us))
    kept.run()
    assert "are still known: the watermark of payments:" in why(kept.prune(kept.now_us))


def test_the_border_may_lie_between_a_payment_and_its_copy(kept: Kept) -> None:
    kept.send(0, payment("x", kept.now_us))
    kept.run()
    kept.now_us += 50 * MINUTE_US
    kept.send(0, payment("x", kept.now_us))
    kept.run()
    kept.now_us += 50 * MINUTE_US
    kept.send(0, payment("y", kept.now_us))
    kept.send(1, payment("z", kept.now_us))
    kept.run()
    before = kept.rows()
    pruned = plan_of(kept.prune(kept.now_us))
    x = {row for row in before if row[4] == "x"}
    assert len(x) == 2 and min(row[3] for row in x) < pruned.below()["payments", 0]
    assert x <= kept.rows() == expected(before, pruned.below())
    assert kept.failures() == []
    kept.now_us += MINUTE_US
    kept.send(0, payment("x", kept.now_us))
    kept.run()
    assert sum(row[4] == "x" for row in kept.rows()) == 3
    assert [row for row in kept.rows() if row[4] == "x" and row[0].startswith("pay")] == [
        row for row in x if row[0].startswith("pay")
    ]
    assert kept.failures() == []


def test_gaps_and_totals_stand_for_what_is_gone(file: Kept) -> None:
    losses = "INSERT INTO offset_gaps VALUES ('payments', 0, 2, 2, 'deleted')"
    file.sql("DELETE FROM offset_gaps WHERE kafka_partition = 0 AND first_offset = 2")
    file.sql(losses)
    pruned = plan_of(file.prune(file.now_us - DAY_US))
    gaps = file.sql(GAPS)
    below = pruned.below()
    assert (0, 2, 2, "deleted") in gaps
    assert (0, 0, 1, "pruned") in gaps
    assert not [gap for gap in gaps if gap[3] == "no_record" and gap[1] < below["payments", gap[0]]]
    assert pruned.latest_us is not None
    # One of the records that went was of a minute in which another one stays: it is taken off.
    assert file.sql("SELECT count(*) FROM control_totals WHERE records < 0") != [(0,)]
    oldest = min(row[0] for row in file.sql("SELECT DISTINCT window_start FROM control_totals"))
    assert oldest.timestamp() * 1e6 > NOW_US - 31 * HOUR_US
    assert file.failures() == []


def test_a_dry_run_changes_nothing(kept: Kept) -> None:
    before = kept.rows(), kept.sql(GAPS), kept.sql(RECORDS)
    planned = kept.prune(kept.now_us - DAY_US, dry_run=True)
    assert planned.run_id is None
    assert (kept.rows(), kept.sql(GAPS), kept.sql(RECORDS)) == before
    assert plan_of(kept.prune(kept.now_us - DAY_US)) == plan_of(planned)


def test_nothing_to_prune_says_why(file: Kept) -> None:
    assert why(file.prune(NOW_US - 100 * DAY_US)).startswith("payments lie at or after 2026-06-")
    plan_of(file.prune(file.now_us - DAY_US))
    assert "payments lie at or after" in why(file.prune(file.now_us - DAY_US))


def test_rejected_records_stay_until_the_date_has_passed_their_run(kept: Kept) -> None:
    """A backfill: its payments are old, but it was read just now."""
    kept.now_us += 10 * DAY_US
    kept.send(0, b"broken")
    kept.run()
    broken = len(kept.kafka.topics["payments"].partitions[0].records) - 1
    kept.now_us += DAY_US
    for partition in range(2):
        kept.send(partition, payment(f"p{partition}", kept.now_us))
    kept.run()
    assert plan_of(kept.prune(kept.now_us - 5 * DAY_US)).below()["payments", 0] == broken
    assert "has rejected records, and was at" in why(kept.prune(kept.now_us - 2 * DAY_US))
    assert plan_of(kept.prune(kept.now_us - HOUR_US)).below()["payments", 0] == broken + 1
    assert kept.failures() == []


def test_the_ledger_begins_with_the_border(kept: Kept) -> None:
    pruned = plan_of(kept.prune(kept.now_us - DAY_US))
    chain = kept.real.runs.read()
    assert judged(chain)[0].predecessor == pruned.border
    assert pruned.border in [run.run_id for run in chain]
    assert pruned_of(chain[-1]) == pruned
    assert [run.run_id for run in kept.real.runs.tail()][-1] == chain[-1].run_id
    assert kept.sql(RECORDS)[0][0] == len(chain)


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM payment_transactions WHERE {left}",
        "UPDATE payment_transactions SET kafka_offset = kafka_offset + 1 WHERE {left}",
        "DELETE FROM offset_gaps WHERE cause = 'pruned' AND rowid = (SELECT MIN(rowid) FROM"
        " offset_gaps WHERE cause = 'pruned')",
        "UPDATE offset_gaps SET last_offset = last_offset - 1 WHERE cause = 'pruned' AND"
        " last_offset > first_offset",
        "INSERT INTO duplicate_transactions SELECT * REPLACE (1 AS kafka_offset) FROM"
        " duplicate_transactions LIMIT 1",
        "DELETE FROM control_totals WHERE records < 0",
        "DELETE FROM pipeline_runs WHERE run_id = '{border}'",
        "DELETE FROM payment_transactions WHERE rowid = (SELECT MAX(rowid) FROM"
        " payment_transactions)",
    ],
)
def test_what_is_altered_behind_a_prune_is_found_out(file: Kept, statement: str) -> None:
    file.send(0, payment("x", file.now_us))
    file.run()
    file.now_us += 50 * MINUTE_US
    file.send(0, payment("x", file.now_us))
    file.run()
    file.now_us += 50 * MINUTE_US
    for partition in range(2):
        file.send(partition, payment(f"y{partition}", file.now_us))
    file.run()
    pruned = plan_of(file.prune(file.now_us))
    assert file.failures() == []
    below = pruned.below()["payments", 0]
    left = f"kafka_partition = 0 AND kafka_offset < {below}"
    file.sql(statement.format(left=left, border=pruned.border))
    assert file.failures()


def test_a_destination_that_does_not_pass_check_is_not_pruned(
    file: Kept, capsys: pytest.CaptureFixture[str]
) -> None:
    file.sql("DELETE FROM payment_transactions WHERE kafka_partition = 0 AND kafka_offset = 0")
    before = file.rows(), file.sql(GAPS), file.sql(RECORDS)
    result = file.prune(file.now_us - DAY_US)
    assert "no coordinate missing" in {failed.name for failed in result.failed}
    assert (file.rows(), file.sql(GAPS), file.sql(RECORDS)) == before


def test_a_run_that_needs_ids_that_were_pruned_is_refused(kept: Kept) -> None:
    plan_of(kept.prune(kept.now_us - DAY_US))
    kept.send(0, payment("a", kept.now_us))
    kept.settings = replace(kept.settings, dedup_horizon_us=2 * HOUR_US)
    kept.run()
    kept.send(0, payment("b", kept.now_us))
    kept.settings = replace(kept.settings, extra_retention_us=5 * DAY_US)
    with pytest.raises(GuaranteeError, match="were pruned: a copy of one of them would be paid"):
        kept.run()
    kept.settings = replace(kept.settings, extra_retention_us=0)
    kept.run()
    assert kept.failures() == []


def test_of_a_run_and_a_prune_at_once_one_has_its_way(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept.send(0, payment("a", kept.now_us))
    original = run_module.read_and_write

    def slow(*given: Any, **named: Any) -> Any:
        result = original(*given, **named)
        plan_of(kept.prune(kept.now_us - DAY_US))
        return result

    with monkeypatch.context() as patch:
        patch.setattr(run_module, "read_and_write", slow)
        with pytest.raises(TryAgainLater, match=r"another run has|another run has begun"):
            kept.run()
    assert kept.failures() == []
    kept.run()
    assert kept.failures() == []
    assert {run.status for run in kept.real.runs.read()} == {COMMITTED}


# The command line.


def test_the_command_says_what_it_has_done(file: Kept, capsys: pytest.CaptureFixture[str]) -> None:
    where = f"--destination={file.settings.destination}"
    now = lambda: file.now_us  # noqa: E731
    assert prune_command([where, "--before=2026-09-23", "--dry_run"], now) == 0
    assert "would be removed: " in capsys.readouterr().out
    assert prune_command([where, "--before=2026-09-23", "--json"], now) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["runs"] and figures["removed"]["payment_transactions"] and figures["run_id"]
    assert prune_command([where, "--before=2026-09-23"], now) == 0
    assert capsys.readouterr().out.startswith("nothing to prune: payments lie at or after 2026-09-")


@pytest.mark.parametrize("text", ["", "yesterday", "2026-13-01", "2026-1-1", "20260101"])
def test_a_day_that_is_none_is_refused(
    file: Kept, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    where = f"--destination={file.settings.destination}"
    assert main(["prune", where, f"--before={text}"]) == 2
    assert "--before" in capsys.readouterr().err


def test_where_no_run_has_written_there_is_nothing_to_prune(tmp_path: Any) -> None:
    with pytest.raises(UsageError, match="--destination"):
        prune_command([f"--destination=duckdb:{tmp_path}/none.duckdb", "--before=2026-01-01"])
