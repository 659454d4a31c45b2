"""A stand-in for BigQuery, built from its documentation: the Write API over gRPC, tables and query
jobs over HTTP, rows in an embedded DuckDB.

    with BigQueryStandIn(project="p", dataset="d") as stand_in:
        client = bigquery.Client("p", AnonymousCredentials(), client_options={"api_endpoint":
        stand_in.rest_endpoint}) channel = grpc.insecure_channel(stand_in.storage_endpoint)
        write_client = BigQueryWriteClient(transport=BigQueryWriteGrpcTransport(channel=channel))

tests/bigquery_stand_in/test_write_contract.py states what it promises, and runs against the real
service as well.
"""

from tests.bigquery_stand_in.clock import ManualClock
from tests.bigquery_stand_in.faults import Call, ErrorStyle, FaultPlan, Kind, Rule
from tests.bigquery_stand_in.stand_in import BigQueryStandIn

__all__ = ["BigQueryStandIn", "Call", "ErrorStyle", "FaultPlan", "Kind", "ManualClock", "Rule"]
