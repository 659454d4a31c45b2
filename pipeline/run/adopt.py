"""Step 2 of a run with --adopt_topic: a topic that has moved goes on as a new generation.

Nothing is written here. The new generation is in the run's record, so its claim decides about it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from pipeline.kafka_admin import TopicState
from pipeline.options.config import AdoptTopic
from pipeline.run.generations import ACCEPT, Generation, current_of, flag_of, known_ids
from transforms.destinations.contract.run_ledger import RunRecord, last_claimed
from transforms.model.errors import GuaranteeError
from transforms.model.topic_generations import generation_of, kafka_topic, next_generation


def adopt_topics(
    wanted: Sequence[AdoptTopic],
    states: Sequence[TopicState],
    runs: Sequence[RunRecord],
    cluster_id: str | None,
    accept_data_loss: bool,
) -> list[TopicState]:
    """The states, those of adopted topics under the name of the next generation.

    states: under the names of the ledger. runs: the chain, empty where no run has been. cluster_id:
    of the broker. Raises GuaranteeError where a flag can adopt nothing and is not one that was left
    over, and where the loss is not accepted.
    """
    record = last_claimed(runs) if runs else None
    current = current_of(record) if record else {}
    adopted: dict[str, Generation] = {}
    for flag in wanted:
        state = next(state for state in states if kafka_topic(state.topic) == flag.topic)
        old = current.get(flag.topic)
        if old is None or record is None:
            raise GuaranteeError(
                f"{flag}: this destination has read nothing of a topic {flag.topic} yet, so there"
                " is nothing to go on from. Leave --adopt_topic out."
            )
        if _adopts(flag, state, old, record, cluster_id):
            adopted[state.topic] = old
    if adopted and not accept_data_loss:
        raise GuaranteeError("\n".join(map(_loss, adopted.values())))
    return [
        replace(state, topic=next_generation(state.topic)) if state.topic in adopted else state
        for state in states
    ]


def is_on(cluster_id: str | None, known: str | None) -> bool:
    """Whether a topic is on the broker's cluster. known: as the ledger has it, None: unknown."""
    return known is None or known == cluster_id


def _adopts(
    flag: AdoptTopic,
    state: TopicState,
    old: Generation,
    record: RunRecord,
    cluster_id: str | None,
) -> bool:
    """False for a flag that has done its work already."""
    if flag.topic_id in old.topic_ids and is_on(cluster_id, old.cluster_id):
        return False
    right = flag_of(state, record)
    if right is None:
        raise GuaranteeError(
            f"{flag}: the broker tells no id of topic {flag.topic}, so it cannot be known whether"
            " this is the topic that is meant, nor noticed when it is created again. Use a new"
            " topic name, or a new destination."
        )
    if flag.topic_id != right.topic_id:
        if flag.topic_id in known_ids(record, flag.topic):
            return False
        if right.topic_id in old.topic_ids and is_on(cluster_id, old.cluster_id):
            raise GuaranteeError(
                f"{flag}: the topic has the id {right.topic_id}, as it was read, so there is"
                " nothing to adopt. Leave --adopt_topic out."
            )
        raise GuaranteeError(
            f"{flag}: the topic that is there now has the id {right.topic_id}. If it is the one"
            f" that is meant, use {right}."
        )
    following = generation_of(next_generation(old.topic))
    if flag.generation != right.generation and flag.generation != following:
        raise GuaranteeError(
            f"{flag}: topic {flag.topic} goes on as generation {following} here. An id that was"
            " adopted before is taken for a flag that was left over, unless the flag says so. If"
            f" this topic is the one that is meant, use {right}."
        )
    return True


def _loss(old: Generation) -> str:
    read = ", ".join(
        f"{position} of partition {partition}"
        for partition, position in sorted(old.positions.items())
    )
    return (
        f"topic {kafka_topic(old.topic)} (id {', '.join(sorted(old.topic_ids)) or 'unknown'}, Kafka"
        f" cluster {old.cluster_id or 'unknown'}) was read up to offset {read}. What came behind,"
        " if anything, is lost, and how much that is cannot be known. --on_data_loss=fail is in"
        f" force; {ACCEPT} goes on with the new topic from its beginning, as"
        f" {next_generation(old.topic)}."
    )
