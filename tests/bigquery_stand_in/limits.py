"""What BigQuery documents about itself, as constants with their source. Sizes in bytes, times as
timedelta.
"""

from datetime import timedelta
from typing import Final

WRITE_API: Final = "https://cloud.google.com/bigquery/docs/write-api"
WRITE_API_STREAMING: Final = "https://cloud.google.com/bigquery/docs/write-api-streaming"
WRITE_API_BATCH: Final = "https://cloud.google.com/bigquery/docs/write-api-batch"
WRITE_API_PRACTICES: Final = "https://cloud.google.com/bigquery/docs/write-api-best-practices"
WRITE_API_RPC: Final = (
    "https://cloud.google.com/bigquery/docs/reference/storage/rpc/google.cloud.bigquery.storage.v1"
)
WRITE_API_TYPES: Final = "https://cloud.google.com/bigquery/docs/supported-data-types"
WRITE_API_LIMITS: Final = "https://cloud.google.com/bigquery/quotas#write-api-limits"
DML: Final = "https://cloud.google.com/bigquery/docs/data-manipulation-language"
DML_SYNTAX: Final = "https://cloud.google.com/bigquery/docs/reference/standard-sql/dml-syntax"
DML_CONCURRENCY: Final = (
    "https://cloud.google.com/bigquery/docs/data-manipulation-language#concurrent_jobs"
)
REST: Final = "https://cloud.google.com/bigquery/docs/reference/rest/v2"
REST_ERRORS: Final = "https://cloud.google.com/bigquery/docs/error-messages"
COSTS: Final = "https://cloud.google.com/bigquery/docs/best-practices-costs#restrict-bytes-billed"

TIME_TRAVEL: Final = "https://cloud.google.com/bigquery/docs/access-historical-data"
TIME_TRAVEL_SYNTAX: Final = "https://cloud.google.com/bigquery/docs/reference/standard-sql/query-syntax#for_system_time_as_of"

TIME_TRAVEL_WINDOW: Final = timedelta(days=7)
"""TIME_TRAVEL: how far back a table's rows can be asked for."""

MAX_APPEND_BYTES: Final = 20_000_000
"""AppendRowsRequest: "must be less than 20 MB" (WRITE_API_RPC); the quota page has said 10 MB for
years, so clients stay below that.
"""

MAX_STREAMS_PER_COMMIT: Final = 10_000
"""WRITE_API_LIMITS: streams in one BatchCommitWriteStreams call."""

CREATE_STREAMS_PER_HOUR: Final = 10_000
"""WRITE_API_LIMITS: CreateWriteStream calls per hour, project and region."""

COMMITTED_IDLE: Final = timedelta(days=3)
BUFFERED_IDLE: Final = timedelta(days=7)
PENDING_UNTIL_FINALIZED: Final = timedelta(hours=24)
PENDING_UNTIL_COMMITTED: Final = timedelta(hours=4)
"""Lifetimes of streams (WRITE_API, WRITE_API_BATCH): idle time since the last append; for PENDING
the safe reading of what is documented: finalized within 24 hours, committed within 4 hours after
that.
"""

DML_AFTER_STREAMING: Final = timedelta(minutes=30)
"""DML: rows written by the Write API cannot be changed by UPDATE, DELETE, MERGE or TRUNCATE for 30
minutes.
"""

REQUEST_ID_LIFETIME: Final = timedelta(minutes=15)
"""REST/jobs/query: for so long a requestId makes a repeated call the same call."""

MIN_BYTES_BILLED_PER_TABLE: Final = 10 << 20
BYTES_BILLED_UNIT: Final = 1 << 20
"""COSTS and the pricing page: bytes are billed in whole MB, and at least 10 MB for each table that
a query reads.
"""

QUERY_LIMITS: Final = "https://cloud.google.com/bigquery/quotas#query_jobs"

MAX_QUERY_BYTES: Final = 1 << 20
MAX_REQUEST_BYTES: Final = 10 << 20
MAX_PARAMETERS: Final = 10_000
"""QUERY_LIMITS: length of an unresolved query, size of a whole jobs.insert or jobs.query request
with its parameters, named parameters.
"""
