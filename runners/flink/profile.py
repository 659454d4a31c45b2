"""FlinkRunner: streaming, exactly once, on a Flink cluster.

Options: https://beam.apache.org/documentation/runners/flink/#pipeline-options-for-the-flink-runner
"""

from __future__ import annotations

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

_NEEDS_CHECKPOINTS: Final = (
    "a restart goes back to a checkpoint, and without complete ones in a place that outlives the"
    " job nothing can be restored. Leave the option out."
)
_UP: Final = "payment-pipeline flink up"

_FLAGS: Final = (
    RunnerFlag(
        "checkpointing_interval",
        "milliseconds from one checkpoint to the next (2000)",
        "2000",
        whole(10),
        "must be a whole number of milliseconds from 10 on: " + _NEEDS_CHECKPOINTS,
    ),
    RunnerFlag(
        "min_pause_between_checkpoints",
        # Behind a restore the second checkpoint names files of the first one. A step that has not
        # yet heard that the first is complete names those of the restored one instead, which Flink
        # has forgotten, and the checkpoint is lost ("Attempt to reference unknown state").
        "milliseconds from the end of a checkpoint to the next (1500)",
        "1500",
        whole(0),
        "must be a whole number of milliseconds. Correct it, or leave the option out.",
    ),
    RunnerFlag(
        "checkpoint_timeout_millis",
        # A start without a checkpoint loads the ids within a bundle, and the first checkpoint waits
        # for it: 45 s at 36 million ids (benchmarks/README.md, many_ids), once more for a bundle
        # that brings further shards, and minutes on busy cores. Given up before, the job restarts
        # and loads again, until it has failed. So it is as long as Flink's own default:
        # https://nightlies.apache.org/flink/flink-docs-release-1.19/docs/deployment/config/#execution-checkpointing-timeout
        "milliseconds after which a checkpoint is given up, and the job restarts (600000)",
        "600000",
        whole(1_000),
        "must be a whole number of milliseconds from 1000 on. Correct it, or leave it out.",
    ),
    RunnerFlag(
        "max_bundle_time_mills",
        "milliseconds that a bundle collects: more costs latency, less costs speed (50)",
        "50",
        whole(1),
        "must be a whole number of milliseconds from 1 on. Correct it, or leave the option out.",
    ),
    RunnerFlag(
        "max_bundle_size",
        "elements that a bundle collects at most (100000)",
        "100000",
        whole(1),
        "must be a whole number from 1 on. Correct it, or leave the option out.",
    ),
    RunnerFlag(
        "finish_bundle_before_checkpointing",
        "always set: else one start in four waits for ever",
        "true",
        is_true,
        "without it the output of a bundle that is open at a checkpoint stays where it is until"
        " the next bundle, and a step that has no next one waits for ever. Leave the option out.",
    ),
    RunnerFlag(
        "externalized_checkpoints_enabled",
        "always set: checkpoints outlive the job",
        "true",
        is_true,
        _NEEDS_CHECKPOINTS,
    ),
    RunnerFlag(
        "retain_externalized_checkpoints_on_cancellation",
        "always set: else Flink deletes all checkpoints of a job that is cancelled",
        "true",
        is_true,
        _NEEDS_CHECKPOINTS,
    ),
    RunnerFlag(
        "num_concurrent_checkpoints",
        "always 1",
        "1",
        lambda value: value == "1",
        "with more than one at a time a checkpoint begins before the last one is complete, and no"
        " test has shown the guarantee then. Use --checkpointing_interval for more of them.",
    ),
    RunnerFlag(
        "checkpointing_mode",
        "always EXACTLY_ONCE",
        "EXACTLY_ONCE",
        lambda value: value == "EXACTLY_ONCE",
        "a record could be in the state and be read again. Leave the option out.",
    ),
    *(
        RunnerFlag(
            name,
            "never set",
            None,
            is_false,
            "an unaligned checkpoint holds records between the steps, which are then processed"
            " after a restore by a state that has seen later ones. Leave the option out.",
        )
        for name in ("unaligned_checkpoint_enabled", "force_unaligned_checkpoint_enabled")
    ),
    RunnerFlag(
        "number_of_execution_retries",
        "restarts of a failed job, in place of the cluster's own strategy",
        None,
        whole(1),
        "a job that is not restarted stops at the first lost worker. Give a number from 1 on, or"
        " leave the option out: the cluster's strategy holds then.",
    ),
    RunnerFlag(
        "savepoint_path",
        "never set: --restore does it",
        None,
        lambda value: False,
        "a restore must first take the tables over from the job before. Use --restore=PATH, or"
        " --restore=latest.",
    ),
    RunnerFlag(
        "allow_non_restored_state",
        "never set",
        None,
        is_false,
        "state that finds no step would be dropped, and ids with it: copies of a payment would"
        " pass. Leave the option out; --from_tables goes on without a checkpoint.",
    ),
)

_REFUSALS: Final = (
    Refusal(
        "flink_master",
        "[local]",
        "a Flink inside the job server cannot restore a checkpoint. Use"
        " --flink_master=HOST:PORT; `payment-pipeline flink up` starts a cluster.",
    ),
    needs_job_server("flink_job_server_jar", _UP),
    needs_job_server("flink_submit_uber_jar", _UP),
    needs_job_server("output_executable_path", _UP),
    STATE_CACHE,
    *(not_shown(kind, "EXTERNAL (worker pools)") for kind in ("DOCKER", "PROCESS")),
)


def _misused(options: Mapping[str, Any]) -> str | None:
    if not options.get("streaming"):
        return (
            "--runner=FlinkRunner without --streaming: no test has shown that a bounded run ends"
            " exact on Flink. Add --streaming, or use --runner=DirectRunner for a bounded run."
        )
    for name, what in (
        ("flink_master", "Flink's REST address, which is asked where checkpoints go"),
        ("job_endpoint", "Beam's job server, which hands the job to Flink"),
    ):
        value = str(options.get(name) or "")
        port = value.removeprefix("http://").rpartition(":")[2]
        if value in ("", "[auto]"):
            return (
                f"--{name} is missing: {what}. Give it as HOST:PORT; `payment-pipeline flink up`"
                " starts both on this machine and prints them."
            )
        if not port.isdigit():
            return f"--{name}={value}: must be HOST:PORT, such as localhost:8081."
    environment = options.get("environment_type")
    if environment not in (None, LOOPBACK, EXTERNAL):
        return f"--environment_type={environment}: allowed are LOOPBACK and EXTERNAL."
    if environment == EXTERNAL:
        return misused_pool(
            str(options.get("environment_config") or ""),
            "`payment-pipeline flink up --worker_pools=1` starts one.",
        )
    return None


def _in_one_process(options: Mapping[str, Any]) -> bool:
    # With LOOPBACK the worker pool is in the client, and its workers are threads of it, unless this
    # experiment makes processes of them.
    return options.get("environment_type") in (
        None,
        LOOPBACK,
    ) and "use_loopback_process_worker" not in str(options.get("experiments"))


FLINK: Final = RunnerProfile(
    name="FlinkRunner",
    beam_runner="FlinkRunner",
    refusals=_REFUSALS,
    flags=_FLAGS,
    defaults={"environment_type": LOOPBACK},
    misused=_misused,
    in_one_process=_in_one_process,
)
