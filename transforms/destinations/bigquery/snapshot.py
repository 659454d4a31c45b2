"""BigQuery's tables as they were at one moment, by time travel.

Base tables only: what a view answers as of a moment is documented nowhere, so the questions name
none (https://cloud.google.com/bigquery/docs/access-historical-data).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pyarrow as pa

from transforms.destinations.bigquery.checks import bigquery_checks
from transforms.destinations.bigquery.dialect import as_of_moment
from transforms.destinations.bigquery.run_ledger import BigQueryRunHistory
from transforms.destinations.contract.seed import Seeds
from transforms.model.tables import RUNS


class BigQuerySnapshot:
    """contract/snapshot.py.

    ask: (text, parameters by name) -> answer. table: name of a table -> its full name, quoted.
    moment_us: microseconds since 1970, not in the future. seeds: of the destination.
    """

    def __init__(
        self,
        ask: Callable[[str, Mapping[str, Any]], pa.Table],
        table: Callable[[str], str],
        moment_us: int,
        seeds: Seeds,
    ) -> None:
        as_of = as_of_moment(moment_us)
        self._ask = ask
        self.seeds = seeds
        self.checks = bigquery_checks(table, as_of)
        self.runs = BigQueryRunHistory(ask, table(RUNS) + as_of)

    def query(self, sql: str, parameters: Mapping[str, Any] | None = None) -> pa.Table:
        return self._ask(sql, parameters or {})
