"""Step 4 of a run: proof that what was read is what was planned."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from pipeline.counted import counted
from pipeline.kafka_admin import KafkaAdmin
from pipeline.run.plan import Plan
from transforms.model.errors import GuaranteeError, TryAgainLater
from transforms.read.topic_identity import require_cluster


def prove_source(plan: Plan, kafka: KafkaAdmin, records: int) -> None:
    """Asks the broker again, after everything was read, whose records they were.

    records: how many were read, for the message where the broker does not answer.

    Each reader has asked which cluster it is, by the client that it reads by (PartitionReader), so
    it does not matter when `kafka` was connected, nor when the readers were.

    A topic that was deleted and created again delivers other records at the planned offsets, with
    no error. An id never comes back, so the planned one found now was there all the while. Raises
    GuaranteeError when the cluster, or a topic that was read, is another one by now, or cannot be
    looked up.
    """
    read = {
        part.topic: part.topic_id for part in plan.partitions if part.to_offset > part.read_from
    }
    if not read:
        return
    with _says_what_was_read(records):
        cluster_id = kafka.cluster_id()
    if plan.cluster_id is not None:
        require_cluster(plan.cluster_id, cluster_id)
    for topic, planned in sorted(read.items()):
        with _says_what_was_read(records):
            found = kafka.topic_id(topic)
        if planned is not None and found != planned:
            now = "no id that the broker tells" if found is None else f"the id {found}"
            raise GuaranteeError(
                f"topic {topic} was planned with the id {planned}, but after it was read it has"
                f" {now}: it was deleted and created again meanwhile, so its records cannot be told"
                " apart from those of the old one. Nothing of this run is visible, and what was not"
                " read of the old topic is lost. Start again: it says how to go on."
            )


@contextmanager
def _says_what_was_read(records: int) -> Iterator[None]:
    try:
        yield
    except GuaranteeError as error:
        again = " The next run reads them again." if isinstance(error, TryAgainLater) else ""
        raise type(error)(
            f"{error.message} {counted(records, 'record was', 'records were')} read in this"
            f" transaction, and nothing of it is visible.{again}"
        ) from error
