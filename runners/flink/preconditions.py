"""What a cluster must have before a job is submitted to it."""

from __future__ import annotations

from runners.flink.rest import FlinkRest
from runners.profile import RunnerMisused, RunnerRefused

_OFF = ("none", "off", "disable")


class ClusterNotReady(RuntimeError):
    """The JobManager answers, but the cluster can run no job yet: to be tried again."""


def check_cluster(rest: FlinkRest, parallelism: int) -> None:
    """Raises RunnerRefused where a restart or restore would not find all that it needs.

    parallelism: of the job. Raises RunnerMisused when the cluster is too small for it,
    ClusterNotReady when it has no TaskManager at the moment, and FlinkUnreachable. Keys:
    https://nightlies.apache.org/flink/flink-docs-release-1.19/docs/deployment/config/
    """
    where = f"--flink_master={rest.address}"
    keys = rest.configuration()
    if not keys.get("state.checkpoints.dir"):
        raise RunnerRefused(
            f"{where}: the cluster has no state.checkpoints.dir, so checkpoints stay in the memory"
            " of the JobManager and are lost with it. Set it in the cluster's configuration to a"
            " folder that all its machines reach, and start the cluster again."
        )
    for key in ("execution.checkpointing.unaligned", "execution.checkpointing.unaligned.enabled"):
        if keys.get(key, "false").lower() == "true":
            raise RunnerRefused(
                f"{where}: the cluster has {key}=true. An unaligned checkpoint holds records"
                " between the steps, which are then processed after a restore by a state that has"
                " seen later ones. Take the key out of the cluster's configuration."
            )
    for key in ("restart-strategy.type", "restart-strategy"):
        if (strategy := keys.get(key, "").lower()) in _OFF:
            raise RunnerRefused(
                f"{where}: the cluster has {key}={strategy}, so a job stops at the first lost"
                " worker. Use exponential-delay in the cluster's configuration."
            )
    slots = int(rest.overview()["slots-total"])
    if not slots:
        raise ClusterNotReady(
            f"{where}: no TaskManager is registered at the JobManager, so there is no task slot."
            " One that has just been started needs some seconds: try again. If none runs, start one"
            " (`payment-pipeline flink down`, then `flink up`, on one machine)."
        )
    if slots < parallelism:
        raise RunnerMisused(
            f"--parallelism={parallelism}: the cluster has {slots} task slot(s). Use"
            f" --parallelism={slots} or less, or start it with more"
            " (`payment-pipeline flink up --slots=N`)."
        )
