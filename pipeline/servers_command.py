"""What `flink` and `spark` are alike in: `up`, `down` and `status` of the servers of one folder."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from pipeline.failures import GUARANTEE_REFUSED
from pipeline.logs import FORMATS
from pipeline.options.arguments import Arguments, one_of
from runners.java import Unavailable
from runners.maven import cache_folder
from runners.processes import ClusterFailed, ServerProcess
from transforms.model.errors import GuaranteeError, UsageError

_WHAT: Final = ("up", "down", "status")


def servers_command(
    name: str,
    argv: Sequence[str],
    parser: Callable[[str], Arguments],
    run: Callable[[str, Namespace], int],
) -> int:
    """Runs `name up`, `name down` or `name status` and returns the exit status.

    parser: for one of the three words. run: takes the word, and its options. Raises UsageError, or
    GuaranteeError when Java or Maven is missing or a server fails.
    """
    if argv and argv[0] in ("-h", "--help"):
        print(
            f"usage: payment-pipeline {name} up|down|status [options]\n\n"
            f"`payment-pipeline {name} up --help` shows the options."
        )
        return 0
    if not argv or argv[0] not in _WHAT:
        raise UsageError(
            f"{name} {' '.join(argv[:1])}: allowed are {name} up, {name} down and {name} status."
        )
    given = parser(argv[0]).parse_strictly(argv[1:])
    one_of("log_format", given.log_format, FORMATS)
    with failed_servers_refuse():
        return run(argv[0], given)


@contextmanager
def failed_servers_refuse() -> Iterator[None]:
    """Raises GuaranteeError where Java, Maven or a jar is missing, or a server fails."""
    try:
        yield
    except (Unavailable, ClusterFailed) as error:
        raise GuaranteeError(str(error)) from error


def dir_of(given: str | None, default: str) -> Path:
    """The folder of the servers. given: --dir. default: its name in the cache folder."""
    return Path(given) if given else cache_folder() / default


def server_figures(processes: Sequence[ServerProcess]) -> list[dict[str, Any]]:
    """For --json: role, pid, whether it runs, and the log of each."""
    return [
        {"role": one.role, "pid": one.pid, "runs": one.runs(), "log": one.log} for one in processes
    ]


def print_json(figures: Mapping[str, Any], error: str | None = None) -> int:
    """Returns the exit status that it prints. error: why that is not 0."""
    status = 0 if error is None else GUARANTEE_REFUSED
    print(json.dumps({"exit_status": status, "error": error, **figures}))
    return status
