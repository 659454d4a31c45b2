"""The ledger `pipeline_runs`: a chain of records from genesis on, one for each bounded run."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Final, NamedTuple, Protocol, cast

import msgspec

from transforms.model.coordinates import TopicPartition

PREPARED: Final = "PREPARED"
COMMITTED: Final = "COMMITTED"
ABORTED: Final = "ABORTED"

PREPARED_AT: Final = "prepared_at_us"
"""Key of a record's settings: the moment before the run was claimed, microseconds since 1970. Runs
of the first versions have none.
"""

TOPIC_CLUSTERS: Final = "topic_clusters"
"""Key of a record's settings: topic -> cluster id of those topics, by their names in the ledger,
that are in another cluster than the record's `cluster_id`. It is absent where there are none.
"""

OLD_JOB: Final = "old_job"
"""Key of genesis' settings where the first run begins where another job stopped: path and batch of
its checkpoint, and `watermark_us`, which all partitions begin with; None: it had none.
"""

GENESIS: Final = "genesis"
"""run_id of the first record, which only one process can write.

It holds `--start` resolved to numbers.
"""


class PartitionProgress(msgspec.Struct, frozen=True, kw_only=True):
    """What a run did in one partition.

    Carried forward unchanged (from = to, records = 0) where it read nothing.
    """

    topic: str
    """As the tables have it: with its generation (transforms/model/topic_generations.py)."""
    partition: int
    topic_id: str | None
    """Kafka's id of the topic; None where the broker cannot tell."""
    from_offset: int
    to_offset: int
    """Exclusive: the position that the next run starts at."""
    records: int
    """Records the reader delivered from [from_offset, to_offset)."""
    gap_offsets: int
    """Offsets of the range that hold no record.

    They are markers, aborted or compacted records, or accepted losses.
    """
    coordinate_hash: int
    """Sum modulo 2^64 over the delivered records' coordinates.

    See transforms/model/coordinates.py.
    """
    start_watermark: int | None
    """Microseconds since 1970 that the run judged lateness by; None: nothing was late."""
    watermark: int | None
    """Microseconds since 1970 after the run: max(start watermark, highest event time - horizon)."""
    position_since: int
    """Plan time (microseconds) of the last run that read a payment or a duplicate of it.

    Of the first run that knew it, where none did. Up to `to_offset`, none has arrived since.
    """


class TableProgress(msgspec.Struct, frozen=True, kw_only=True):
    """What a run wrote into one table."""

    table: str
    rows: int
    commit_groups: list[list[str]]
    """Streams that are committed together, at most 10,000 a group.

    Fixed here, since a group that holds a committed stream commits nothing.
    """


class RunRecord(msgspec.Struct, frozen=True, kw_only=True):
    """The whole of a run, written by one atomic statement in step 4."""

    run_id: str
    predecessor: str | None
    status: str
    """PREPARED, COMMITTED or ABORTED."""
    plan_time: int
    """Microseconds since 1970; also the `ingest_time` of all its rows."""
    cluster_id: str | None
    """Of what the run has read; see clusters_of for topics that it did not read."""
    partitions: list[PartitionProgress]
    """Everything ever read into this destination, also of topics that this run did not name."""
    tables: list[TableProgress]
    lowest_watermark: int | None
    """Microseconds since 1970: the lowest start watermark of what the run read.

    Ids that this watermark had expired were not loaded; None: all ids were loaded.
    """
    live_ids: int
    state_bytes: int
    settings: dict[str, object]
    """What later runs are compared with: schema, dedup key, horizon, decoder version; and
    PREPARED_AT, TOPIC_CLUSTERS, LANDMARKS (run_tail.py), PRUNED (pruned.py), SEED (seed.py).
    """
    repairs: str | None = None
    """run_id of the PREPARED run with expired streams whose ranges this run read again."""

    def rows_in(self, table: str) -> int:
        """How many rows it wrote into the table."""
        return sum(part.rows for part in self.tables if part.table == table)


class RunHistory(Protocol):
    """The chain, to be read."""

    def read(self) -> list[RunRecord]:
        """From genesis on, in the order of the chain.

        Where the tables were pruned, from the border on, behind the landmarks that are left of what
        lies before it (chain.py). What it costs grows with the chain. Raises GuaranteeError when
        the chain is broken.
        """

    def tail(self) -> list[RunRecord]:
        """The newest records, and those before them that a run needs, in the order of the chain.

        Every question of a run has the answer that it has of the whole chain; see run_tail.py. What
        it costs does not grow with the chain. Raises GuaranteeError when the chain is broken, as
        far as that is met.
        """

    def backwards(self) -> Iterator[RunRecord]:
        """From the newest record to genesis; reads no further than it is asked for.

        Raises GuaranteeError when the chain is broken, as far as that is met.
        """


