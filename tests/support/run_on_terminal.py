"""`run` as a process of its own, from Kafka as lists, that ends as its first argument says."""

from __future__ import annotations

import logging
import signal
import sys
import threading
from typing import Any

import pytest

from pipeline import cli
from pipeline.run import command as run_module
from tests.support.in_memory_kafka import InMemoryKafka, payment, use
from transforms.model.errors import GuaranteeError

LONG = "a warning that is longer than a narrow terminal is wide: " + "x" * 60
"""One message, one line: no line of it is broken by us."""


def main(end: str, destination: str) -> int:
    """end: well, refused, failed, interrupted or terminated. Returns the exit status of `run`."""
    kafka = InMemoryKafka()
    kafka.create("payments", 1)
    kafka.send("payments", 0, *(payment(name) for name in "abc"))
    original = run_module.read_and_write

    def read_and_write(*arguments: Any) -> None:
        log = logging.getLogger("pipeline.some.step")
        thread = threading.Thread(target=lambda: log.warning(LONG))
        thread.start()
        thread.join()
        sys.stderr.write("a line of another library\n")
        log.warning("two\nlines [bold]as they are[/bold]")
        original(*arguments)
        if end == "refused":
            raise GuaranteeError("offset 7 is gone")
        if end == "failed":
            raise ZeroDivisionError("surprise")
        if end in ("interrupted", "terminated"):
            signal.raise_signal(signal.SIGINT if end == "interrupted" else signal.SIGTERM)

    with pytest.MonkeyPatch.context() as patch:
        use(kafka, patch)
        patch.setattr(run_module, "read_and_write", read_and_write)
        return cli.main(
            [
                "run",
                "--bootstrap_servers=b:1",
                "--topic=payments",
                f"--destination=duckdb:{destination}",
                "--max_records_per_run=2",
                "--max_future_skew=36500d",
            ]
        )


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
