"""A real Flink cluster for all tests of a pytest process, and a job without Kafka to run on it."""

import os
from collections.abc import Iterator

import pytest

from runners.flink.cluster import FlinkCluster
from runners.flink.configuration import ClusterSettings
from runners.java import Unavailable
from tests.support.quick_java import ending_soon

SETTINGS = ClusterSettings(
    slots=2, worker_pools=1, task_manager_heap_mib=768, managed_mib=128, job_manager_heap_mib=256
)


@pytest.fixture(scope="session")
def shared_flink_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FlinkCluster]:
    """Runs until the end of the session. Without Java or Maven its tests are skipped, or fail
    where CI is set.
    """
    cluster = FlinkCluster(tmp_path_factory.mktemp("flink"), launch=ending_soon)
    try:
        cluster.start(SETTINGS)
    except Unavailable as missing:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(missing))
    try:
        yield cluster
    finally:
        cluster.stop()


@pytest.fixture
def flink_cluster(shared_flink_cluster: FlinkCluster) -> Iterator[FlinkCluster]:
    """The shared cluster, whole again whatever the test before has killed. Jobs of a test end
    with it.
    """
    cluster = shared_flink_cluster
    whole = 3 + SETTINGS.worker_pools
    if not (cluster.exists and len(cluster.running()) == len(cluster.processes) == whole):
        cluster.stop()
        cluster.start(SETTINGS)
    yield cluster
    if cluster.exists and len(cluster.running()) == whole:
        for job in cluster.rest.running_jobs():
            cluster.rest.cancel(job["jid"])
