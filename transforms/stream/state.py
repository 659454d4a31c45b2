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
    `transaction_id` and `event_time`.
    """

    shards: int
    layout: str
    dedup_horizon_us: int
    extra_retention_us: int
    max_future_skew_us: int
    decoder_version: int
    dedup_key: str
    event_time_field: str


class StreamHead(msgspec.Struct, array_like=True):
    """The cell `head`.

    dedup: token and live buckets. streams: table -> write stream of the epoch in `progress`.
    """

    dedup: ShardHead
    settings: StateSettings
    progress: Progress
    streams: dict[str, str]


def encode_stream_head(head: StreamHead) -> bytes:
    """The cell `head` as a checkpoint holds it."""
    return msgspec.msgpack.encode(head)


def decode_stream_head(cell: bytes, now: StateSettings) -> StreamHead:
    """The head, with the settings of this job. now: those settings.

    Raises GuaranteeError when the settings under which the state was made do not allow it. A longer
    horizon or retention is accepted: ids already expired under the shorter one are behind the
    watermark, so their copies are late.
    """
    head = msgspec.msgpack.decode(cell, type=StreamHead)
    before = head.settings
    problems = [
        f"{name} was {getattr(before, name)} and is {getattr(now, name)}"
        for name in (
            "shards",
            "layout",
            "max_future_skew_us",
            "decoder_version",
            "dedup_key",
            "event_time_field",
        )
        if getattr(before, name) != getattr(now, name)
    ] + [
        f"{name} was {getattr(before, name)} and would shrink to {getattr(now, name)}"
        for name in ("dedup_horizon_us", "extra_retention_us")
        if getattr(before, name) > getattr(now, name)
    ]
    if problems:
        raise GuaranteeError(
            f"the checkpoint was made under other options: {'; '.join(problems)}. Give them their"
            " old values."
        )
    head.settings = now
    return head
