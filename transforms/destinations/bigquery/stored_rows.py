"""The rows of the tables in BigQuery: one query per question, small tables as parameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeAlias

import pyarrow as pa

from transforms.destinations.bigquery.dialect import google_sql
from transforms.destinations.bigquery.live_ids import live_ids
from transforms.destinations.bigquery.parameters import Parameter, array_of_rows, parameter
from transforms.destinations.contract.live_ids import SomeShards
from transforms.destinations.contract.seed import Seed, Seeds
from transforms.destinations.sql.cold_start import of_shards
from transforms.destinations.sql.stored_rows import StoredRows
from transforms.model.tables import DUPLICATES, PAYMENTS, REJECTED, TOTALS

Query: TypeAlias = Callable[[str, Sequence[Parameter]], pa.Table]
"""Text and parameters -> answer: Queries.query."""

_PARTITIONED_BY: Final = {
    PAYMENTS: "event_time",
    DUPLICATES: "event_time",
    REJECTED: "ingest_time",
    TOTALS: "window_start",
}
"""Column that the table is partitioned by; `control_totals` is clustered by it.

A row that is there has the same value in it as the row that was sent, so other partitions are not
read.
"""


class BigQueryStoredRows(StoredRows):
    """The rows of a BigQuery dataset; see contract/stored_rows.py.

    query: Queries.query; table: name of a table -> its full name, quoted.
    seeds: of the same project.
    """

    def __init__(self, query: Query, table: Callable[[str], str], seeds: Seeds) -> None:
        super().__init__(google_sql(table), _PARTITIONED_BY)
        self._query = query
        self._table = table
        self._seeds = seeds

    def live_ids(
        self,
        watermark_us: int | None,
        extra_retention_us: int,
        only: SomeShards | None = None,
        seed: Seed | None = None,
    ) -> pa.Table:
        shards = of_shards(self._dialect, "TO_HEX(digest)", only)
        return live_ids(
            self._ask, self._table, watermark_us, extra_retention_us, shards, seed, self._seeds
        )

    def _ask(
        self, sql: str, values: Mapping[str, Any], rows: Mapping[str, pa.Table] | None = None
    ) -> pa.Table:
        given = [array_of_rows(name, table) for name, table in (rows or {}).items()]
        return self._query(sql, [*given, *(parameter(*one) for one in values.items())])
