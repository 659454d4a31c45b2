"""Limits of BigQuery as constants, with their source: bytes, seconds and counts."""

from __future__ import annotations

from typing import Final

from transforms.destinations.contract.destination import SmallRun

MAX_RECORD_BYTES: Final = 8 << 20
"""Bytes of a rejected record that are kept.

They have to fit one request together with the record's other columns.
"""

CREATE_STREAMS_PER_HOUR: Final = 10_000
"""CreateWriteStream requests an hour, per project and region.

See https://cloud.google.com/bigquery/quotas#createwritestream.
"""

SMALL_RUN: Final = SmallRun(streams=6, queries=8, billed_bytes=110 << 20)
"""Of a process that goes on: the ids are in memory. A stream for each table and one for the reports
of a single shard; each query is billed for at least 10 MB of each table that it reads
(https://cloud.google.com/bigquery/pricing#on_demand_pricing). Counted by
tests/unit/run/test_every_bigquery.py.
"""

MAX_ROW_BYTES: Final = 19_000_000
"""One row alone in a request may be larger than other appends.

It may have up to what the service takes (see MAX_APPEND_BYTES in
transforms/destinations/appends.py).
"""

MAX_BYTES_IN_FLIGHT: Final = 64 << 20
"""Rows that wait for their acknowledgement in one bundle, over all its streams.

Each is in memory twice, as columns and as a message.
"""

MAX_PARAMETER_BYTES: Final = 5_000_000
"""Text in the parameters of one query.

A request may have 10 MB, parameters included (https://cloud.google.com/bigquery/quotas#query_jobs),
and every quote of JSON within JSON takes two bytes.
"""

MAX_CONNECTIONS: Final = 64
"""AppendRows connections at one moment over one channel, and in a bounded run at all.

An HTTP/2 connection of the service carries about 100 streams, and the next one waits for ever
(https://github.com/googleapis/nodejs-bigquery-storage/issues/423).
"""

ANSWER_SECONDS: Final = 120.0
"""How long an append may stay unanswered before its connection counts as broken.

The service answers within seconds; above 40 to 50 new streams a second it takes more than 25 s
(https://cloud.google.com/bigquery/docs/write-api-best-practices#limit_the_rate_of_stream_creation).
"""
