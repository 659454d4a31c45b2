"""Which topic of the ledger is which topic of the broker, and which ones have been adopted.

See transforms/model/topic_generations.py. Of each topic, the current generation is the highest one
in the newest record that counts. Older ones are carried from record to record and never read again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from typing import Any

from pipeline.kafka_admin import TopicState
from pipeline.options.config import AdoptTopic
from transforms.destinations.contract.run_ledger import (
    COMMITTED,
    PartitionProgress,
    RunRecord,
    clusters_of,
    last_claimed,
)
from transforms.model.coordinates import TopicPartition
from transforms.model.topic_generations import (
    current_generations,
    generation_of,
    kafka_topic,
    next_generation,
)

ACCEPT = "--on_data_loss=accept"


@dataclass(frozen=True)
class Generation:
    """One generation of one topic, as a record of the ledger has it.

    topic: its name in the ledger. topic_ids: Kafka's ids of it, none where no broker has told one.
    positions: partition -> the next offset to read.
    """

    topic: str
    topic_ids: frozenset[str]
    cluster_id: str | None
    positions: Mapping[int, int]


def topics_of(partitions: Iterable[PartitionProgress]) -> set[str]:
    """Their names in the ledger."""
    return {part.topic for part in partitions}


def generations_in(record: RunRecord) -> dict[str, Generation]:
    """Name in the ledger -> what the record says of the topic."""
    parts: dict[str, list[PartitionProgress]] = {}
    for part in record.partitions:
        parts.setdefault(part.topic, []).append(part)
    clusters = clusters_of(record)
    return {
        topic: Generation(
            topic,
            frozenset(part.topic_id for part in mine if part.topic_id is not None),
            clusters[topic],
            {part.partition: part.to_offset for part in mine},
        )
        for topic, mine in parts.items()
    }


def current_of(record: RunRecord) -> dict[str, Generation]:
    """Name in Kafka -> the current generation."""
    there = generations_in(record)
    return {name: there[topic] for name, topic in current_generations(there).items()}


def under_their_names(states: Sequence[TopicState], runs: Sequence[RunRecord]) -> list[TopicState]:
    """The states with the names that the ledger has for the current generations.

    runs: the chain, empty where no run has been.
    """
    record = last_claimed(runs) if runs else None
    names = current_generations(topics_of(record.partitions)) if record else {}
    return [replace(state, topic=names.get(state.topic, state.topic)) for state in states]


def known_ids(record: RunRecord, name: str) -> set[str | None]:
    """Kafka's ids of every generation. name: the topic's name in Kafka."""
    return {part.topic_id for part in _of_topic(record, name)}


def _of_topic(record: RunRecord, name: str) -> list[PartitionProgress]:
    return [part for part in record.partitions if kafka_topic(part.topic) == name]


def flag_of(state: TopicState, record: RunRecord) -> AdoptTopic | None:
    """The flag that adopts the topic that the broker has now.

    None where it tells no id, or the record does not know the topic.
    A topic that has moved back has an id that the ledger knows. A flag that was given long ago, and
    was left in a unit file, has the same id, so the flag must name the generation then.
    """
    name = kafka_topic(state.topic)
    current = current_generations(topics_of(_of_topic(record, name))).get(name)
    if state.topic_id is None or current is None:
        return None
    known = state.topic_id in known_ids(record, name)
    number = generation_of(next_generation(current)) if known else None
    return AdoptTopic(name, state.topic_id, number)


def way_on(state: TopicState, record: RunRecord, command: str) -> str:
    """What to do about a topic that was created again, as the end of a refusal.

    command: the one that is to go on, such as "run". A topic that has kept its id is the same one,
    so adopting it would not help.
    """
    otherwise = "Use a new topic name, or a new destination."
    flag = flag_of(state, record)
    mine = [part for part in record.partitions if part.topic == state.topic]
    if flag is None or state.topic_id in {part.topic_id for part in mine}:
        return otherwise
    return (
        f"`{command} {flag} {ACCEPT}` goes on with the new one from its beginning, and gives up"
        f" what was not read of the old one. Or: {otherwise[0].lower()}{otherwise[1:]}"
    )


def group_offsets(record: RunRecord) -> dict[TopicPartition, int]:
    """What the consumer group is to show, under the names in Kafka.

    Older generations, and topics of other clusters, mean nothing to the broker that was read.
    """
    current = current_generations(topics_of(record.partitions)).values()
    clusters = clusters_of(record)
    return {
        (kafka_topic(part.topic), part.partition): part.to_offset
        for part in record.partitions
        if part.topic in current and clusters[part.topic] == record.cluster_id
    }


@dataclass(frozen=True)
class Adoption:
    """A new generation that a run has begun, and where the old one ends.

    topic: the name in Kafka. generation: the name in coordinates from here on. positions: partition
    of the old one -> the first offset that was not read.
    """

    run_id: str
    topic: str
    generation: str
    old_topic_id: str | None
    old_cluster_id: str | None
    topic_id: str | None
    cluster_id: str | None
    positions: Mapping[int, int]

    def figures(self) -> dict[str, Any]:
        """For JSON."""
        positions = [
            {"partition": partition, "position": position}
            for partition, position in sorted(self.positions.items())
        ]
        return {**asdict(self), "positions": positions}


def adoptions(runs: Sequence[RunRecord]) -> list[Adoption]:
    """Each generation behind the first one, with the COMMITTED run that began it.

    runs: the chain in its order. Positions are those of the newest record, as a stop may have moved
    those of a topic whose job was taken over.
    """
    found = []
    committed = [run for run in runs if run.status == COMMITTED]
    newest = generations_in(committed[-1]) if committed else {}
    for before, run in pairwise(committed):
        for topic in sorted(topics_of(run.partitions) - topics_of(before.partitions)):
            if (last := current_of(before).get(kafka_topic(topic))) is None:
                continue
            new = generations_in(run)[topic]
            found.append(
                Adoption(
                    run.run_id,
                    kafka_topic(topic),
                    topic,
                    min(last.topic_ids, default=None),
                    last.cluster_id,
                    min(new.topic_ids, default=None),
                    new.cluster_id,
                    newest.get(last.topic, last).positions,
                )
            )
    return found
