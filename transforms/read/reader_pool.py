"""Readers of this process that lie idle: between two ranges, two transactions, two runs.

A new reader costs connections, each with a handshake where TLS or SASL is used, and threads.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Final

from transforms.read.partition_reader import PartitionRange, PartitionReader

MOST_IDLE: Final = 4
"""A runner reads by one thread per worker; more than these few idle ones would never be used."""

MakeReader = Callable[[Mapping[str, str]], PartitionReader]


class ReaderPool:
    """Lends each reader to one range at a time. Threads may use it at once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._idle: list[tuple[dict[str, str], PartitionReader]] = []
        self._keeping = 0

    @contextmanager
    def lent(
        self,
        consumer_config: Mapping[str, str],
        wanted: PartitionRange,
        make: MakeReader = PartitionReader,
    ) -> Iterator[PartitionReader]:
        """A reader for one range: an idle one of the same configuration, else a new one.

        Afterwards it lies idle. It is closed instead where the block was left by any error, or
        before the range was read to its end, and where its client has reported any trouble.
        """
        reader = self._take(consumer_config, wanted) or make(consumer_config)
        try:
            yield reader
        except BaseException:
            reader.close()
            raise
        self._give_back(consumer_config, reader)

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Within the block what lies idle stays open, whatever the runner tears down.

        At the end of the outermost block all of it is closed.
        """
        with self._lock:
            self._keeping += 1
        try:
            yield
        finally:
            with self._lock:
                self._keeping -= 1
            self.close_unless_kept()

    def close_unless_kept(self) -> None:
        """Closes what lies idle, outside of `kept`."""
        with self._lock:
            closed, self._idle = ([], self._idle) if self._keeping else (self._idle, [])
        for _, reader in closed:
            reader.close()

    def _take(
        self, consumer_config: Mapping[str, str], wanted: PartitionRange
    ) -> PartitionReader | None:
        with self._lock:
            found = next((idle for idle in self._idle if idle[0] == consumer_config), None)
            if found is None:
                return None
            self._idle = [idle for idle in self._idle if idle is not found]
        reader = found[1]
        if reader.is_ready_for(wanted):
            return reader
        reader.close()
        return None

    def _give_back(self, consumer_config: Mapping[str, str], reader: PartitionReader) -> None:
        if not reader.can_read_again:
            reader.close()
            return
        with self._lock:
            self._idle.insert(0, (dict(consumer_config), reader))
            closed, self._idle = self._idle[MOST_IDLE:], self._idle[:MOST_IDLE]
        for _, old in closed:
            old.close()


READERS = ReaderPool()
"""The readers of this process."""

_OF_PARENTS: Final[list[ReaderPool]] = []


def _begin_anew() -> None:
    """librdkafka's threads do not exist in a forked process: even closing a client hangs.

    So those of the parent stay referenced (https://github.com/confluentinc/librdkafka/issues/2374).
    """
    global READERS
    _OF_PARENTS.append(READERS)
    READERS = ReaderPool()


os.register_at_fork(after_in_child=_begin_anew)
