"""Where the demo's tables are: a DuckDB file in the current folder, or a stand-in for BigQuery.

The stand-in is a process of its own.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import duckdb
import pyarrow as pa

from transforms.destinations.bigquery.destination import BigQueryDestination
from transforms.destinations.contract.destination import Destination
from transforms.destinations.open import open_destination
from transforms.model.errors import UsageError

DUCKDB: Final = "duckdb"
BIGQUERY: Final = "bigquery"

FILE: Final = "demo.duckdb"
_MARK: Final = "_made_by_the_demo"
_PROJECT: Final = "payments-demo"
_DATASET: Final = "demo"
_START_SECONDS: Final = 30.0


@dataclass(frozen=True)
class DemoDestination:
    """A destination, and how the demo speaks of it.

    arguments: those of `run` and `check`. closing: lines printed at the end: where the tables are
    and what to try.
    """

    arguments: tuple[str, ...]
    destination: Destination
    closing: tuple[str, ...]

    def query(self, sql: str) -> list[dict[str, Any]]:
        """Rows as dicts. Write tables in braces: `SELECT ... FROM {payment_transactions}`."""
        rows: list[dict[str, Any]] = self.columns(sql).to_pylist()
        return rows

    def columns(self, sql: str) -> pa.Table:
        """The same as an Arrow table."""
        with self.destination as opened:
            return opened.query(sql.format_map(_Names(opened)))

    def count(self, table: str) -> int:
        """Rows of a table; 0 where no run has created it yet."""
        with self.destination as opened:
            if not opened.tables.exist():
                return 0
        return int(self.query(f"SELECT COUNT(*) AS n FROM {{{table}}}")[0]["n"])


class _Names(dict[str, str]):
    """The name in braces -> the table's name in the destination's SQL."""

    def __init__(self, destination: Destination) -> None:
        super().__init__()
        self._destination = destination

    def __missing__(self, table: str) -> str:
        return (
            self._destination.settings.table(table)
            if isinstance(self._destination, BigQueryDestination)
            else table
        )


@contextmanager
def demo_destination(kind: str) -> Iterator[DemoDestination]:
    """Raises UsageError for a file that the demo did not make, or without the stand-in."""
    if kind == DUCKDB:
        yield _in_a_file()
        return
    with tempfile.TemporaryDirectory() as folder, _stand_in(Path(folder)) as ready:
        endpoints: dict[str, Any] = {
            "api_endpoint": ready["rest_endpoint"],
            "storage_endpoint": ready["storage_endpoint"],
        }
        yield DemoDestination(
            arguments=(
                f"--destination=bigquery:{_PROJECT}.{_DATASET}",
                f"--bigquery_api_endpoint={ready['rest_endpoint']}",
                f"--bigquery_storage_endpoint={ready['storage_endpoint']}",
            ),
            destination=open_destination(f"bigquery:{_PROJECT}.{_DATASET}", **endpoints),
            closing=(
                "The tables were in a stand-in for BigQuery, which ends here. With a project of"
                " yours:",
                "  payment-pipeline preflight --destination=bigquery:PROJECT.DATASET"
                " --bootstrap_servers=... --topic=...",
            ),
        )


def _in_a_file() -> DemoDestination:
    """A new DuckDB file, marked by a table so that the next demo may replace it."""
    path = Path(FILE)
    if path.exists() and not _is_ours():
        raise UsageError(
            f"{path.resolve()} was not made by the demo, which would replace it. Move it, or start"
            " the demo in another folder."
        )
    for left in (FILE, f"{FILE}.wal"):
        Path(left).unlink(missing_ok=True)
    with duckdb.connect(FILE) as fresh:
        fresh.execute(f"CREATE TABLE {_MARK} AS SELECT 'the next demo replaces this file' AS note")
    shown = "import duckdb; duckdb.connect('{}').sql('{}').show()"
    tries = [f'  {sys.executable} -c "{shown.format(FILE, query)}"' for query in _QUERIES]
    closing = (f"The tables are in {path.resolve()} (the next demo replaces it). Try:", *tries)
    return DemoDestination(
        (f"--destination=duckdb:{FILE}",), open_destination(f"duckdb:{FILE}"), closing
    )


def _is_ours() -> bool:
    try:
        with duckdb.connect(FILE) as found:
            return bool(
                found.execute(
                    "SELECT 1 FROM duckdb_tables() WHERE table_name = ?", [_MARK]
                ).fetchall()
            )
    except duckdb.Error:
        return False


@contextmanager
def _stand_in(folder: Path) -> Iterator[dict[str, str]]:
    """Starts the stand-in for BigQuery, and yields its endpoints once it is ready.

    It is part of the tests, so only a source checkout has it. It has a session of its own, so that
    it survives when the process group of a run is killed.
    """
    root = Path(__file__).parents[2]
    if not (root / "tests" / "bigquery_stand_in").is_dir():
        raise UsageError(
            "--destination=bigquery: the demo's stand-in for BigQuery is part of the source"
            " checkout. Clone it, and run `make demo` there."
        )
    ready = folder / "ready.json"
    command = [
        sys.executable,
        "-m",
        "tests.bigquery_stand_in",
        f"--project={_PROJECT}",
        f"--dataset={_DATASET}",
        f"--ready_file={ready}",
    ]
    process = subprocess.Popen(command, cwd=root, start_new_session=True)
    try:
        deadline = time.monotonic() + _START_SECONDS
        while not ready.exists():
            if process.poll() is not None or time.monotonic() > deadline:
                raise UsageError(
                    "--destination=bigquery: the stand-in did not start; its own message stands"
                    " above. Run `make test` once to set it up."
                )
            time.sleep(0.05)
        yield json.loads(ready.read_text())
    finally:
        process.kill()  # it keeps nothing on disk
        process.wait(10)


_QUERIES: Final = (
    "SELECT * FROM deduplication_audit ORDER BY dup_count DESC LIMIT 5",
    "SELECT reason, COUNT(*) AS records, ANY_VALUE(detail) AS example FROM rejected_records GROUP"
    " BY reason ORDER BY records DESC",
)
