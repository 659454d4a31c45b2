"""The commands of Spark's Java servers, and of Beam's job server for it."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from runners.class_path import unsent_class_path
from runners.java import java_command
from runners.spark import version
from runners.spark.settings import TRIES, WORKER_HOSTS, SparkPorts, SparkSettings

MASTER: Final = "master"
WORKER: Final = "worker"
JOB_SERVER: Final = "job server"

_HEAP_MIB: Final = 256
"""Of a master or worker, which only starts executors."""

_LOGGING: Final = """\
status = error
appender.log.type = Console
appender.log.name = log
appender.log.layout.type = PatternLayout
appender.log.layout.pattern = %d{HH:mm:ss.SSS} %p %c{1}: %m%n%ex
rootLogger.level = warn
rootLogger.appenderRef.log.ref = log
logger.jobs.name = org.apache.beam.runners.jobsubmission
logger.jobs.level = info
logger.runner.name = org.apache.beam.runners.spark
logger.runner.level = info
logger.master.name = org.apache.spark.deploy
logger.master.level = info
"""

_HOLDS_BLOCKS: Final = "-XX:G1HeapRegionSize=16m"
"""With smaller regions each batch takes some of its own, and Java collects its heap for them."""

LOGGING_FILE: Final = "log4j2.properties"


def master_url(settings: SparkSettings, ports: SparkPorts) -> str:
    """What Spark calls a master: https://spark.apache.org/docs/3.5.5/submitting-applications.html."""
    if settings.cluster:
        return f"spark://{WORKER_HOSTS[0]}:{ports.master}"
    return f"local[{settings.cores},{TRIES}]"


def job_server(jars: Path, folder: Path, settings: SparkSettings, ports: SparkPorts) -> list[str]:
    """The command of Beam's job server, which is also the driver of Spark.

    jars: its class path. folder: of the servers. Raises Unavailable without Java.
    """
    own = {
        **version.SPARK_SETTINGS,
        "spark.master": master_url(settings, ports),
        "spark.ui.enabled": "false",
        "spark.driver.host": WORKER_HOSTS[0],
        "spark.driver.bindAddress": WORKER_HOSTS[0],
        "spark.local.dir": str(folder / "tmp"),
        # What a job of a kept context has cached is freed once the driver has forgotten it.
        "spark.cleaner.periodicGC.interval": "1min",
    }
    if settings.cluster:
        own |= {
            "spark.executor.memory": f"{settings.heap_mib}m",
            "spark.executor.cores": str(settings.cores_of_a_worker),
            "spark.cores.max": str(settings.cores_of_a_worker * len(WORKER_HOSTS)),
            "spark.executor.extraJavaOptions": " ".join(
                [*version.JAVA_FLAGS, _HOLDS_BLOCKS, _logging(folder)]
            ),
            "spark.task.maxFailures": str(TRIES),
        }
    if settings.keep_context:
        own["beam.spark.test.reuseSparkContext"] = "true"
    return [
        *_java(settings.job_server_heap_mib, folder),
        *(() if settings.cluster else (_HOLDS_BLOCKS,)),
        *(f"-D{key}={value}" for key, value in own.items()),
        # Else 300 MB of jars go to each executor at each run, and stay there.
        *unsent_class_path(jars, folder / "conf" / "class-path.jar"),
        version.JOB_SERVER,
        f"--job-host={WORKER_HOSTS[0]}",
        f"--job-port={ports.job_server}",
        "--artifact-port=0",
        "--expansion-port=0",
        f"--artifacts-dir={folder / 'artifacts'}",
        f"--spark-master-url={master_url(settings, ports)}",
    ]


def master(jars: Path, folder: Path, ports: SparkPorts) -> list[str]:
    """The command of a standalone master: https://spark.apache.org/docs/3.5.5/spark-standalone.html."""
    return [
        *_java(_HEAP_MIB, folder),
        "-Dspark.master.rest.enabled=false",
        # A worker that was killed is missed after 15 s, not 60.
        "-Dspark.worker.timeout=15",
        "-cp", f"{jars}/*", version.MASTER,
        "--host", WORKER_HOSTS[0],
        "--port", str(ports.master),
        "--webui-port", str(ports.master_page),
    ]  # fmt: skip


def worker(
    number: int, jars: Path, folder: Path, settings: SparkSettings, ports: SparkPorts
) -> list[str]:
    """The command of a worker, which starts an executor for each application. number: from 0."""
    return [
        *_java(_HEAP_MIB, folder),
        "-Dspark.worker.timeout=15",
        # What an application has left in its folder goes with it.
        "-Dspark.worker.cleanup.enabled=true",
        "-Dspark.worker.cleanup.appDataTtl=600",
        "-cp", f"{jars}/*", version.WORKER,
        "--host", WORKER_HOSTS[number],
        "--port", str(ports.workers[number]),
        "--webui-port", str(ports.worker_pages[number]),
        "--cores", str(settings.cores_of_a_worker),
        "--memory", f"{settings.heap_mib + _HEAP_MIB}m",
        "--work-dir", str(folder / "work"),
        master_url(settings, ports),
    ]  # fmt: skip


def environment_of_worker(number: int, folder: Path) -> dict[str, str]:
    """Variables that a worker needs to find Spark, and to stay on its own address."""
    return {
        "SPARK_HOME": str(folder / "home"),
        "SPARK_SCALA_VERSION": version.SCALA,
        "SPARK_LOCAL_IP": WORKER_HOSTS[number],
        "SPARK_LOCAL_DIRS": str(folder / "tmp"),
    }


def write_logging(folder: Path) -> None:
    """Writes what all servers are told to log."""
    (folder / "conf" / LOGGING_FILE).write_text(_LOGGING)


def _logging(folder: Path) -> str:
    return f"-Dlog4j2.configurationFile={folder / 'conf' / LOGGING_FILE}"


def _java(heap_mib: int, folder: Path) -> list[str]:
    return [
        java_command(),
        *version.JAVA_FLAGS,
        f"-Xmx{heap_mib}m",
        f"-Djava.io.tmpdir={folder / 'tmp'}",
        _logging(folder),
    ]
