"""What one process keeps from run to run, with `--every`: ids and the connection to the broker."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from pipeline.kafka_admin import KafkaAdmin
from pipeline.run.ids_between_runs import IdsBetweenRuns


class KeptBetweenRuns:
    """keeps_connection: False for a process that makes one run, whose connection ends with it."""

    def __init__(self, keeps_connection: bool = False) -> None:
        self.ids = IdsBetweenRuns()
        self._keeps = keeps_connection
        self._admin: KafkaAdmin | None = None

    @contextmanager
    def connected(self, consumer_config: Mapping[str, str]) -> Iterator[KafkaAdmin]:
        """The connection. After an error the next run gets a new one.

        consumer_config: the same in every call.
        """
        admin = self._admin or KafkaAdmin(consumer_config)
        self._admin = None
        try:
            yield admin
        except BaseException:
            admin.__exit__(None, None, None)
            raise
        if self._keeps:
            self._admin = admin
        else:
            admin.__exit__(None, None, None)

    def close(self) -> None:
        """Ends the connection."""
        if self._admin is not None:
            self._admin.__exit__(None, None, None)
            self._admin = None
