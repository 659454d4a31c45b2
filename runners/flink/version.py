"""All that depends on the version of Flink, or of Beam's runner for it.

Flink 1.19 with Beam's runner 2.70.0 is the newest pair on Maven Central whose parts are all there;
the job service of 2.70.0 is not, so 2.65.0 stands in for it (flink-1.19.pom.xml). A cluster in
production takes the job-server image of the SDK's own version:
https://hub.docker.com/r/apache/beam_flink1.19_job_server
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

FLINK: Final = "1.19"
POM: Final = Path(__file__).with_name(f"flink-{FLINK}.pom.xml")

JOB_MANAGER: Final = "org.apache.flink.runtime.entrypoint.StandaloneSessionClusterEntrypoint"
TASK_MANAGER: Final = "org.apache.flink.runtime.taskexecutor.TaskManagerRunner"
JOB_SERVER: Final = "org.apache.beam.runners.flink.FlinkJobServerDriver"

# Flink 1.19 and Beam reach into packages that Java 17 closes:
# https://nightlies.apache.org/flink/flink-docs-release-1.19/docs/deployment/java_compatibility/
_OPENED: Final = (
    "java.lang",
    "java.lang.invoke",
    "java.lang.reflect",
    "java.io",
    "java.net",
    "java.nio",
    "java.text",
    "java.time",
    "java.util",
    "java.util.concurrent",
    "sun.nio.ch",
)
JAVA_FLAGS: Final = tuple(f"--add-opens=java.base/{package}=ALL-UNNAMED" for package in _OPENED)

CONFIGURATION_FILE: Final = "flink-conf.yaml"
