"""Google's own clients, connected to a stand-in: anonymous, in plaintext."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import grpc
from google.auth.credentials import AnonymousCredentials
from google.cloud import bigquery
from google.cloud.bigquery_storage_v1 import BigQueryWriteClient
from google.cloud.bigquery_storage_v1.services.big_query_write.transports import (
    BigQueryWriteGrpcTransport,
)

from tests.bigquery_stand_in.stand_in import BigQueryStandIn


def rest_client(stand_in: BigQueryStandIn) -> bigquery.Client:
    defaults = (
        bigquery.QueryJobConfig(default_dataset=f"{stand_in.project}.{stand_in.dataset}")
        if stand_in.dataset
        else None
    )
    return bigquery.Client(
        stand_in.project,
        AnonymousCredentials(),
        client_options={"api_endpoint": stand_in.rest_endpoint},
        default_query_job_config=defaults,
    )


@contextmanager
def write_client(stand_in: BigQueryStandIn) -> Iterator[BigQueryWriteClient]:
    with grpc.insecure_channel(stand_in.storage_endpoint) as channel:
        yield BigQueryWriteClient(transport=BigQueryWriteGrpcTransport(channel=channel))
