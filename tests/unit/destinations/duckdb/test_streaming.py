import threading

from tests.unit.destinations.contract.present_rows import PresentRowsContract
from tests.unit.destinations.contract.shard_ledger import ShardLedgerContract, claimed
from transforms.destinations.duckdb.destination import DuckDBDestination


class TestDuckDBShardLedger(ShardLedgerContract):
    """`destination` is the module's."""


class TestDuckDBPresentRows(PresentRowsContract):
    """`destination` is the module's."""


def test_of_many_threads_that_claim_one_shard_at_once_exactly_one_succeeds(
    destination: DuckDBDestination,
) -> None:
    destination.shards.create(2)
    job = destination.shards.begin_job("job", 0)
    seen = destination.shards.read([0, 1])
    ready, won = threading.Barrier(6), []

    def claim(number: int) -> None:
        ready.wait()
        if destination.shards.swap(job, seen, [claimed(row, str(number)) for row in seen]):
            won.append(str(number))

    threads = [threading.Thread(target=claim, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [row.nonce for row in destination.shards.read([0, 1])] == won * 2
