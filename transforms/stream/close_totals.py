"""The totals that a worker still owes when it has ended in good order, in its own process.

Else they would be in its savepoint alone, and a stop, which cannot read that, would mark every
window within the dedup horizon as unobserved. Written early they are what a watermark would have
closed: a job that goes on from the savepoint finds them in the table and takes them off
(transforms/stream/totals.py).
"""

from __future__ import annotations

from typing import Final

import msgspec

from transforms.deduplicate.process_memory import memory_of
from transforms.destinations.contract.destination import Destination
from transforms.destinations.contract.shard_ledger import TOTALS_SHARD, Job
from transforms.stream.head_cell import NoIds
from transforms.stream.polling import Polling
from transforms.stream.totals import TotalsHead, TotalsShard
from transforms.stream.write_totals import MEMORY

_NO_END: Final = 1 << 62
"""Above every event time, in microseconds."""


def close_totals(destination: Destination, job: Job, polling: Polling) -> bool:
    """Writes every window that WriteTotals of this process holds open.

    False where it holds nothing: its last bundle has failed, or another process had the step. What
    it had not been told yet stays owed. Raises Superseded, StreamGone or GuaranteeError, as a
    bundle does.
    """
    memory = memory_of(job.job_id, MEMORY)
    head: TotalsHead | None = memory.newest(TOTALS_SHARD)
    if head is None:
        return False
    shard = TotalsShard(destination, job, _LastState(head), memory, polling)
    shard.close(_NO_END)
    shard.finish()
    return True


class _LastState(NoIds):
    """The cell of the shard as its last bundle wrote it. Nobody reads what is written now."""

    def __init__(self, head: TotalsHead) -> None:
        self._cell = msgspec.msgpack.encode(head)

    def read_head(self) -> bytes:
        return self._cell

    def write_head(self, cell: bytes) -> None:
        self._cell = cell
