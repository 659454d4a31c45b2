"""The records of the chain by which the tables change hands.

A BEGIN carries the positions of the chain on: what the job writes above them is accounted for by
the STOP, whose ranges begin there.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence

from transforms.destinations.contract.destination import Destination
from transforms.destinations.contract.ownership import (
    BEGIN,
    OWNERSHIP,
    Ownership,
    ownership_of,
    with_ownership,
)
from transforms.destinations.contract.run_ledger import (
    COMMITTED,
    PartitionProgress,
    RunRecord,
)
from transforms.destinations.contract.run_tail import with_landmarks


def fresh_id(kind: str) -> str:
    """A name that no other record or job has, such as `begin-` and 16 hexadecimal digits."""
    return f"{kind}-{secrets.token_hex(8)}"


def generation_of(destination: Destination) -> int:
    """The generation that the shard ledger carries.

    It is read after the record that a claim compares: where the claim succeeds, both were so at
    one moment, the one of this answer.
    """
    return destination.shards.read([0])[0].generation


def ownership_record(
    kind: str,
    runs: Sequence[RunRecord],
    partitions: Sequence[PartitionProgress],
    cluster_id: str | None,
    settings: Mapping[str, object],
    ownership: Ownership,
) -> RunRecord:
    """The record that follows the chain `runs`. settings: see settings_without_ownership."""
    before = runs[-1]
    record = RunRecord(
        run_id=fresh_id(kind),
        predecessor=before.run_id,
        status=COMMITTED,
        plan_time=ownership.since_us,
        cluster_id=cluster_id,
        partitions=list(partitions),
        tables=[],
        lowest_watermark=None,
        live_ids=before.live_ids,
        state_bytes=before.state_bytes,
        settings=with_ownership(settings, ownership),
    )
    return with_landmarks(record, runs)


def settings_without_ownership(record: RunRecord) -> dict[str, object]:
    """The configuration that the record keeps."""
    return {name: value for name, value in record.settings.items() if name != OWNERSHIP}


def begun_at(runs: Sequence[RunRecord], now_us: int) -> int:
    """When the first of the jobs began that follow each other at the end of the chain.

    now_us: the answer where the newest record is no BEGIN.
    """
    newest = ownership_of(runs[-1])
    return newest.begun_us if newest is not None and newest.kind == BEGIN else now_us


def nothing_read(
    topic: str,
    partition: int,
    topic_id: str | None,
    position: int,
    watermark_us: int | None,
    since_us: int,
) -> PartitionProgress:
    """One partition of a record that accounts for no offset. since_us: see PartitionProgress."""
    return PartitionProgress(
        topic=topic,
        partition=partition,
        topic_id=topic_id,
        from_offset=position,
        to_offset=position,
        records=0,
        gap_offsets=0,
        coordinate_hash=0,
        start_watermark=watermark_us,
        watermark=watermark_us,
        position_since=since_us,
    )
