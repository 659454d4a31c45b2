"""All that depends on the version of Spark, or of Beam's runner for it.

Spark 3.5.5 with Beam's runner 2.62.0 is the newest pair whose parts are all on Maven Central; a
runner for Spark 4 is not there.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

SPARK: Final = "3.5"
SCALA: Final = "2.12"
POM: Final = Path(__file__).with_name(f"spark-{SPARK}.pom.xml")

MASTER: Final = "org.apache.spark.deploy.master.Master"
WORKER: Final = "org.apache.spark.deploy.worker.Worker"
JOB_SERVER: Final = "org.apache.beam.runners.spark.SparkJobServerDriver"
EXECUTOR: Final = "CoarseGrainedExecutorBackend"
"""In the command line of each executor."""

# Spark's own list for Java 17. Fewer are enough until a Python worker is killed: then Spark dies
# while it serialises the failure, and the driver waits for ever.
# https://github.com/apache/spark/blob/v3.5.5/launcher/src/main/java/org/apache/spark/launcher/JavaModuleOptions.java
_OPENED: Final = (
    "java.base/java.lang",
    "java.base/java.lang.invoke",
    "java.base/java.lang.reflect",
    "java.base/java.io",
    "java.base/java.net",
    "java.base/java.nio",
    "java.base/java.util",
    "java.base/java.util.concurrent",
    "java.base/java.util.concurrent.atomic",
    "java.base/jdk.internal.ref",
    "java.base/sun.nio.ch",
    "java.base/sun.nio.cs",
    "java.base/sun.security.action",
    "java.base/sun.util.calendar",
    "java.security.jgss/sun.security.krb5",
)
JAVA_FLAGS: Final = (
    "-XX:+IgnoreUnrecognizedVMOptions",
    *(f"--add-opens={package}=ALL-UNNAMED" for package in _OPENED),
    "-Djdk.reflect.useDirectMethodHandle=false",
    "-Dio.netty.tryReflectionSetAccessible=true",
)

SPARK_SETTINGS: Final = {
    # Java's own serialisation cannot write what Beam keeps between two stages (RawUnionValue).
    "spark.serializer": "org.apache.spark.serializer.KryoSerializer",
    "spark.kryo.registrator": "org.apache.beam.runners.spark.coders.SparkRunnerKryoRegistrator",
}
"""What every job needs, of https://spark.apache.org/docs/3.5.5/configuration.html."""
