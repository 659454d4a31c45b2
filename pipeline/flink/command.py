"""`flink up`, `flink down` and `flink status`."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from pipeline.counted import counted
from pipeline.failures import GUARANTEE_REFUSED
from pipeline.options.arguments import Arguments, add_output_arguments, one_of, plain_parser
from pipeline.options.quantities import parse_size, parse_whole
from pipeline.servers_command import dir_of, print_json, server_figures, servers_command
from pipeline.streaming.flink_job import job_id_in
from runners.flink.cluster import FlinkCluster
from runners.flink.configuration import STATE_BACKENDS, ClusterSettings
from runners.flink.rest import FlinkUnreachable
from runners.flink.servers import JOB_MANAGER
from transforms.model.errors import TryAgainLater, UsageError

_CHECKPOINTS_SHOWN: Final = 3

_OWNED_STILL: Final = (
    "a streaming job goes on after the next `flink up` by `run --streaming --restore=latest`; until"
    " then it owns its tables, and `stop --lost` hands them over without a cluster"
)


def flink_command(argv: Sequence[str]) -> int:
    """Runs one of the three, prints its result and returns the exit status.

    Raises UsageError, or GuaranteeError when Java or Maven is missing or the cluster fails.
    """
    return servers_command("flink", argv, flink_parser, _run)


def _run(command: str, given: Namespace) -> int:
    cluster = FlinkCluster(dir_of(given.dir, "flink-cluster"))
    try:
        return _COMMANDS[command](cluster, given)
    except FlinkUnreachable as error:
        raise TryAgainLater(f"{error}. Is the JobManager up? See {cluster.folder}/logs.") from error


def flink_parser(command: str) -> Arguments:
    """The options of `flink up`, `flink down` or `flink status`; sizes are per process."""
    parser = plain_parser(f"payment-pipeline flink {command}", _DESCRIPTIONS[command])
    parser.add_argument(
        "--dir",
        metavar="DIR",
        help="folder of the cluster: logs, checkpoints, savepoints (flink-cluster in the cache)",
    )
    add_output_arguments(parser, "print the result as JSON")
    if command == "up":
        sizes = ClusterSettings()
        for flag, default, help_text in (
            ("slots", sizes.slots, "task slots of a TaskManager: the most --parallelism of a job"),
            ("task_managers", sizes.task_managers, "how many TaskManagers"),
            ("worker_pools", sizes.worker_pools, "servers that start Python workers (EXTERNAL)"),
            ("restart_attempts", sizes.restart_attempts, "restarts in a row before a job fails"),
        ):
            parser.add_argument(f"--{flag}", default=str(default), metavar="N", help=help_text)
        parser.add_argument(
            "--state_backend",
            default=sizes.state_backend,
            help="rocksdb (checkpoints hold what has changed) or hashmap (all of it, each time)",
        )
        for flag, mib, help_text in (
            ("task_manager_heap", sizes.task_manager_heap_mib, "Java heap of a job's tasks"),
            ("managed_memory", sizes.managed_mib, "what RocksDB may use in a TaskManager"),
            ("job_manager_heap", sizes.job_manager_heap_mib, "Java heap of the JobManager"),
            ("job_server_heap", sizes.job_server_heap_mib, "Java heap of Beam's job server"),
        ):
            parser.add_argument(f"--{flag}", default=f"{mib}MiB", metavar="SIZE", help=help_text)
    return parser


def cluster_settings(given: Namespace) -> ClusterSettings:
    """The checked options of `flink up`. Raises UsageError."""
    return ClusterSettings(
        slots=parse_whole("slots", given.slots, 1, 256),
        task_managers=parse_whole("task_managers", given.task_managers, 1, 32),
        state_backend=one_of("state_backend", given.state_backend, STATE_BACKENDS),
        worker_pools=parse_whole("worker_pools", given.worker_pools, 0, 32),
        task_manager_heap_mib=_mebibytes("task_manager_heap", given.task_manager_heap, 256),
        managed_mib=_mebibytes("managed_memory", given.managed_memory, 64),
        job_manager_heap_mib=_mebibytes("job_manager_heap", given.job_manager_heap, 128),
        job_server_heap_mib=_mebibytes("job_server_heap", given.job_server_heap, 128),
        restart_attempts=parse_whole("restart_attempts", given.restart_attempts, 1, 1_000_000),
    )


def _mebibytes(flag: str, text: str, least: int) -> int:
    mib = parse_size(flag, text) >> 20
    if mib < least:
        raise UsageError(f"--{flag}={text}: at least {least}MiB is needed. Give more.")
    return mib


def _up(cluster: FlinkCluster, given: Namespace) -> int:
    cluster.start(cluster_settings(given))
    if given.json:
        return print_json(_addresses(cluster))
    _print_addresses(cluster)
    print(f"end it with: payment-pipeline flink down --dir={cluster.folder}")
    return 0


def _down(cluster: FlinkCluster, given: Namespace) -> int:
    jobs = _jobs_that_end(cluster)
    ended = cluster.stop()
    if given.json:
        return print_json(
            {
                "dir": str(cluster.folder),
                "ended": [one.role for one in ended],
                "ended_jobs": [job["name"] for job in jobs],
            }
        )
    if ended:
        print(
            f"ended {counted(len(ended), 'server')} of {cluster.folder}; its checkpoints and"
            " savepoints stay"
        )
    else:
        print(f"nothing runs in {cluster.folder}")
    for job in jobs:
        print(f"ended with it: job {job['name']}, which was {job['state']}")
    if any(job_id_in(job["name"]) for job in jobs):
        print(_OWNED_STILL)
    return 0


def _jobs_that_end(cluster: FlinkCluster) -> list[dict[str, Any]]:
    """The jobs that the cluster runs; none where its JobManager does not say."""
    if not (cluster.exists and cluster.running(JOB_MANAGER)):
        return []
    try:
        return cluster.rest.running_jobs()
    except FlinkUnreachable:
        return []


def _status(cluster: FlinkCluster, given: Namespace) -> int:
    servers = cluster.processes if cluster.exists else []
    status: dict[str, Any] = {
        "dir": str(cluster.folder),
        "servers": server_figures(servers),
        "jobs": cluster.rest.running_jobs() if servers and cluster.running(JOB_MANAGER) else [],
        "checkpoints": [str(path) for path in cluster.checkpoints[:_CHECKPOINTS_SHOWN]],
    }
    dead = [one for one in status["servers"] if not one["runs"]]
    wrong = None
    if dead:
        names = ", ".join(one["role"] for one in dead)
        wrong = (
            f"{counted(len(dead), 'server has', 'servers have')} ended: {names}. Logs say why;"
            f" `payment-pipeline flink down --dir={cluster.folder}`, then `flink up`, starts the"
            " cluster again"
        )
    if given.json:
        return print_json({**(_addresses(cluster) if servers else {}), **status}, wrong)
    if servers:
        _print_addresses(cluster)
    else:
        print(f"nothing runs in {cluster.folder}")
    for one in status["servers"]:
        print(f"  {one['role']:<12} {one['pid']:>8}  {_state(one)}")
    for job in status["jobs"]:
        print(f"  job {job['jid']}  {job['state']}  {job['name']}")
    for path in status["checkpoints"]:
        print(f"  complete checkpoint {path}")
    if wrong is None:
        return 0
    print(wrong)
    return GUARANTEE_REFUSED


def _state(server: Mapping[str, Any]) -> str:
    return "runs" if server["runs"] else f"HAS ENDED, {server['log']}"


def _addresses(cluster: FlinkCluster) -> dict[str, Any]:
    return {
        "dir": str(cluster.folder),
        "flink_master": cluster.rest_address,
        "job_endpoint": cluster.job_server_address,
        "worker_pools": cluster.worker_pool_addresses,
    }


def _print_addresses(cluster: FlinkCluster) -> None:
    print(f"Flink      --flink_master={cluster.rest_address} (http://{cluster.rest_address})")
    print(f"job server --job_endpoint={cluster.job_server_address}")
    for address in cluster.worker_pool_addresses:
        print(f"workers    --environment_type=EXTERNAL --environment_config={address}")


_COMMANDS: Final[dict[str, Callable[[FlinkCluster, Namespace], int]]] = {
    "up": _up,
    "down": _down,
    "status": _status,
}
_DESCRIPTIONS: Final = {
    "up": "Starts a Flink cluster on 127.0.0.1: JobManager, TaskManagers, Beam's job server and"
    " worker pools. Java 17 must be there; Maven fetches the rest once.",
    "down": "Ends the servers that `flink up` has started, and says which jobs end with them."
    " Checkpoints and savepoints stay.",
    "status": "Shows what runs, its addresses, running jobs and the newest complete checkpoints."
    " Exit status 3: a server has ended; 5: the JobManager does not answer.",
}
