"""The encoded state of one shard in streaming, as a checkpoint holds it.

Beside it stands the ring of fingerprints (transforms/deduplicate/shard_state.py). Frozen by
tests/unit/stream/test_state.py: a checkpoint outlives the process that wrote it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

import msgspec

from transforms.deduplicate.shard_state import ShardHead
from transforms.destinations.contract.shard_ledger import Progress
from transforms.model.elements import Covered
from transforms.model.errors import GuaranteeError


class StateCells(Protocol):
    """The state cells of one shard.

    What is written takes effect with the bundle; a failed bundle leaves them as they were.
    """

    def read_head(self) -> bytes | None:
        """None: the shard has no state yet."""

    def write_head(self, cell: bytes) -> None:
        """Replaces the cell `head`."""

    def read_blobs(self) -> Iterable[bytes]:
        """The blobs of all slots."""

    def add_blob(self, slot: int, blob: bytes) -> None:
        """Adds a blob to a slot of the ring."""

    def clear_slot(self, slot: int) -> None:
        """Removes all blobs of a slot."""


class StateSettings(msgspec.Struct, frozen=True, array_like=True):
    """Settings that the state depends on.

    With another value the same record would be judged differently, or belong to another shard.
    Durations in microseconds. dedup_key, event_time_field: the JSON fields that become
    `transaction_id` and `event_time`. epoch_units: path of each TIMESTAMP whose numbers are times
    -> their unit. max_record_bytes: of a larger record the id is not read, so it belongs to the
    shard of its coordinate. cluster_id: of Kafka, None where it has none.
    """

    shards: int
    layout: str
    dedup_horizon_us: int
    extra_retention_us: int
    max_future_skew_us: int
    decoder_version: int
    dedup_key: str
    event_time_field: str
    epoch_units: dict[str, str]
    max_record_bytes: int
    cluster_id: str | None


class StreamHead(msgspec.Struct, array_like=True):
    """The cell `head`.

    dedup: token and live buckets. streams: table -> write stream of the epoch in `progress`.
    topic_ids: topic -> Kafka's own id of the one whose offsets are in `progress`, where it has one.
    """

    dedup: ShardHead
    settings: StateSettings
    progress: Progress
    streams: dict[str, str]
    topic_ids: dict[str, str]

    def require_topics(self, covered: Iterable[Covered]) -> None:
        """Raises GuaranteeError when a topic of the reads is not the one of that name before."""
        for read in covered:
            known = self.topic_ids.get(read.topic)
            if known is not None and read.topic_id != known:
                found = (
                    "the broker does not tell its id any more"
                    if read.topic_id is None
                    else f"it now has the id {read.topic_id}"
                )
                raise GuaranteeError(
                    f"topic {read.topic} was read with the id {known}, but {found}: it was deleted"
                    " and created again, so its offsets repeat, and what was not read of the old"
                    " one is lost. Use a new topic name, or a new destination."
                )
            if read.topic_id is not None:
                self.topic_ids[read.topic] = read.topic_id


def encode_stream_head(head: StreamHead) -> bytes:
    """The cell `head` as a checkpoint holds it."""
    return msgspec.msgpack.encode(head)


def decode_stream_head(cell: bytes, now: StateSettings) -> StreamHead:
    """The head, with the settings of this job. now: those settings.

    Raises GuaranteeError when the settings under which the state was made do not allow it. A longer
    horizon or retention is accepted: ids already expired under the shorter one are behind the
    watermark, so their copies are late. So is a unit where there was none: numbers were rejected.
    """
    head = msgspec.msgpack.decode(cell, type=StreamHead)
    before = head.settings
    problems = (
        [
            f"{name} was {getattr(before, name)} and is {getattr(now, name)}"
            for name in (
                "shards",
                "layout",
                "max_future_skew_us",
                "decoder_version",
                "dedup_key",
                "event_time_field",
                "max_record_bytes",
            )
            if getattr(before, name) != getattr(now, name)
        ]
        + [
            f"{name} was {getattr(before, name)} and would shrink to {getattr(now, name)}"
            for name in ("dedup_horizon_us", "extra_retention_us")
            if getattr(before, name) > getattr(now, name)
        ]
        + [
            f"epoch_unit of {path} was {unit} and is {now.epoch_units.get(path)}"
            for path, unit in before.epoch_units.items()
            if now.epoch_units.get(path) != unit
        ]
    )
    if before.cluster_id is not None and before.cluster_id != now.cluster_id:
        raise GuaranteeError(
            f"--bootstrap_servers leads to the Kafka cluster {now.cluster_id}, but the checkpoint"
            f" holds positions of {before.cluster_id}: they mean nothing there. Use the servers of"
            " that cluster, or a new destination."
        )
    if problems:
        raise GuaranteeError(
            f"the checkpoint was made under other options: {'; '.join(problems)}. Give them their"
            " old values. Or begin without a checkpoint, where most of them may change: end the job"
            " by `payment-pipeline stop` (`stop --lost` without its cluster), then start with"
            f" --from_tables{'' if before.shards == now.shards else f' --shards={now.shards}'}."
        )
    head.settings = now
    return head
