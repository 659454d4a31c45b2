"""One row of the ledger `pipeline_runs`: a run of the pipeline as a transaction."""

from __future__ import annotations

from typing import Final

import msgspec

PREPARED: Final = "PREPARED"


COMMITTED: Final = "COMMITTED"


ABORTED: Final = "ABORTED"


GENESIS: Final = "genesis"
"""run_id of the first record: it holds `--start` resolved to numbers, and only one process can write it."""


class PartitionProgress(msgspec.Struct, frozen=True, kw_only=True):
    """What a run did in one partition. Carried forward unchanged (from = to, records = 0) where it read nothing."""

    topic: str
    partition: int
    topic_id: str | None
    """Kafka's id of the topic; None where the broker cannot tell."""
    from_offset: int
    to_offset: int
    """Exclusive: the position that the next run starts at."""
    records: int
    """Records the reader delivered from [from_offset, to_offset)."""
    gap_offsets: int
    """Offsets of the range that hold no record (markers, aborted, compacted, or accepted losses)."""
    coordinate_hash: int
    """Sum modulo 2^64 over the delivered records' coordinates; see transforms/model/coordinates.py."""
    start_watermark: int | None
    """Microseconds since 1970 that the run judged lateness by; None: nothing was late."""
    watermark: int | None
    """Microseconds since 1970 after the run: max(start watermark, highest event time - horizon)."""
    position_since: int
    """Plan time (microseconds) of the first run that recorded this to_offset. While it is still the log's end, nothing has arrived since."""


class TableProgress(msgspec.Struct, frozen=True, kw_only=True):
    """What a run wrote into one table."""

    table: str
    rows: int
    commit_groups: list[list[str]]
    """Streams that are committed together, at most 10,000 a group; fixed here, since a group that holds a committed stream commits nothing."""


class RunRecord(msgspec.Struct, frozen=True, kw_only=True):
    """The whole of a run, written by one atomic statement in step 4."""

    run_id: str
    predecessor: str | None
    status: str
    """PREPARED, COMMITTED or ABORTED."""
    plan_time: int
    """Microseconds since 1970; also the `ingest_time` of all its rows."""
    cluster_id: str | None
    partitions: list[PartitionProgress]
    """Everything ever read into this destination, also of topics that this run did not name."""
    tables: list[TableProgress]
    lowest_watermark: int | None
    """Microseconds since 1970: the lowest start watermark of what the run read. Ids that it had expired were not loaded; None: all were."""
    live_ids: int
    state_bytes: int
    settings: dict[str, object]
    """What later runs are compared with: schema, dedup key, horizon, decoder version."""
    repairs: str | None = None
    """run_id of the PREPARED run with expired streams whose ranges this run read again."""
