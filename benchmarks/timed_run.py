"""`payment-pipeline run` that notes when each of its transactions has become visible.

python -m benchmarks.timed_run FILE run ... appends a line to FILE for each: plan time in
microseconds since 1970 (the `ingest_time` of its rows), and the moment in the same unit.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

from pipeline import cli
from pipeline.run import command


def main(output: Path, arguments: list[str]) -> int:
    """Returns the exit status of the command."""
    commit = command.commit

    def noted(destination: Any, record: Any, since: Any) -> str:
        status = commit(destination, record, since)
        with output.open("a") as lines:
            lines.write(f"{record.plan_time} {time.time_ns() // 1000}\n")
        return status

    command.commit = noted
    return cli.main(arguments)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
