"""The gRPC channels that the append connections of one bundle share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc

from transforms.destinations.bigquery.append_connection import Call, append_rows_of


class AppendChannels:
    """Channels with at most `connections_each` connections, opened as they are needed.

    Each has an HTTP/2 connection of its own: clients.py gives them no shared pool.
    """

    def __init__(self, new_channel: Callable[[], grpc.Channel], connections_each: int) -> None:
        self._new_channel = new_channel
        self._connections_each = connections_each
        self._channels: list[grpc.Channel] = []
        self._calls: list[Call] = []
        self._channel_of: dict[Any, int] = {}

    def open(self, requests: Any, metadata: Any) -> Any:
        """AppendRows over a channel that has room; the call takes it up until it is over."""
        used = [0] * len(self._channels)
        for call in list(self._channel_of):
            if call.is_active():
                used[self._channel_of[call]] += 1
            else:
                del self._channel_of[call]
        has_room = (at for at, calls in enumerate(used) if calls < self._connections_each)
        index = next(has_room, len(used))
        if index == len(used):
            self._channels.append(self._new_channel())
            self._calls.append(append_rows_of(self._channels[-1]))
        call = self._calls[index](requests, metadata=metadata)
        self._channel_of[call] = index
        return call

    def close(self) -> None:
        """Closes all channels; the next call opens new ones."""
        for channel in self._channels:
            channel.close()
        self._channels, self._calls, self._channel_of = [], [], {}
