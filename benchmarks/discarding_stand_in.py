"""A stand-in for BigQuery in another process, which counts the rows of appends and discards them.

It keeps what is not appended: tables, ledgers, and how far each write stream is.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.child_process import ending_with_this_process
from tests.support.kafka_broker import ROOT

PROJECT, DATASET = "payments-benchmark", "d"


@contextmanager
def discarding_stand_in(folder: Path) -> Iterator[dict[str, str]]:
    """Its addresses: rest_endpoint and storage_endpoint. folder: for the file that has them."""
    ready = folder / "ready.json"
    command = [
        sys.executable,
        "-m",
        "tests.bigquery_stand_in",
        f"--project={PROJECT}",
        f"--dataset={DATASET}",
        "--discard_rows",
    ]
    process = subprocess.Popen(
        ending_with_this_process([*command, f"--ready_file={ready}"]), cwd=ROOT
    )
    try:
        deadline = time.monotonic() + 30
        while not ready.exists():
            assert process.poll() is None and time.monotonic() < deadline, (
                "the stand-in did not start"
            )
            time.sleep(0.05)
        yield json.loads(ready.read_text())
    finally:
        process.kill()
        process.wait(10)
