"""The calls of the Write API in short, on the table d.t of project p."""

import pyarrow as pa
from google.cloud import bigquery
from google.cloud.bigquery_storage_v1 import BigQueryWriteClient, types

from tests.bigquery_stand_in.appending import SECONDS
from tests.bigquery_stand_in.clients import rest_client
from tests.bigquery_stand_in.stand_in import BigQueryStandIn

TABLE = "projects/p/datasets/d/tables/t"
PENDING, COMMITTED, BUFFERED = (
    types.WriteStream.Type[name] for name in ("PENDING", "COMMITTED", "BUFFERED")
)


def create_table(stand_in: BigQueryStandIn) -> None:
    """The table d.t, with one REQUIRED column."""
    rest_client(stand_in).create_table(
        bigquery.Table("p.d.t", [bigquery.SchemaField("id", "STRING", "REQUIRED")])
    )


def rows(*ids: str | None) -> pa.RecordBatch:
    return pa.RecordBatch.from_pydict({"id": pa.array(ids, pa.string())})


def create(writer: BigQueryWriteClient, kind: types.WriteStream.Type = PENDING) -> str:
    return writer.create_write_stream(
        parent=TABLE, write_stream=types.WriteStream(type_=kind), retry=None, timeout=SECONDS
    ).name


def finalize(writer: BigQueryWriteClient, stream: str) -> int:
    return writer.finalize_write_stream(name=stream, retry=None, timeout=SECONDS).row_count


def commit(writer: BigQueryWriteClient, *streams: str) -> types.BatchCommitWriteStreamsResponse:
    request = types.BatchCommitWriteStreamsRequest(parent=TABLE, write_streams=streams)
    return writer.batch_commit_write_streams(request, retry=None, timeout=SECONDS)
