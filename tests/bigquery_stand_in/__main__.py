"""The stand-in as a process: python -m tests.bigquery_stand_in --project=p --dataset=d
--database=FILE --ready_file=F

The ready file gets {"rest_endpoint": ..., "storage_endpoint": ...} when both servers listen. The
process ends with its parent.
"""

import argparse
import ctypes
import json
import os
import signal
from pathlib import Path

from tests.bigquery_stand_in.stand_in import BigQueryStandIn

_PR_SET_PDEATHSIG = 1


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bigquery_stand_in", description=__doc__)
    parser.add_argument("--project", default="p")
    parser.add_argument("--dataset", help="created at the start")
    parser.add_argument(
        "--database",
        default=":memory:",
        help="DuckDB file; tables only, write streams and jobs live in memory",
    )
    parser.add_argument("--ready_file", type=Path, required=True)
    parser.add_argument(
        "--discard_rows", action="store_true", help="count appends and throw their rows away"
    )
    options = parser.parse_args()
    parent = os.getppid()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        return  # the parent was faster in ending than this process in tying itself to it
    stop = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, stop)
    with BigQueryStandIn(
        options.project,
        options.dataset,
        database=options.database,
        discard_rows=options.discard_rows,
    ) as stand_in:
        ready = options.ready_file.with_suffix(".part")
        ready.write_text(
            json.dumps(
                {
                    "rest_endpoint": stand_in.rest_endpoint,
                    "storage_endpoint": stand_in.storage_endpoint,
                }
            )
        )
        ready.rename(options.ready_file)  # a reader never sees half of it
        signal.sigwait(stop)


if __name__ == "__main__":
    main()
