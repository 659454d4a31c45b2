"""What the streaming protocol needs of a destination."""

from __future__ import annotations

from typing import Protocol

from transforms.destinations.contract.present_rows import PresentSource
from transforms.destinations.contract.shard_ledger import ShardLedger
from transforms.destinations.contract.write_streams import WriteStreams


class StreamingDestination(WriteStreams, ShardLedger, PresentSource, Protocol):
    """Write streams, the ledger of the shards, and the rows that the tables hold."""
