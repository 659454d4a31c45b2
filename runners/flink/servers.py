"""The commands of a cluster's Java servers."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from runners.class_path import unsent_class_path
from runners.flink import version
from runners.flink.configuration import ClusterPorts, ClusterSettings
from runners.java import java_command

JOB_MANAGER: Final = "JobManager"
TASK_MANAGER: Final = "TaskManager"
JOB_SERVER: Final = "job server"


def java_server(
    role: str, jars: Path, folder: Path, settings: ClusterSettings, ports: ClusterPorts
) -> list[str]:
    """The command of one of the roles above.

    jars: its class path. folder: of the cluster; conf/ in it has the configuration. Raises
    Unavailable without Java.
    """
    configuration = folder / "conf"
    class_path = ["-cp", f"{jars}/*"]
    if role == JOB_SERVER:
        class_path = unsent_class_path(jars, folder / "conf" / "class-path.jar")
        heap, main = settings.job_server_heap_mib, version.JOB_SERVER
        arguments = [
            "--job-host=127.0.0.1",
            f"--job-port={ports.job_server}",
            "--artifact-port=0",
            "--expansion-port=0",
            f"--flink-master=127.0.0.1:{ports.rest}",
            f"--artifacts-dir={folder / 'artifacts'}",
            f"--flink-conf-dir={configuration}",
        ]
    else:
        arguments = [f"--configDir={configuration}"]
        if role == JOB_MANAGER:
            heap, main = settings.job_manager_heap_mib, version.JOB_MANAGER
        else:
            heap, main = settings.task_manager_java_heap_mib, version.TASK_MANAGER
    return [
        java_command(),
        *version.JAVA_FLAGS,
        # The others have little to do, and start faster with a simple collector and compiler.
        *(["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"] if role != TASK_MANAGER else []),
        f"-Xmx{heap}m",
        f"-Djava.io.tmpdir={folder / 'tmp'}",
        "-Dorg.slf4j.simpleLogger.showDateTime=true",
        "-Dorg.slf4j.simpleLogger.dateTimeFormat=HH:mm:ss.SSS",
        *class_path,
        main,
        *arguments,
    ]
