"""Step 4 of streaming, gaps: a shard of its own writes `offset_gaps`.

The protocol is that of the other shards. Key: (topic, partition, first offset).

A gap is written only for coordinates that are in no table and no gap. In a replay Kafka may deliver
less than before (compaction and retention go on), so a coordinate that was a record may look like a
gap now; and a process believed dead may have it in flight. So every row shard has to pass the gap
first: a shard that has passed it was recovered, so the service refuses any process that wrote to it
before, and it names the coordinates of the gap that are present. What none of them has is a gap for
good.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from transforms.deduplicate.process_memory import ProcessMemory, fresh_token
from transforms.destinations.appends import TableAppends
from transforms.destinations.contract.destination import Destination
from transforms.destinations.contract.shard_ledger import GAPS_SHARD, Job, Progress
from transforms.model.errors import GuaranteeError
from transforms.model.tables import GAPS, GAPS_SCHEMA
from transforms.stream.polling import Polling
from transforms.stream.recover_single import recover_single
from transforms.stream.refusals import ProveOrResend
from transforms.stream.state import StateCells


class Gap(msgspec.Struct, frozen=True, array_like=True):
    """Offsets first to last, inclusive, that hold no record."""

    topic: str
    partition: int
    first: int
    last: int
    cause: str


class GapsHead(msgspec.Struct, array_like=True):
    """The cell `head`. Frozen by tests/unit/stream/test_state.py.

    present: gaps in the table that the replay has not passed yet.
    """

    token: bytes
    progress: Progress
    stream: str
    present: list[Gap]


class GapsShard:
    """The shard within one bundle: add, finish.

    What fails here fails the bundle, and its cell stays as it was.
    """

    def __init__(
        self,
        destination: Destination,
        job: Job,
        shards: int,
        cells: StateCells,
        memory: ProcessMemory[GapsHead],
        polling: Polling,
    ) -> None:
        self._shards = shards
        self._cells = cells
        self._memory = memory
        encoded = cells.read_head()
        head = msgspec.msgpack.decode(encoded, type=GapsHead) if encoded is not None else None
        if head is None or memory.take(GAPS_SHARD, head.token) is None:
            progress = head.progress if head else None
            taken = recover_single(
                destination,
                job,
                GAPS_SHARD,
                GAPS,
                progress,
                lambda begin: destination.rows.gaps_above(begin.offsets),
                polling,
            )
            head = GapsHead(b"", taken.progress, taken.stream, _gaps(taken.present))
        self._head = head
        policy = ProveOrResend(destination.rows.count_present, polling)
        self._appends = TableAppends(
            destination.streams, GAPS, policy, head.stream, head.progress.next_offsets[GAPS]
        )

    def add(self, gap: Gap, present: Mapping[int, NDArray[np.int64]]) -> None:
        """Writes the offsets of the gap that are in no table and in no gap.

        present: from every row shard the offsets of the gap that it has. Raises GuaranteeError for
        a gap at or below the last one of its partition, or when a row shard has not passed it.
        """
        if set(present) != set(range(self._shards)):
            raise GuaranteeError(
                f"gap {gap}: only the shards {sorted(present)} of {self._shards} have passed it, so"
                " another process may still write there."
            )
        seen = self._head.progress.offsets.setdefault(gap.topic, {})
        if gap.first <= seen.get(gap.partition, -1):
            raise GuaranteeError(
                f"gap {gap} comes although {seen[gap.partition]} was passed before. Start from a"
                " complete checkpoint, or without one."
            )
        seen[gap.partition] = gap.last
        # A replay may cut a gap in another way: what an earlier attempt wrote stays, by offset.
        written = [
            np.arange(known.first, known.last + 1)
            for known in self._head.present
            if (known.topic, known.partition) == (gap.topic, gap.partition)
        ]
        left = np.setdiff1d(
            np.arange(gap.first, gap.last + 1), np.concatenate([*written, *present.values()])
        )
        self._head.present = [
            known
            for known in self._head.present
            if (known.topic, known.partition) != (gap.topic, gap.partition) or known.last > gap.last
        ]
        rows = [(gap.topic, gap.partition, first, last, gap.cause) for first, last in _runs(left)]
        if rows:
            self._appends.add(
                pa.RecordBatch.from_pylist(
                    [dict(zip(GAPS_SCHEMA.names, row, strict=True)) for row in rows],
                    schema=GAPS_SCHEMA,
                )
            )
            self._appends.send()

    def finish(self) -> None:
        """Waits for every append and writes the state."""
        self._appends.settle(self._appends.added)
        progress = self._head.progress
        progress.next_offsets = {GAPS: self._appends.acknowledged}
        offsets = progress.offsets
        above = [
            gap
            for gap in self._head.present
            if gap.first > offsets.get(gap.topic, {}).get(gap.partition, -1)
        ]
        progress.present = {GAPS: len(above)}
        self._head.token = fresh_token()
        self._cells.write_head(msgspec.msgpack.encode(self._head))
        self._memory.keep(GAPS_SHARD, self._head.token, self._head)


def _gaps(rows: pa.Table) -> list[Gap]:
    return [Gap(*(row[name] for name in GAPS_SCHEMA.names)) for row in rows.to_pylist()]


def _runs(offsets: NDArray[np.int64]) -> Iterable[tuple[int, int]]:
    """(first, last) of each run of neighbours in rising offsets."""
    if not len(offsets):
        return []
    breaks = np.flatnonzero(np.diff(offsets) > 1)
    firsts, lasts = (
        np.append(offsets[:1], offsets[breaks + 1]),
        np.append(offsets[breaks], offsets[-1:]),
    )
    return list(zip(firsts.tolist(), lasts.tolist(), strict=True))
