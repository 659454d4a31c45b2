"""Step 4 of streaming, gaps: a shard of its own writes `offset_gaps`.

The protocol is that of the other shards. Key: (topic, partition, first offset).

A gap is written only for coordinates that are in no table and no gap. In a replay Kafka may deliver
less than before (compaction and retention go on), so a coordinate that was a record may look like a
gap now; and a process believed dead may have it in flight. So every row shard has to pass the gap
first: a shard that has passed it was recovered, so the service refuses any process that wrote to it
before, and it names the coordinates of the gap that are present. What none of them has is a gap for
good.

The answers of the row shards come in bundles of their own. Until all have answered, a gap is
*pending* in the state, and so are the later ones of its partition, so that gaps are written in the
order of offsets. What is pending is written anew with each bundle, some 25 bytes for each gap,
neighbours joined: 25 kB where row shards follow each other by a second and 10,000 records a second
come in transactions of 10, each of which ends with a marker. Without transactions next to nothing.
"""

from __future__ import annotations

import msgspec
import pyarrow as pa

from transforms.deduplicate.process_memory import ProcessMemory, fresh_token
from transforms.destinations.appends import TableAppends
from transforms.destinations.contract.destination import Destination
from transforms.destinations.contract.shard_ledger import GAPS_SHARD, Job, Progress
from transforms.model.elements import GapAnswer
from transforms.model.tables import GAPS, GAPS_SCHEMA
from transforms.stream.offset_ranges import without
from transforms.stream.pending_gaps import PendingGaps
from transforms.stream.polling import Polling
from transforms.stream.recover_single import recover_single
from transforms.stream.refusals import ProveOrResend
from transforms.stream.state import StateCells


class Gap(msgspec.Struct, frozen=True, array_like=True):
    """A row of `offset_gaps`: offsets first to last, inclusive, that hold no record."""

    topic: str
    partition: int
    first: int
    last: int
    cause: str


class GapsHead(msgspec.Struct, array_like=True):
    """The cell `head`. Frozen by tests/unit/stream/test_state.py.

    written: gaps in the table that the replay has not passed yet. pending: gaps that not every row
    shard has passed yet.
    """

    token: bytes
    progress: Progress
    stream: str
    written: list[Gap]
    pending: list[PendingGaps] = msgspec.field(default_factory=list)


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
            head = _recover(destination, job, head, polling)
        self._head = head
        self._pending = {(each.topic, each.partition): each for each in head.pending}
        policy = ProveOrResend(destination.rows.count_present, polling)
        self._appends = TableAppends(
            destination.streams, GAPS, policy, head.stream, head.progress.next_offsets[GAPS]
        )

    def add(self, answer: GapAnswer) -> None:
        """Takes what one row shard says of the gaps of one of its bundles.

        Raises GuaranteeError for a gap that the shard has passed before, or when it does not name
        the gaps that the other shards have named.
        """
        for passed in answer.passed:
            partition = (passed.topic, passed.partition)
            if partition not in self._pending:
                nothing = PendingGaps(*partition, [], [-1] * self._shards, [])
                self._pending[partition] = nothing
            self._pending[partition].add(answer.shard, passed, self._passed_by_all(*partition))

    def finish(self) -> None:
        """Writes the gaps that all shards have passed, waits for the append, writes the state."""
        rows = [row for pending in self._pending.values() for row in self._take(pending)]
        if rows:
            columns = [
                pa.array(values, field.type)
                for values, field in zip(zip(*rows, strict=True), GAPS_SCHEMA, strict=True)
            ]
            self._appends.add(pa.RecordBatch.from_arrays(columns, schema=GAPS_SCHEMA))
            self._appends.send()
        self._appends.settle(self._appends.added)
        head = self._head
        head.pending = [each for each in self._pending.values() if each.gaps]
        head.progress.next_offsets = {GAPS: self._appends.acknowledged}
        above = [
            gap for gap in head.written if gap.first > self._passed_by_all(gap.topic, gap.partition)
        ]
        head.progress.present = {GAPS: len(above)}
        head.token = fresh_token()
        self._cells.write_head(msgspec.msgpack.encode(head))
        self._memory.keep(GAPS_SHARD, head.token, head)

    def _passed_by_all(self, topic: str, partition: int) -> int:
        """The last offset of the last gap that every shard has passed; -1 before the first."""
        return self._head.progress.offsets.get(topic, {}).get(partition, -1)

    def _take(self, pending: PendingGaps) -> list[tuple[str, int, int, int, str]]:
        """The rows to write of one partition; they count as passed from here on."""
        gaps, present = pending.take_passed()
        if not gaps:
            return []
        topic, partition, last = pending.topic, pending.partition, gaps[-1].last
        self._head.progress.offsets.setdefault(topic, {})[partition] = last
        # A replay may cut a gap in another way: what an earlier attempt wrote stays, by offset.
        here = [
            gap for gap in self._head.written if (gap.topic, gap.partition) == (topic, partition)
        ]
        taken = [*((gap.first, gap.last) for gap in here), *((at, at) for at in present)]
        over = {id(gap) for gap in here if gap.last <= last}
        self._head.written = [gap for gap in self._head.written if id(gap) not in over]
        return [(topic, partition, *left) for left in without(gaps, taken)]


def _recover(
    destination: Destination, job: Job, head: GapsHead | None, polling: Polling
) -> GapsHead:
    taken = recover_single(
        destination,
        job,
        GAPS_SHARD,
        GAPS,
        head.progress if head else None,
        lambda begin: destination.rows.gaps_above(begin.offsets),
        polling,
    )
    written = [Gap(*(row[name] for name in GAPS_SCHEMA.names)) for row in taken.present.to_pylist()]
    # The query finds gaps that begin above the offsets. One that began before was found by the
    # recovery from which the replay passed its begin.
    known = taken.progress.offsets
    begun = [
        gap
        for gap in (head.written if head else ())
        if gap.first <= known.get(gap.topic, {}).get(gap.partition, -1)
    ]
    return GapsHead(
        b"", taken.progress, taken.stream, [*begun, *written], head.pending if head else []
    )
