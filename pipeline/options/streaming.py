"""The options of a streaming job, checked together."""

from __future__ import annotations

import re
from argparse import Namespace
from typing import Final

from pipeline.options.config import StreamingConfig
from pipeline.options.quantities import parse_whole
from runners.profile import RunnerProfile
from runners.spark.profile import CORES
from transforms.model.errors import UsageError

_ONLY_STREAMING: Final = ("topic_pattern", "restore", "from_tables", "detach", "metrics_port")

_ONLY_BOUNDED: Final = {
    "max_records_per_run": "a job writes at once, and cuts no transactions. Leave it out.",
    "max_rejected_rate": "a job writes each row at once, so there is nothing to hold back where too"
    " many are rejected. Leave it out; the metric `rejected` and `check --max_rejected_rate` show"
    " them, and `preflight` judges the newest records before the job begins.",
    "group_id": "a job commits no offsets of a group, so lag monitors would see none. Leave it out;"
    " `status` shows how far the job is, and what waits in Kafka.",
    "state_dir": "a job keeps its ids in its checkpoints. Leave it out.",
    "every": "a job reads for ever anyway. Leave one of them out.",
}
"""Options of `run` that mean nothing for a streaming job, and why."""

SHARDS_OF_A_PROCESS: Final = 4
"""Each shard costs an append of each table in every transaction or bundle, however small."""


def streaming_of(given: Namespace, profile: RunnerProfile) -> StreamingConfig | None:
    """None for a bounded run.

    given: the parsed arguments of `run`, which the profile has accepted. Raises UsageError naming
    the flag and the fix.
    """
    if not given.streaming:
        for name in _ONLY_STREAMING:
            if value := getattr(given, name):
                text = f"--{name}" if value is True else f"--{name}={value}"
                raise UsageError(
                    f"{text} without --streaming: only a streaming job has it. Leave it out, or"
                    " add --streaming."
                )
        return None
    for name, reason in _ONLY_BOUNDED.items():
        if (value := getattr(given, name)) is not None:
            raise UsageError(f"--{name}={value} with --streaming: {reason}")
    if given.restore is not None and given.from_tables:
        raise UsageError(
            f"--restore={given.restore} with --from_tables: a job begins with a checkpoint or"
            " without one. Leave one of them out."
        )
    if given.restore == "":
        raise UsageError("--restore=: must be the path of a checkpoint or savepoint, or latest.")
    in_this_process = profile.in_one_process(vars(given))
    if given.detach and in_this_process:
        raise UsageError(
            "--detach with --environment_type=LOOPBACK: this process is the worker, so the job"
            " ends with it. Leave --detach out, or use --environment_type=EXTERNAL."
        )
    metrics_port = None
    if given.metrics_port is not None:
        metrics_port = parse_whole("metrics_port", given.metrics_port, 1, 65_535)
        if given.detach:
            raise UsageError(
                f"--metrics_port={metrics_port} with --detach: the port ends with this process,"
                " which does not stay. Leave one of them out; docs/metrics.md shows Flink's own"
                " reporter for Prometheus."
            )
    if given.topic_pattern is not None:
        try:
            re.compile(given.topic_pattern)
        except re.error as error:
            raise UsageError(
                f"--topic_pattern={given.topic_pattern}: no regular expression ({error})."
                " Correct it; `payments-.*` matches every name that begins with payments-."
            ) from error
    return StreamingConfig(
        topic_pattern=given.topic_pattern,
        restore=given.restore,
        from_tables=given.from_tables,
        detach=given.detach,
        flink_master=given.flink_master.removeprefix("http://"),
        in_this_process=in_this_process,
        parallelism=max(1, int(given.parallelism or 1)),
        shards_given=given.shards is not None,
        metrics_port=metrics_port,
    )


def shards_of(given: Namespace, streaming: StreamingConfig | None) -> int:
    """The number of hash ranges. given: the parsed arguments. Raises UsageError."""
    processes = 1
    if streaming is not None and not streaming.in_this_process:
        processes = streaming.parallelism
    # A shard is one task; fewer shards than cores would leave some idle.
    cores = int(getattr(given, CORES) or 1)
    default = str(max(SHARDS_OF_A_PROCESS * processes, cores))
    return parse_whole("shards", given.shards or default, 1, 4096)
