"""The destinations that the streaming protocol is tested on. A further one needs an entry here, and
runs every test of tests/**/test_stream*.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.bigquery_stand_in import BigQueryStandIn
from tests.support.bigquery import settings_of
from tests.support.streaming.log import SCHEMA
from transforms.destinations.bigquery import retry as bigquery_retry
from transforms.destinations.bigquery.clients import close_clients
from transforms.destinations.bigquery.destination import BigQueryDestination
from transforms.destinations.bigquery.settings import BigQuerySettings
from transforms.destinations.duckdb.destination import DuckDBDestination
from transforms.destinations.duckdb.tables import STREAMS


class _DuckDB(DuckDBDestination):
    """What a test does besides the protocol: the tables themselves, and another process."""

    def behind_the_back(self, sql: str) -> list[tuple[Any, ...]]:
        cursor = self.session.cursor()
        cursor.execute(sql)
        return cursor.fetchall()

    def forget_stream(self, stream: str) -> None:
        """Days later: the stream has expired."""
        self.behind_the_back(f"DELETE FROM {STREAMS} WHERE stream = '{stream}'")

    def of_another_process(self) -> _DuckDB:
        """The same object: it knows nothing of the streams that it has made."""
        return self


class _BigQuery(BigQueryDestination):
    def __init__(
        self, settings: BigQuerySettings, stand_in: BigQueryStandIn, opened: ExitStack
    ) -> None:
        super().__init__(settings)
        self.stand_in = stand_in
        self._opened = opened

    def behind_the_back(self, sql: str) -> list[tuple[Any, ...]]:
        return self.stand_in.sql(sql)

    def forget_stream(self, stream: str) -> None:
        self.stand_in.forget_stream(stream)

    def apart(self) -> BigQueryDestination:
        """To be opened: it has connections of its own, and has created none of the streams that
        others made.
        """
        return BigQueryDestination(self.settings)

    def of_another_process(self) -> BigQueryDestination:
        """Open until the end of the test: the dead may go on writing."""
        return self._opened.enter_context(self.apart())


@contextmanager
def duckdb_destination(folder: Path) -> Iterator[Any]:
    with _DuckDB(str(folder / "stream.duckdb")) as opened:
        opened.tables.create(SCHEMA)
        yield opened


@contextmanager
def bigquery_destination(_folder: Path) -> Iterator[Any]:
    with pytest.MonkeyPatch.context() as patch, BigQueryStandIn("payments-test", "d") as stand_in:
        patch.setattr(bigquery_retry, "FIRST_DELAY_SECONDS", 0.001)
        with ExitStack() as opened:
            destination = opened.enter_context(_BigQuery(settings_of(stand_in), stand_in, opened))
            destination.tables.create(SCHEMA)
            yield destination
        close_clients()
        assert stand_in.violations == []


DESTINATIONS: dict[str, Callable[[Path], AbstractContextManager[Any]]] = {
    "duckdb": duckdb_destination,
    "bigquery": bigquery_destination,
}
"""Name -> an open destination of its own with its tables, in an empty folder."""


def look(destination: Any, sql: str) -> list[tuple[Any, ...]]:
    """Rows of a query in DuckDB's SQL, straight from the tables."""
    found: list[tuple[Any, ...]] = destination.behind_the_back(sql)
    return found


def tamper(destination: Any, sql: str) -> None:
    """Changes the tables behind the protocol's back."""
    destination.behind_the_back(sql)


def expire(file: Any) -> None:
    """Days later: all write streams of the DuckDB file have expired, committed ones as well."""
    for name in ("_write_stream_appends", "_write_streams"):
        tamper(file, f"DELETE FROM {name}")
