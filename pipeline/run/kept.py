"""What one process keeps from run to run, with `--every`: ids, the connection to the broker, and
where it has come to.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from pipeline.kafka_admin import KafkaAdmin, TopicState
from pipeline.options.config import RunConfig
from pipeline.run.ids_between_runs import IdsBetweenRuns
from pipeline.run.look_ahead import ask_topics
from transforms.deduplicate.id_files import IdFiles
from transforms.destinations.contract.run_ledger import RunRecord, last_committed
from transforms.model.topic_generations import kafka_topic

LOOKS_EVERY_US: Final = 60_000_000
"""So often a run looks at the destination even where no topic has anything new: a run of another
process may have died, or a streaming job may own the tables.
"""


class KeptBetweenRuns:
    """config: of all runs. keeps_connection: False for a process that makes one run, whose
    connection ends with it. Raises UsageError for a --state_dir that cannot be.
    """

    def __init__(self, config: RunConfig, keeps_connection: bool = False) -> None:
        files = IdFiles(config.state_dir, config.destination) if config.state_dir else None
        if files is not None:
            files.check_folder()
        self.ids = IdsBetweenRuns(files, config.workers_here)
        self._config = config
        self._keeps = keeps_connection
        self._admin: KafkaAdmin | None = None
        self._came_to: dict[str, tuple[str | None, dict[int, int]]] = {}
        self._looked_at_us: int | None = None

    @contextmanager
    def connected(self) -> Iterator[KafkaAdmin]:
        """The connection. After an error the next run gets a new one."""
        admin = self._admin or KafkaAdmin(self._config.consumer_config)
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

    def came_to(self, runs: Sequence[RunRecord], states: Sequence[TopicState], now_us: int) -> None:
        """A run has read all that there was.

        runs: the chain behind it. states: of its topics, under the ledger's names. now_us: when it
        began, in microseconds.
        """
        positions = {
            (part.topic, part.partition): part.to_offset for part in last_committed(runs).partitions
        }
        self._came_to = {
            kafka_topic(state.topic): (
                state.topic_id,
                {
                    partition: positions[state.topic, partition]
                    for partition in state.partitions
                    if (state.topic, partition) in positions
                },
            )
            for state in states
        }
        self._looked_at_us = now_us

    def nothing_is_new(self, now_us: Callable[[], int]) -> bool:
        """Whether the topics end where the last run has come to: then the next one need not begin.

        Asks the broker alone. False where the destination was not looked at for LOOKS_EVERY_US.
        """
        looked, now = self._looked_at_us, now_us()
        if looked is None or not 0 <= now - looked < LOOKS_EVERY_US:
            return False
        with self.connected() as admin:
            states = ask_topics(self._config, admin, now_us)
        ends = {
            state.topic: (
                state.topic_id,
                {partition: high for partition, (_, high) in state.partitions.items()},
            )
            for state in states
        }
        return ends == self._came_to

    def close(self) -> None:
        """Ends the connection."""
        if self._admin is not None:
            self._admin.__exit__(None, None, None)
            self._admin = None
