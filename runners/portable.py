"""What the profiles of all runners with a job server share: they run a portable graph, and their
Python workers are processes that Beam knows by an environment.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from runners.profile import Refusal

LOOPBACK: Final = "LOOPBACK"
"""The environment whose workers are in the process that starts the run."""

EXTERNAL: Final = "EXTERNAL"
"""The environment whose workers a pool starts (runners/worker_pool.py), at a HOST:PORT."""

STATE_CACHE: Final = Refusal(
    "max_cache_memory_usage_mb",
    None,
    "a state cache keeps cells that another worker may have changed, and no test has shown the"
    " guarantee with it. Leave the option out.",
)


def needs_job_server(option: str, up: str) -> Refusal:
    """Of an option that would do without one. up: the command that starts a job server."""
    return Refusal(
        option,
        None,
        "Beam would fetch and start a job server at run time, so the guarantee would depend on the"
        f" network. Use --job_endpoint=HOST:PORT; `{up}` starts a job server.",
    )


def not_shown(environment: str, other: str) -> Refusal:
    """Of an environment that no test has run with. other: what is allowed beside LOOPBACK."""
    return Refusal(
        "environment_type",
        environment,
        f"no test has shown the guarantee with it. Use {LOOPBACK} (this process is the worker) or"
        f" {other}.",
    )


def misused_pool(config: str, how: str) -> str | None:
    """What is wrong with --environment_config for EXTERNAL; None: nothing.

    how: a sentence that says how to start a pool.
    """
    if not config:
        return (
            "--environment_config is missing: with --environment_type=EXTERNAL it is the HOST:PORT"
            f" of a worker pool. {how}"
        )
    host, _, port = config.rpartition(":")
    if not host or not port.isdigit():
        return (
            f"--environment_config={config}: must be the HOST:PORT of a worker pool, such as"
            f" localhost:50000. {how}"
        )
    return None


def whole(least: int) -> Callable[[str], bool]:
    """Whether a flag's value is a whole number that is not below `least`."""
    return lambda value: value.isascii() and value.isdigit() and int(value) >= least


def is_true(value: str) -> bool:
    """Whether a flag is set, as Beam's job server reads it."""
    return value.lower() == "true"


def is_false(value: str) -> bool:
    """Whether a flag is not set."""
    return value.lower() == "false"
