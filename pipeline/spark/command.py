"""`spark up`, `spark down` and `spark status`."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable, Sequence
from typing import Any, Final

from pipeline.counted import counted
from pipeline.failures import GUARANTEE_REFUSED
from pipeline.options.arguments import Arguments, add_output_arguments, plain_parser
from pipeline.options.quantities import parse_whole
from pipeline.servers_command import dir_of, print_json, server_figures, servers_command
from runners.spark.cluster import SparkServers
from runners.spark.settings import SparkSettings, default_cores

FOLDER: Final = "spark-cluster"
"""In the cache folder, where --dir is not given."""


def spark_command(argv: Sequence[str]) -> int:
    """Runs one of the three, prints its result and returns the exit status.

    Raises UsageError, or GuaranteeError when Java or Maven is missing or a server fails.
    """
    return servers_command("spark", argv, spark_parser, _run)


def _run(command: str, given: Namespace) -> int:
    return _COMMANDS[command](SparkServers(dir_of(given.dir, FOLDER)), given)


def spark_parser(command: str) -> Arguments:
    """The options of `spark up`, `spark down` or `spark status`."""
    parser = plain_parser(f"payment-pipeline spark {command}", _DESCRIPTIONS[command])
    parser.add_argument(
        "--dir", metavar="DIR", help=f"folder of the servers and their logs ({FOLDER} in the cache)"
    )
    add_output_arguments(parser, "print the result as JSON")
    if command == "up":
        sizes = SparkSettings()
        parser.add_argument(
            "--cores", metavar="N", help="tasks at the same time (as many as this machine has)"
        )
        parser.add_argument(
            "--max_records_per_run",
            default=str(sizes.max_records_per_run),
            metavar="N",
            help="that of `run`: the Java heap is made for it",
        )
        parser.add_argument(
            "--cluster",
            action="store_true",
            help="a standalone master too, with workers on 127.0.0.1 and 127.0.0.2",
        )
        parser.add_argument(
            "--keep_context",
            action="store_true",
            help="the executors of a run serve the next one too: faster, but a run that is"
            " cancelled goes on in Spark until its tasks end",
        )
    return parser


def spark_settings(given: Namespace) -> SparkSettings:
    """The checked options of `spark up`. Raises UsageError."""
    cores = given.cores or str(default_cores())
    return SparkSettings(
        cores=parse_whole("cores", cores, 1, 1024),
        max_records_per_run=parse_whole("max_records_per_run", given.max_records_per_run, 1, 10**9),
        cluster=given.cluster,
        keep_context=given.keep_context,
    )


def _up(servers: SparkServers, given: Namespace) -> int:
    servers.start(spark_settings(given))
    if given.json:
        return print_json(_addresses(servers))
    _print_addresses(servers)
    print(f"end it with: payment-pipeline spark down --dir={servers.folder}")
    return 0


def _down(servers: SparkServers, given: Namespace) -> int:
    ended = servers.stop()
    if given.json:
        return print_json({"dir": str(servers.folder), "ended": [one.role for one in ended]})
    if ended:
        print(f"ended {counted(len(ended), 'server')} of {servers.folder}; its logs stay")
    else:
        print(f"nothing runs in {servers.folder}")
    return 0


def _status(servers: SparkServers, given: Namespace) -> int:
    """GUARANTEE_REFUSED where a server has ended: a person must decide."""
    processes = servers.processes if servers.exists else []
    status: dict[str, Any] = {
        "dir": str(servers.folder),
        "servers": server_figures(processes),
        "executors": servers.executors() if processes else [],
        "python_workers": servers.python_workers() if processes else [],
    }
    error = None
    if gone := [one["role"] for one in status["servers"] if not one["runs"]]:
        error = (
            f"{counted(len(gone), 'server')} {'has' if len(gone) == 1 else 'have'} ended:"
            f" {', '.join(gone)}. The log says why;"
            " `payment-pipeline spark down` ends the others, and `spark up` starts all again."
        )
    if given.json:
        return print_json({**(_addresses(servers) if processes else {}), **status}, error)
    if processes:
        _print_addresses(servers)
    else:
        print(f"nothing runs in {servers.folder}")
    for one in status["servers"]:
        runs = "runs" if one["runs"] else "HAS ENDED"
        print(f"  {one['role']:<12} {one['pid']:>8}  {runs:<10} {one['log']}")
    for role in ("executor", "python_worker"):
        for pid in status[f"{role}s"]:
            print(f"  {role.replace('_', ' '):<12} {pid:>8}")
    if error:
        print(error)
    return GUARANTEE_REFUSED if error else 0


def _addresses(servers: SparkServers) -> dict[str, Any]:
    return {
        "dir": str(servers.folder),
        "job_endpoint": servers.job_server_address,
        "master": servers.master_url,
        "master_page": servers.master_page,
        "environment_config": servers.process_environment,
        "cores": servers.settings.cores,
        "max_records_per_run": servers.settings.max_records_per_run,
    }


def _print_addresses(servers: SparkServers) -> None:
    page = servers.master_page
    print(f"job server --runner=SparkRunner --job_endpoint={servers.job_server_address}")
    workers = f"--environment_type=PROCESS --environment_config='{servers.process_environment}'"
    print(f"workers    {workers}")
    print("           (left out: the command itself is the worker, which DuckDB needs)")
    print(f"cores      --spark_cores={servers.settings.cores}")
    print(f"Spark      {servers.master_url}" + (f" (http://{page})" if page else ""))
    print(f"heap       for --max_records_per_run={servers.settings.max_records_per_run}")


_COMMANDS: Final[dict[str, Callable[[SparkServers, Namespace], int]]] = {
    "up": _up,
    "down": _down,
    "status": _status,
}
_DESCRIPTIONS: Final = {
    "up": "Starts Beam's job server with Spark in it, or in front of a standalone cluster. Java 17"
    " must be there; Maven fetches the rest once.",
    "down": "Ends the servers that `spark up` has started, their executors and workers.",
    "status": "Shows what runs, and its addresses.",
}
