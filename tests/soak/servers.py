"""The broker and the Flink cluster that the schedules of a soak test share."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from confluent_kafka.admin import AdminClient, NewTopic

from runners.flink.cluster import FlinkCluster
from runners.flink.configuration import CHECKPOINTS, SAVEPOINTS
from runners.flink.rest import FlinkUnreachable
from runners.flink.servers import TASK_MANAGER
from runners.processes import ClusterFailed
from tests.support.child_process import ending_with_this_process
from tests.support.flink_cluster import SETTINGS
from tests.support.kafka_broker import KafkaBroker, running_broker


@dataclass
class Servers:
    """The cluster has one worker pool."""

    broker: KafkaBroker
    cluster: FlinkCluster

    def create_topic(self, name: str, partitions: int) -> None:
        """Raises KafkaException where it exists."""
        admin = AdminClient({"bootstrap.servers": self.broker.bootstrap_servers})
        admin.create_topics([NewTopic(name, partitions, 1)])[name].result(30)

    def make_whole(self) -> None:
        """The cluster as it was started, without jobs and checkpoints."""
        cluster = self.cluster
        for job in cluster.rest.running_jobs():
            cluster.rest.cancel(job["jid"])
        while len(cluster.running(TASK_MANAGER)) > SETTINGS.task_managers:
            cluster.kill_task_manager()
        if len(cluster.running()) != len(cluster.processes):
            cluster.stop()
            cluster.start(SETTINGS)
        cluster.wait_for_task_managers(SETTINGS.task_managers)
        for name in (CHECKPOINTS, SAVEPOINTS):
            for left in (cluster.folder / name).iterdir():
                shutil.rmtree(left)

    def write_jobs(self, place: Path) -> None:
        """What Flink knows of its jobs: state, checkpoints and failures, newest first."""
        rest = self.cluster.rest
        try:
            place.write_text(
                "\n".join(
                    f"{job['jid']} {job['name']} {job['state']}"
                    f" {rest.checkpoints(job['jid'])['counts']}\n"
                    + "\n".join(rest.exceptions(job["jid"]))
                    for job in rest.jobs()
                )
            )
        except (ClusterFailed, FlinkUnreachable) as error:
            place.write_text(f"Flink does not answer: {error}")


@contextmanager
def running_servers(folder: Path) -> Iterator[Servers]:
    """Started in a folder; none is left at the end, and their logs stay."""
    folder.mkdir(parents=True, exist_ok=True)
    with running_broker(folder / "broker") as broker:
        cluster = FlinkCluster(folder / "flink", launch=ending_with_this_process)
        cluster.start(SETTINGS)
        try:
            yield Servers(broker, cluster)
        finally:
            cluster.stop()