class RunLedger(RunHistory, Protocol):
    """The chain: every record follows one predecessor, and at most one record follows it."""

    def claim(self, record: RunRecord) -> bool:
        """Follows the record's predecessor and writes the whole record, atomically.

        One statement does both. False: another run has followed the predecessor already, and
        nothing was changed.

        Where the record repairs its predecessor, the same statement sets the predecessor to
        ABORTED: between two statements its rows would belong to no run. A predecessor of None is
        genesis: one process only can write it. Any number of processes may claim at once.
        """

    def mark(self, run_id: str, status: str) -> None:
        """PREPARED -> COMMITTED or ABORTED; the same status again is success.

        Raises GuaranteeError for any other change, and for a run that is not there.
        """

    def forget_before(self, border: str, keep: Collection[str]) -> None:
        """Removes the records before the one of this run_id, but for those to keep.

        For a prune alone, see pruned.py. The same call again is harmless, and goes on where an
        earlier one has ended.
        """


def last_committed(runs: Sequence[RunRecord]) -> RunRecord:
    """The newest COMMITTED record of the chain: positions count from there."""
    return next(run for run in reversed(runs) if run.status == COMMITTED)


def last_claimed(runs: Sequence[RunRecord]) -> RunRecord:
    """The newest record that is, or will become, COMMITTED."""
    return next(run for run in reversed(runs) if run.status != ABORTED)


def partitions_of(record: RunRecord) -> dict[TopicPartition, PartitionProgress]:
    """The partitions of a record by their names."""
    return {(part.topic, part.partition): part for part in record.partitions}


def carried_on(part: PartitionProgress, position: int | None = None) -> PartitionProgress:
    """The partition as it is, without an offset of its own. position: None for the same one."""
    at = part.to_offset if position is None else position
    return msgspec.structs.replace(
        part,
        from_offset=at,
        to_offset=at,
        start_watermark=part.watermark,
        **dict.fromkeys(("records", "gap_offsets", "coordinate_hash"), 0),
    )


class Made(NamedTuple):
    """The watermark of a partition, in microseconds since 1970, and how it came about.

    horizon_us: of the first run with this watermark. number: of that run among those asked for.
    """

    watermark: int
    horizon_us: int
    number: int


def watermarks_made(runs: Sequence[RunRecord]) -> dict[TopicPartition, Made]:
    """Per partition its watermark as COMMITTED runs have left it. runs: the chain."""
    made: dict[TopicPartition, Made] = {}
    for number, run in enumerate(runs):
        if run.status != COMMITTED:
            continue
        horizon = horizon_of(run)
        for part in run.partitions:
            where = (part.topic, part.partition)
            known = made.get(where)
            if part.watermark is not None and (known is None or known.watermark != part.watermark):
                made[where] = Made(part.watermark, horizon, number)
    return made


def horizon_of(record: RunRecord) -> int:
    """The dedup horizon that it was run with, in microseconds."""
    return int(str(record.settings["dedup_horizon_us"]))


def amount_and_currency(settings: Mapping[str, object]) -> tuple[str | None, str | None]:
    """The columns that the totals add up, None where the schema has none.

    settings: of a record.
    """
    amount, currency = settings["amount_column"], settings["currency_column"]
    return cast("str | None", amount), cast("str | None", currency)


def clusters_of(record: RunRecord) -> dict[str, str | None]:
    """Topic, as the ledger names it -> the id of the Kafka cluster that it was read from."""
    others = cast("dict[str, str]", record.settings.get(TOPIC_CLUSTERS, {}))
    return {part.topic: others.get(part.topic, record.cluster_id) for part in record.partitions}


def other_clusters(record: RunRecord, cluster_id: str | None) -> dict[str, object]:
    """What a record behind this one, of `cluster_id`, keeps in its settings: see TOPIC_CLUSTERS."""
    others = {
        topic: cluster
        for topic, cluster in clusters_of(record).items()
        if cluster not in (None, cluster_id)
    }
    return {TOPIC_CLUSTERS: others} if others else {}
