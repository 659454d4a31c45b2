"""The encoded state of one shard in streaming: what a checkpoint holds beside the ring of
fingerprints (transforms/deduplicate/shard_state.py).

Frozen by tests/unit/stream/test_state.py: a checkpoint outlives the process that wrote it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

import msgspec

from transforms.deduplicate.shard_state import ShardHead
from transforms.destinations.contract.shard_ledger import Progress
from transforms.model.errors import GuaranteeError


class StateCells(Protocol):
    """The cells of one shard. What is written counts when the bundle does; a failed bundle leaves
    them as they were.
    """

    def read_head(self) -> bytes | None:
        """None: the shard has no state yet."""

    def write_head(self, cell: bytes) -> None: ...

    def read_blobs(self) -> Iterable[bytes]:
        """The blobs of all slots."""

    def add_blob(self, slot: int, blob: bytes) -> None: ...

    def clear_slot(self, slot: int) -> None: ...


class StateSettings(msgspec.Struct, frozen=True, array_like=True):
    """What the state depends on: with another value the same record would be judged in another way,
    or meet another shard.

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
    """The cell `head`. dedup: token and live buckets. streams: table -> write stream of the epoch
    in `progress`.
    """

    dedup: ShardHead
    settings: StateSettings
    progress: Progress
    streams: dict[str, str]


def encode_stream_head(head: StreamHead) -> bytes:
    return msgspec.msgpack.encode(head)


def decode_stream_head(cell: bytes, now: StateSettings) -> StreamHead:
    """The head, with the settings of this job. Raises GuaranteeError when the state was made under
    others that do not go with it.

    A longer horizon or retention is taken over: what it would still know and the state has expired
    lies behind the watermark.
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
            f"the checkpoint does not go with these options: {'; '.join(problems)}. Give them their"
            " old values."
        )
    head.settings = now
    return head
