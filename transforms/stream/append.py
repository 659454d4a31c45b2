"""Step 3 of streaming: a shard's rows at the next offsets of its three streams, in order.

What a refused append means: transforms/stream/refusals.py.
"""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa

from transforms.destinations.appends import TableAppends
from transforms.destinations.contract.destination import Destination
from transforms.model.tables import DUPLICATES, PAYMENTS, ROW_TABLES
from transforms.stream.polling import Polling
from transforms.stream.refusals import ProveOrResend


class ShardAppends:
    """The three streams of one shard within one bundle.

    A duplicate is sent only when the payments added before it are acknowledged: else a crash could
    leave the duplicate without its payment, and if the payment's record were late in the replay,
    its id would have no payment at all.
    """

    def __init__(
        self,
        destination: Destination,
        streams: Mapping[str, str],
        next_offsets: Mapping[str, int],
        polling: Polling,
    ) -> None:
        policy = ProveOrResend(destination.rows.count_present, polling)

        def appends(table: str) -> TableAppends:
            before_send = self._settle_payments if table == DUPLICATES else lambda: None
            offset = next_offsets.get(table, 0)
            return TableAppends(
                destination.streams, table, policy, streams[table], offset, before_send
            )

        self._tables = {table: appends(table) for table in ROW_TABLES}

    def add(self, tables: Mapping[str, pa.RecordBatch]) -> None:
        """Collects rows per table. Payments count as added before the duplicates of one call."""
        for table in ROW_TABLES:
            if table in tables:
                self._tables[table].add(tables[table])

    def send_rest(self) -> None:
        """Sends what needs no acknowledgement first."""
        for table in ROW_TABLES:
            if table != DUPLICATES:
                self._tables[table].send()

    def send_duplicates(self) -> None:
        """Sends the others, once the payments are acknowledged."""
        self._tables[DUPLICATES].send()

    def settle(self) -> dict[str, int]:
        """Sends the rest and waits for it: the next stream offset per table."""
        self.send_rest()
        for appends in self._tables.values():
            appends.settle(appends.added)
        return {table: appends.acknowledged for table, appends in self._tables.items()}

    def _settle_payments(self) -> None:
        payments = self._tables[PAYMENTS]
        payments.settle(payments.added)
