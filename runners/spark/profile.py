"""SparkRunner: bounded runs, exactly once by the run protocol, on a Spark that people have.

Options: https://beam.apache.org/documentation/runners/spark/#pipeline-options-for-the-spark-runner
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from runners.portable import (
    EXTERNAL,
    LOOPBACK,
    STATE_CACHE,
    is_false,
    is_true,
    misused_pool,
    needs_job_server,
    not_shown,
    whole,
)
from runners.profile import Refusal, RunnerFlag, RunnerProfile
from runners.spark.run import NO_PROGRESS, look_at_job_server, run_on_spark
from runners.worker_end import broken_connections_hidden

PROCESS: Final = "PROCESS"

CORES: Final = "spark_cores"
"""Flag of ours: the client of a job server cannot find out how many there are."""

_DEFAULT_MASTER: Final = "local[4]"
"""Beam's own value where none is given."""

_UP: Final = "payment-pipeline spark up"

_LEVELS: Final = (
    "MEMORY_AND_DISK",
    "MEMORY_AND_DISK_SER",
    "DISK_ONLY",
    "MEMORY_ONLY",
    "MEMORY_ONLY_SER",
)

_FLAGS: Final = (
    RunnerFlag(
        NO_PROGRESS,
        "seconds without any progress after which a run is cancelled and tried again (600); with"
        " PROCESS no progress is seen from here, so a transaction must be faster",
        "600",
        whole(10),
        "must be a whole number of seconds from 10 on. Correct it, or leave the option out.",
    ),
    RunnerFlag(
        "storage_level",
        "where Spark keeps what lies between two stages (MEMORY_AND_DISK)",
        # What is evicted from memory alone is evaluated again, which reads Kafka again.
        "MEMORY_AND_DISK",
        lambda value: value in _LEVELS,
        f"allowed are {', '.join(_LEVELS)}. Correct it, or leave the option out.",
    ),
    RunnerFlag(
        "cache_disabled",
        "keep nothing between two stages: each is evaluated again, and Kafka is read again (false)",
        None,
        lambda value: is_true(value) or is_false(value),
        "must be true or false. Correct it, or leave the option out.",
    ),
    RunnerFlag(
        CORES,
        "tasks that Spark runs at the same time: a large run has as many shards, but at least 4",
        None,
        whole(1),
        "must be a whole number from 1 on. Correct it, or leave the option out.",
    ),
    RunnerFlag(
        "bundle_size",
        "elements of a partition of what is created (0: Spark decides)",
        None,
        whole(0),
        "must be a whole number. Correct it, or leave the option out.",
    ),
    RunnerFlag(
        "enable_spark_metric_sinks",
        "send Beam's counters to Spark's sinks as well (true)",
        None,
        lambda value: is_true(value) or is_false(value),
        "must be true or false. Correct it, or leave the option out.",
    ),
)

_REFUSALS: Final = (
    Refusal(
        "streaming",
        None,
        "a stage with state and timers cannot run on Beam's portable Spark runner in streaming"
        " mode, and a bounded graph submitted with it never ends. Use --every=10s for a job that"
        " never ends, or --runner=FlinkRunner.",
    ),
    Refusal(
        "output_executable_path",
        None,
        "one run's plan would go into a jar, the command would end at once, and whoever starts the"
        " jar would write that run again. Use --job_endpoint=HOST:PORT and leave the option out.",
    ),
    Refusal(
        "experiments",
        "use_loopback_process_worker",
        "no test has shown the guarantee with it. Use --environment_type=PROCESS for workers that"
        " are processes of their own.",
    ),
    needs_job_server("spark_job_server_jar", _UP),
    needs_job_server("spark_submit_uber_jar", _UP),
    needs_job_server("spark_rest_url", _UP),
    STATE_CACHE,
    not_shown("DOCKER", "PROCESS (each executor starts Python workers) or EXTERNAL (worker pools)"),
)


def _misused(options: Mapping[str, Any]) -> str | None:
    endpoint = str(options.get("job_endpoint") or "")
    if not endpoint:
        return (
            "--job_endpoint is missing: Beam's job server, which hands the run to Spark. Give it as"
            " HOST:PORT; `payment-pipeline spark up` starts one on this machine and prints it."
        )
    if not endpoint.rpartition(":")[2].isdigit():
        return f"--job_endpoint={endpoint}: must be HOST:PORT, such as localhost:8099."
    master = options.get("spark_master_url")
    if master not in (None, _DEFAULT_MASTER):
        return (
            f"--spark_master_url={master}: the job server at --job_endpoint decides it, and would"
            " ignore the option. Leave it out, and start the job server with it"
            " (`payment-pipeline spark up`, or --spark-master-url of your own one; a local master"
            " as local[N,4], since a plain local[N] never tries a task again)."
        )
    environment = options.get("environment_type")
    config = str(options.get("environment_config") or "")
    if environment not in (None, LOOPBACK, PROCESS, EXTERNAL):
        return f"--environment_type={environment}: allowed are LOOPBACK, PROCESS and EXTERNAL."
    if environment == PROCESS:
        return _misused_command(config)
    if environment == EXTERNAL:
        return misused_pool(
            config,
            "`python -m runners.worker_pool 50000` starts one, on 127.0.0.1; each machine of Spark"
            " needs one at that address.",
        )
    return None


def _misused_command(config: str) -> str | None:
    if not config:
        return (
            "--environment_config is missing: with --environment_type=PROCESS it names the command"
            ' that starts a Python worker on every executor, as {"command": "/path/of/it"}.'
            " `payment-pipeline spark up` writes one for this machine and prints it."
        )
    try:
        command = json.loads(config)["command"]
    except (ValueError, KeyError, TypeError):
        command = None
    if not isinstance(command, str) or not command:
        return (
            f"--environment_config={config}: must be JSON with the path of a command, as"
            ' {"command": "/path/of/it"}.'
        )
    return None


def _in_one_process(options: Mapping[str, Any]) -> bool:
    # With LOOPBACK the workers are threads of the client.
    return options.get("environment_type") in (None, LOOPBACK)


SPARK: Final = RunnerProfile(
    name="SparkRunner",
    beam_runner="SparkRunner",
    refusals=_REFUSALS,
    flags=_FLAGS,
    defaults={
        "environment_type": LOOPBACK,
        # Else new Python workers start for each stage, even for each key. They stay as long behind
        # a job too, so it is no longer than what may lie between two stages.
        "environment_cache_millis": "3000",
    },
    # Each submission would begin with a `pip freeze` of 0.4 s.
    experiments=("disable_logging_submission_environment",),
    misused=_misused,
    in_one_process=_in_one_process,
    bundle_per_key=True,
    spreads_input=True,
    run=run_on_spark,
    look=look_at_job_server,
    # With LOOPBACK, Beam prints each broken connection here, and more than once: also between two
    # runs, when Spark lets go of a worker that it has kept for the next job.
    session=broken_connections_hidden,
)
