"""Runs the command line in this process, and kills it with SIGKILL before or after the n-th call of
one step.

python -m tests.faults.crashing_run STEP before|after N run --topic=...
python -m tests.faults.crashing_run "any call" before N run --topic=...
    the n-th call of any function of ours, in any thread
python -m tests.faults.crashing_run "any call" count FILE run --topic=...
    writes how many there are
"""

import importlib
import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipeline.cli import main

ROOT = Path(__file__).parents[2]
ANY_CALL = "any call"

# The numbers are those of pipeline/run/__init__.py and docs/guarantees.md.
STEPS = {
    "1 recover": ("pipeline.run.command", "recover"),
    "1 remove leftovers": ("pipeline.run.command", "remove_leftovers"),
    "2 genesis": ("pipeline.run.make_ready", "begin"),
    "2 plan": ("pipeline.run.look_ahead", "plan_next"),
    "3 read and write": ("pipeline.run.command", "read_and_write"),
    "3 one append": ("transforms.destinations.duckdb.in_flight", "InFlight.wait"),
    "3 appends, inside": ("transforms.destinations.duckdb.in_flight", "write"),
    "3 reports": ("transforms.destinations.duckdb.reports", "DuckDBReports.save"),
    "4 prove the source": ("pipeline.run.command", "prove_source"),
    "4 finalize and prove": ("pipeline.run.prepare", "finalize_and_prove"),
    "4 record": ("pipeline.run.prepare", "make_record"),
    "4 prepare": ("pipeline.run.prepare", "prepare"),
    "4 claim, inside": ("transforms.destinations.duckdb.run_ledger", "claim"),
    "5 commit a table": ("pipeline.run.commit", "commit_table"),
    "5 commit, inside": ("transforms.destinations.duckdb.streams", "commit"),
    "6 mark committed": ("pipeline.run.commit", "mark"),
    "6 forget": ("pipeline.run.commit", "forget"),
    "6 forget, inside": ("transforms.destinations.duckdb.streams", "forget"),
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


class CallCounter:
    """Counts what our own code calls while it runs; dies at call number `last`, if given."""

    def __init__(self, last: int | None = None) -> None:
        self.calls = 0
        self._last = last
        self._ours = {str(ROOT / package) for package in ("pipeline", "transforms")}

    def __call__(self, frame: Any, event: str, _argument: object) -> None:
        # c_call: into DuckDB, Arrow, librdkafka; the frame is the caller's.
        if event in ("call", "c_call") and str(Path(frame.f_code.co_filename).parent).startswith(
            tuple(self._ours)
        ):
            self.calls += 1
            if self.calls == self._last:
                os.kill(os.getpid(), signal.SIGKILL)

    def start(self) -> None:
        import pipeline.run.command  # what is imported is not what is tested  # noqa: F401

        threading.setprofile(self)
        sys.setprofile(self)


if __name__ == "__main__":
    step, moment, number, *arguments = sys.argv[1:]
    if step != ANY_CALL:
        crash_at(step, moment, int(number))
        sys.exit(main(arguments))
    counter = CallCounter(int(number) if moment == "before" else None)
    counter.start()
    status = main(arguments)
    if moment == "count":
        Path(number).write_text(str(counter.calls))
    sys.exit(status)
