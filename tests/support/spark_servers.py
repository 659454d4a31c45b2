"""A real Spark for all tests of a pytest process: a job server, and a cluster for some of them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from runners.java import Unavailable, java_command
from runners.maven import jars_of
from runners.spark import version
from runners.spark.cluster import SparkServers
from runners.spark.settings import SparkSettings
from tests.support.child_process import ending_with_this_process
from tests.support.quick_java import ending_soon

SETTINGS = SparkSettings(cores=2, max_records_per_run=200_000)


def spark_jars() -> None:
    """Without Java or Maven the test is skipped, or fails where CI is set."""
    try:
        java_command()
        jars_of(version.POM, ending_with_this_process)
    except Unavailable as missing:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(missing))


def started(folder: Path, settings: SparkSettings) -> SparkServers:
    """As `spark_jars`, and then started."""
    spark_jars()
    servers = SparkServers(folder, launch=ending_soon)
    servers.start(settings)
    return servers


@pytest.fixture(scope="session")
def shared_spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SparkServers]:
    """A job server with Spark in it, until the end of the session."""
    servers = started(tmp_path_factory.mktemp("spark"), SETTINGS)
    try:
        yield servers
    finally:
        servers.stop()


@pytest.fixture
def spark(shared_spark: SparkServers) -> SparkServers:
    """The shared one, whole again whatever the test before has killed."""
    if not shared_spark.exists or not shared_spark.running():
        shared_spark.stop()
        shared_spark.start(SETTINGS)
    return shared_spark
