"""Each topic of the ledger stays in its cluster, and its generations follow one another."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pipeline.run.generations import topics_of
from transforms.destinations.contract.ownership import STOP, ownership_of
from transforms.destinations.contract.run_ledger import (
    ABORTED,
    PartitionProgress,
    RunRecord,
    clusters_of,
)
from transforms.model.coordinates import TopicPartition
from transforms.model.topic_generations import (
    current_generations,
    generation_of,
    kafka_topic,
    next_generation,
)


def topic_problems(
    run: RunRecord, clusters: dict[str, str], before: Mapping[TopicPartition, PartitionProgress]
) -> Iterator[dict[str, Any]]:
    """What contradicts the records before.

    clusters: topic -> its cluster, as far as the chain has said it; what this record says is added.
    before: the partitions of the last COMMITTED record.
    """
    if run.status == ABORTED:
        # What nothing is visible of may be decided anew, and otherwise.
        clusters = dict(clusters)
    there = clusters_of(run)
    if there and run.cluster_id is not None and run.cluster_id not in there.values():
        yield {"problem": f"none of its topics is in its cluster {run.cluster_id}"}
    for topic, cluster in sorted(there.items()):
        if cluster is not None and clusters.setdefault(topic, cluster) != cluster:
            yield {"topic": topic, "problem": f"cluster {cluster} after {clusters[topic]}"}
    known = topics_of(before.values())
    current = current_generations(known)
    for topic in sorted(there.keys() - known):
        last = current.get(kafka_topic(topic))
        first_of_it = last is None and generation_of(topic) == 1
        if not first_of_it and (last is None or topic != next_generation(last)):
            yield {"topic": topic, "problem": f"the generation after {last}"}
    ends = current_generations(there)
    found = ownership_of(run)
    if found is not None and found.kind == STOP:
        # What each job since the first BEGIN has read, also before a later one adopted a topic.
        return
    for part in run.partitions:
        if part.to_offset > part.from_offset and part.topic != ends[kafka_topic(part.topic)]:
            yield {
                "topic": part.topic,
                "partition": part.partition,
                "problem": f"read although {ends[kafka_topic(part.topic)]} had followed it",
            }
        if part.to_offset > part.from_offset and there[part.topic] != run.cluster_id:
            yield {
                "topic": part.topic,
                "partition": part.partition,
                "problem": f"read from {run.cluster_id}, but it is in {there[part.topic]}",
            }
