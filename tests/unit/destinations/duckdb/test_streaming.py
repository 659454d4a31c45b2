from contextlib import AbstractContextManager, nullcontext

from tests.unit.destinations.contract.present_rows import PresentRowsContract
from tests.unit.destinations.contract.shard_ledger import ShardLedgerContract
from tests.unit.destinations.contract.stop_mark import StopMarkContract
from transforms.destinations.duckdb.destination import DuckDBDestination


class TestDuckDBShardLedger(ShardLedgerContract):
    """`destination` is the module's."""

    def opened_again(
        self, destination: DuckDBDestination
    ) -> AbstractContextManager[DuckDBDestination]:
        """The same one: no other process can open the file, so threads share the destination."""
        return nullcontext(destination)


class TestDuckDBStopMarks(StopMarkContract):
    """`destination` is the module's."""


class TestDuckDBPresentRows(PresentRowsContract):
    """`destination` is the module's."""
