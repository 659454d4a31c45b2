"""BigQuery as the contract tests see it: the stand-in, or the real service where BIGQUERY_PROJECT
and BIGQUERY_DATASET are set.
"""

import datetime
import os
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import pyarrow as pa
from google.cloud import bigquery
from google.cloud.bigquery_storage_v1 import BigQueryWriteClient, types

from tests.bigquery_stand_in.appending import SECONDS, append

PROJECT, DATASET = os.environ.get("BIGQUERY_PROJECT"), os.environ.get("BIGQUERY_DATASET")
PENDING, COMMITTED, BUFFERED = (
    types.WriteStream.Type[name] for name in ("PENDING", "COMMITTED", "BUFFERED")
)
UTC = datetime.timezone.utc

COLUMNS = [
    bigquery.SchemaField("id", "STRING", "REQUIRED"),
    bigquery.SchemaField("amount", "NUMERIC"),
    bigquery.SchemaField("at", "TIMESTAMP"),
]
ARROW = pa.schema(
    [("id", pa.string()), ("amount", pa.decimal128(38, 9)), ("at", pa.timestamp("us", tz="UTC"))]
)


def source(url: str) -> Callable[[Any], Any]:
    """Gives a test the URL of what it states as its docstring."""

    def named(test: Any) -> Any:
        test.__doc__ = f"Source: {url}"
        return test

    return named


def rows(*ids: str | None, amount: str | None = "1.5") -> pa.RecordBatch:
    """Rows for COLUMNS."""
    at = datetime.datetime(2026, 8, 1, tzinfo=UTC)
    records = [
        {"id": row_id, "amount": None if amount is None else Decimal(amount), "at": at}
        for row_id in ids
    ]
    return pa.RecordBatch.from_pylist(records, schema=ARROW)


@dataclass
class Service:
    """Either BigQuery. table: an empty one with COLUMNS, for this test alone."""

    project: str
    dataset: str
    client: bigquery.Client
    writer: BigQueryWriteClient

    def create_table(self, columns: list[bigquery.SchemaField] = COLUMNS) -> str:
        name = f"contract_{uuid.uuid4().hex}"
        self.client.create_table(bigquery.Table(f"{self.project}.{self.dataset}.{name}", columns))
        return f"projects/{self.project}/datasets/{self.dataset}/tables/{name}"

    def create_stream(self, table: str, kind: types.WriteStream.Type = PENDING) -> str:
        return self.writer.create_write_stream(
            parent=table, write_stream=types.WriteStream(type_=kind), retry=None, timeout=SECONDS
        ).name

    def finalize(self, stream: str) -> int:
        return self.writer.finalize_write_stream(name=stream, retry=None, timeout=SECONDS).row_count

    def commit(self, table: str, *streams: str) -> types.BatchCommitWriteStreamsResponse:
        request = types.BatchCommitWriteStreamsRequest(parent=table, write_streams=streams)
        return self.writer.batch_commit_write_streams(request, retry=None, timeout=SECONDS)

    def finished(self, table: str, *ids: str) -> str:
        """A finalized pending stream with these rows."""
        stream = self.create_stream(table)
        if ids:
            append(self.writer, stream, 0, rows(*ids))
        self.finalize(stream)
        return stream

    def query(self, sql: str, *parameters: Any, **config: Any) -> list[tuple[Any, ...]]:
        job = self.client.query(
            sql,
            job_config=bigquery.QueryJobConfig(query_parameters=list(parameters), **config),
            job_retry=None,
        )
        return [tuple(row.values()) for row in job.result(job_retry=None)]

    def ids(self, table: str) -> list[str]:
        return [
            row_id
            for (row_id,) in self.query(f"SELECT id FROM {table.rsplit('/', 1)[-1]} ORDER BY id")
        ]
