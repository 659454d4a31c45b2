"""Runs the command line in this process, and kills it with SIGKILL before or after the n-th call of one step.

python -m tests.faults.crashing_run STEP before|after N run --topic=...
"""

import importlib
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from pipeline.cli import main

# The numbers are those of pipeline/transaction.py and docs/guarantees.md.
STEPS = {
    "1 recover": ("pipeline.transaction", "recover"),
    "2 genesis": ("pipeline.transaction", "begin"),
    "2 plan": ("pipeline.transaction", "plan"),
    "3 read and write": ("pipeline.transaction", "read_and_write"),
    "3 one append": ("transforms.destinations.duckdb", "DuckDBDestination.append"),
    "3 reports": ("transforms.destinations.duckdb", "DuckDBDestination.save_reports"),
    "4 finalize and prove": ("pipeline.transaction", "finalize_and_prove"),
    "4 record": ("pipeline.transaction", "make_record"),
    "4 prepare": ("pipeline.transaction", "prepare"),
    "4 claim, inside": ("transforms.destinations.duckdb_ledger", "claim"),
    "5 commit a table": ("pipeline.transaction", "commit_table"),
    "5 commit, inside": ("transforms.destinations.duckdb", "_commit"),
    "6 mark committed": ("pipeline.transaction", "mark_committed"),
    "6 tell Kafka": ("pipeline.kafka_admin", "KafkaAdmin.commit_offsets"),
}


def crash_at(step: str, moment: str, count: int) -> None:
    module_name, path = STEPS[step]
    owner: Any = importlib.import_module(module_name)
    *parents, name = path.split(".")
    for parent in parents:
        owner = getattr(owner, parent)
    original: Callable[..., Any] = getattr(owner, name)
    calls = 0

    def crashing(*arguments: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == count and moment == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        result = original(*arguments, **named)
        if calls == count and moment == "after":
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(owner, name, crashing)


if __name__ == "__main__":
    crash_at(sys.argv[1], sys.argv[2], int(sys.argv[3]))
    sys.exit(main(sys.argv[4:]))
