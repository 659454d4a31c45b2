"""The stand-in as tests use it: both servers, started and stopped together."""

from __future__ import annotations

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import grpc

from tests.bigquery_stand_in import limits
from tests.bigquery_stand_in.clock import Clock, system_clock
from tests.bigquery_stand_in.faults import FaultPlan
from tests.bigquery_stand_in.rest.api import RestApi
from tests.bigquery_stand_in.rest.jobs import Jobs
from tests.bigquery_stand_in.rest.server import RestServer
from tests.bigquery_stand_in.sql.statements import Statements
from tests.bigquery_stand_in.storage.append_connection import AppendConnection
from tests.bigquery_stand_in.storage.service import StorageService
from tests.bigquery_stand_in.storage.write_streams import WriteStreams
from tests.bigquery_stand_in.warehouse import Warehouse

_CONNECTIONS: Final = 512
"""Each open AppendRows connection holds a thread of the server."""


class BigQueryStandIn:
    """`with BigQueryStandIn() as stand_in:` runs both servers on free ports of 127.0.0.1.

    dataset: created at once if given. database: a DuckDB file, for tables that outlive the process;
    write streams and jobs do not. clock: a function that answers an aware datetime, read at every
    use; may be replaced through `stand_in.clock`. strict: other rows at a known offset are a
    violation and an INTERNAL answer. discard_rows: appends are counted and thrown away.
    dml_on_fresh_rows: allow UPDATE, DELETE and MERGE on tables that the Write API wrote to within
    the last 30 minutes. keep_history: FOR SYSTEM_TIME AS OF answers for every moment, by a copy of
    a table before each change; without it only for moments after the last one, and is refused for
    others.
    """

    def __init__(
        self,
        project: str = "p",
        dataset: str | None = None,
        *,
        database: str = ":memory:",
        clock: Clock = system_clock,
        strict: bool = True,
        discard_rows: bool = False,
        max_append_bytes: int = limits.MAX_APPEND_BYTES,
        streams_per_hour: int = limits.CREATE_STREAMS_PER_HOUR,
        dml_on_fresh_rows: bool = False,
        keep_history: bool = False,
    ) -> None:
        self.project = project
        self.dataset = dataset
        self.clock = clock
        self.faults = FaultPlan()
        self._stopping = threading.Event()
        self._warehouse = Warehouse(project, database, lambda: self.clock(), keep_history)
        if dataset is not None and dataset not in self._warehouse.datasets:
            self._warehouse.create_dataset(dataset, {"location": "US"})
        self._streams = WriteStreams(self._warehouse, strict and not discard_rows, streams_per_hour)
        api = RestApi(
            self._warehouse,
            Jobs(self._warehouse, Statements(self._warehouse, dml_on_fresh_rows), self.faults),
        )
        self._rest = RestServer(api, self.faults, self._stopping)
        self._grpc = grpc.server(
            ThreadPoolExecutor(_CONNECTIONS, thread_name_prefix="bigquery_stand_in"),
            options=[
                ("grpc.max_receive_message_length", -1),
                ("grpc.max_send_message_length", -1),
                ("grpc.so_reuseport", 0),
            ],
        )
        service = StorageService(
            self._streams,
            self.faults,
            lambda: AppendConnection(self._streams, max_append_bytes, discard_rows),
            self._stopping,
        )
        self._grpc.add_generic_rpc_handlers((service.handler(),))
        self._storage_port = self._grpc.add_insecure_port("127.0.0.1:0")
        self._rest_thread = threading.Thread(
            target=self._rest.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        )

    def __enter__(self) -> BigQueryStandIn:
        self._grpc.start()
        self._rest_thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stopping.set()
        self._grpc.stop(None).wait()
        self._rest.shutdown()
        self._rest.server_close()
        self._rest_thread.join()
        self._warehouse.close()

    @property
    def rest_endpoint(self) -> str:
        """For google.cloud.bigquery.Client: client_options={"api_endpoint": ...}."""
        return f"http://127.0.0.1:{self._rest.server_address[1]}"

    @property
    def storage_endpoint(self) -> str:
        """For an insecure channel of BigQueryWriteGrpcTransport."""
        return f"127.0.0.1:{self._storage_port}"

    @property
    def calls(self) -> Counter[str]:
        """How often each RPC and REST method was called; every request of an AppendRows connection
        counts.
        """
        return self.faults.calls

    @property
    def violations(self) -> list[str]:
        """Strict mode: what no correct client does. Tests assert that the list is empty."""
        return self._streams.violations

    def sql(self, query: str) -> list[tuple[Any, ...]]:
        """Rows of a query in DuckDB's SQL, straight from the tables, past everything that the
        stand-in checks.
        """
        with self._warehouse.cursor() as cursor:
            if self.dataset is not None:
                cursor.execute(f"SET search_path='{self.dataset},main'")
            return cursor.execute(query).fetchall()

    def forget_stream(self, name: str) -> None:
        """As if its lifetime were over: every call answers NOT_FOUND, rows that were not visible
        yet are lost.
        """
        self._streams.forget(name)
