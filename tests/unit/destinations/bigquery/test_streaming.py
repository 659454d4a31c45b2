import pytest

from tests.bigquery_stand_in import BigQueryStandIn
from tests.bigquery_stand_in.faults import Rule
from tests.support.bigquery import settings_of
from tests.unit.destinations.contract.present_rows import PresentRowsContract
from tests.unit.destinations.contract.shard_ledger import ShardLedgerContract, claimed
from tests.unit.destinations.contract.stop_mark import StopMarkContract
from transforms.destinations.bigquery.destination import BigQueryDestination
from transforms.destinations.contract.present_rows import ShardOffsets
from transforms.destinations.contract.shard_ledger import SHARD_LEDGER
from transforms.model.errors import GuaranteeError
from transforms.model.tables import PAYMENTS


class TestBigQueryShardLedger(ShardLedgerContract):
    """`destination` is the module's."""


class TestBigQueryStopMarks(StopMarkContract):
    """`destination` is the module's."""


class TestBigQueryPresentRows(PresentRowsContract):
    """`destination` is the module's."""


def test_of_two_creators_one_meets_the_other_ones_table(
    stand_in: BigQueryStandIn, destination: BigQueryDestination
) -> None:
    def first(_call: object) -> None:
        stand_in.faults.clear()
        with BigQueryDestination(destination.settings) as other:
            other.shards.create(2)

    stand_in.faults.hook("jobs.run", first, when=lambda call: "CREATE TABLE" in str(call.request))
    destination.shards.create(2)
    assert stand_in.sql(f"SELECT shard FROM {SHARD_LEDGER} ORDER BY shard") == [
        (-2,),
        (-1,),
        (0,),
        (1,),
    ]


def test_a_ledger_that_is_missing_is_named_where_no_table_may_be_created(
    stand_in: BigQueryStandIn, destination: BigQueryDestination
) -> None:
    with (
        BigQueryDestination(settings_of(stand_in, create_tables="never")) as careful,
        pytest.raises(GuaranteeError, match=r"missing: shard_ledger, and --create_tables=never"),
    ):
        careful.shards.create(2)
    destination.shards.create(2)
    with BigQueryDestination(settings_of(stand_in, create_tables="never")) as careful:
        careful.shards.create(2)


CONFLICT = (
    "Could not serialize access to table payments-test:d.shard_ledger due to concurrent update"
)
QUEUE_IS_FULL = (
    "Resources exceeded during query execution: Too many DML statements outstanding against table"
    " d.shard_ledger, limit is 20."
)


SAME_OR_OTHER_NUMBER = pytest.mark.parametrize("shards", [2, 3])
"""Of shards, where the ledger has two: another one is another statement."""


@SAME_OR_OTHER_NUMBER
@pytest.mark.parametrize("message", [CONFLICT, QUEUE_IS_FULL])
def test_a_change_that_meets_others_is_tried_again_under_another_job_id(
    stand_in: BigQueryStandIn, destination: BigQueryDestination, message: str, shards: int
) -> None:
    destination.shards.create(2)

    def three_fail() -> Rule:
        return stand_in.faults.fail(
            "jobs.run", 400, reason="invalidQuery", message=message, times=3,
            when=lambda call: "UPDATE" in str(call.request),
        )  # fmt: skip

    rules = [three_fail()]
    job = destination.shards.begin_job("job", 0, shards)
    seen = destination.shards.read([0, 1])
    rules.append(three_fail())
    assert destination.shards.swap(job, seen, [claimed(row, "mine") for row in seen])
    assert [rule.hits for rule in rules] == [3, 3]


def test_a_change_that_always_meets_others_has_no_effect_and_is_no_success(
    stand_in: BigQueryStandIn, destination: BigQueryDestination
) -> None:
    destination.shards.create(2)
    job = destination.shards.begin_job("job", 0, 2)
    seen = destination.shards.read([0])
    stand_in.faults.fail("jobs.run", 400, reason="invalidQuery", message=CONFLICT, times=99)
    assert not destination.shards.swap(job, seen, [claimed(seen[0], "mine")])
    stand_in.faults.clear()
    assert destination.shards.read([0]) == seen


@SAME_OR_OTHER_NUMBER
@pytest.mark.parametrize("call", ["jobs.insert", "jobs.getQueryResults"])
def test_a_change_whose_answer_was_lost_is_read_back_by_its_job_id_and_not_done_again(
    stand_in: BigQueryStandIn, destination: BigQueryDestination, call: str, shards: int
) -> None:
    destination.shards.create(2)
    # The first one reads the rows.
    rules = [stand_in.faults.lose_answer(call, nth=2)]
    job = destination.shards.begin_job("job", 0, shards)
    assert len(destination.shards.read_all()) == shards + 2
    seen = destination.shards.read([0, 1])
    rules.append(stand_in.faults.lose_answer(call))
    assert destination.shards.swap(job, seen, [claimed(row, "mine") for row in seen])
    assert [rule.hits for rule in rules] == [1, 1]


def test_a_recovery_and_a_proof_name_the_partition_column_of_the_payment_tables(
    stand_in: BigQueryStandIn, destination: BigQueryDestination
) -> None:
    """Without a bare comparison with the partition column, the bytes of all days are billed."""
    asked: list[str] = []
    stand_in.faults.hook("jobs.run", lambda call: asked.append(call.request), times=99)
    destination.rows.rows_above(4, [ShardOffsets(0, {})], 0)
    rows = PresentRowsContract().one_block(destination)
    destination.rows.count_present(PAYMENTS, rows[PAYMENTS])
    assert asked[0].count("event_time >= TIMESTAMP_MICROS(@oldest)") == 2
    assert (
        "r.event_time >= TIMESTAMP_MICROS(@earliest) AND r.event_time <= TIMESTAMP_MICROS(@latest)"
        in asked[1]
    )


def test_looking_for_unfinished_windows_reads_no_ids(
    stand_in: BigQueryStandIn, destination: BigQueryDestination
) -> None:
    """They are the largest column, and hashing them is what costs."""
    asked: list[str] = []
    stand_in.faults.hook("jobs.run", lambda call: asked.append(call.request), times=99)
    assert destination.rows.unfinished_windows({("payments", 0): 0}) == []
    assert "transaction_id" not in asked[0] and "SHA256" not in asked[0]


def test_a_change_that_no_request_has_room_for_is_refused_in_words(
    destination: BigQueryDestination,
) -> None:
    """Every claim was followed by a death, so that none is closed."""
    destination.shards.create(2)
    job = destination.shards.begin_job("job", 0, 2)
    seen = row = destination.shards.read([0])[0]
    for _ in range(3_000):
        row = row.claim("n", {PAYMENTS: "s" * 2_000})
    with pytest.raises(GuaranteeError, match=r"up to 0 partitions and has up to 3000 claims"):
        destination.shards.swap(job, [seen], [row])
    assert destination.shards.read([0]) == [seen]
