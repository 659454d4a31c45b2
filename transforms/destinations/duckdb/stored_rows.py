"""The rows of the tables in DuckDB; small tables travel as views of Arrow tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from transforms.destinations.contract.live_ids import SomeShards
from transforms.destinations.contract.seed import Seed, Seeds
from transforms.destinations.duckdb.dialect import DUCKDB
from transforms.destinations.duckdb.live_ids import (
    DIGEST,
    copies_of_none,
    copies_of_seed,
    live_ids,
)
from transforms.destinations.duckdb.session import DuckDBSession
from transforms.destinations.sql.cold_start import of_shards, oldest_event_time
from transforms.destinations.sql.stored_rows import StoredRows
from transforms.model.fingerprints import FINGERPRINT


class DuckDBStoredRows(StoredRows):
    """The rows of a DuckDB file; see contract/stored_rows.py.

    session: open while a question is asked. seeds: of the same file.
    """

    def __init__(self, session: DuckDBSession, seeds: Seeds) -> None:
        super().__init__(DUCKDB, partitioned_by={})
        self._session = session
        self._seeds = seeds

    def live_ids(
        self,
        watermark_us: int | None,
        extra_retention_us: int,
        only: SomeShards | None = None,
        seed: Seed | None = None,
    ) -> pa.Table:
        condition, values = of_shards(DUCKDB, DIGEST, only)
        oldest = oldest_event_time(watermark_us, extra_retention_us)
        values = {"oldest": oldest, **values}
        if seed is not None and seed.reaches(oldest):
            self._seeds.check(seed)
            table = self._ask(live_ids(condition, seed), values)
        else:
            table = self._ask(live_ids(condition), values)
            if seed is not None and self._ask(copies_of_none(condition), values)["n"][0].as_py():
                self._seeds.check(seed)
                table = pa.concat_tables(
                    [table, self._ask(copies_of_seed(condition, seed), values)]
                )
        return table.set_column(0, "fingerprint", table.column("fingerprint").cast(FINGERPRINT))

    def _ask(
        self, sql: str, values: Mapping[str, Any], rows: Mapping[str, pa.Table] | None = None
    ) -> pa.Table:
        given = {self._dialect.given_rows(name): table for name, table in (rows or {}).items()}
        cursor = self._session.cursor()
        for name, table in given.items():
            cursor.register(name, table)
        try:
            return self._session.query(sql, dict(values))
        finally:
            for name in given:
                cursor.unregister(name)
