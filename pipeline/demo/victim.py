"""A `run` that halts at an exact point and prints that it is there, so that the demo can kill it.

`python -m pipeline.demo.victim append|commit N run --topic=...`
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, Final

from pipeline.demo.command import REACHED
from pipeline.options.run_config import run_config
from pipeline.run import commit as commit_step
from pipeline.run.command import run_command
from transforms.destinations.bigquery.streams import BigQueryStreams
from transforms.destinations.duckdb.in_flight import InFlight

_POINTS: Final[dict[str, list[tuple[Any, str]]]] = {
    "append": [(InFlight, "wait"), (BigQueryStreams, "send")],
    "commit": [(commit_step, "commit_table")],
}


def halt_after(point: str, count: int) -> None:
    """The `count`-th call of the point does its work, prints REACHED and does not return."""
    calls = 0

    def halting(original: Callable[..., Any]) -> Callable[..., Any]:
        def called(*arguments: Any, **named: Any) -> Any:
            nonlocal calls
            result = original(*arguments, **named)
            calls += 1
            if calls == count:
                print(REACHED, flush=True)
                sys.stdin.read()
            return result

        return called

    for owner, name in _POINTS[point]:
        setattr(owner, name, halting(getattr(owner, name)))


if __name__ == "__main__":
    halt_after(sys.argv[1], int(sys.argv[2]))
    sys.exit(run_command(run_config(sys.argv[4:])))
