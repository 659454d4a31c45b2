"""The tables and views in DuckDB's SQL."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final, TypeAlias

import duckdb
import pyarrow as pa

from transforms.destinations.contract.tables import has_rows
from transforms.destinations.duckdb.session import DuckDBSession
from transforms.destinations.duckdb.views import VIEWS
from transforms.model.errors import GuaranteeError
from transforms.model.schema import DEDUP_COLUMN, PaymentSchema
from transforms.model.tables import (
    DUPLICATES,
    GAPS,
    GAPS_SCHEMA,
    PAYMENTS,
    REJECTED,
    REJECTED_SCHEMA,
    ROW_TABLES,
    RUNS,
    TIMESTAMP,
    TOTALS,
    TOTALS_TABLE_SCHEMA,
    payment_columns,
)

Columns: TypeAlias = dict[str, tuple[str, bool]]
"""Column of a table -> its type, and whether it may be NULL."""

APPENDS: Final = "_write_stream_appends"
STREAMS: Final = "_write_streams"
REPORTS: Final = "_run_reports"

_PARTITIONS_TYPE: Final = (
    'STRUCT(topic VARCHAR, "partition" INTEGER, topic_id VARCHAR, from_offset BIGINT,'
    " to_offset BIGINT, records BIGINT, gap_offsets BIGINT, coordinate_hash UBIGINT,"
    " start_watermark BIGINT, watermark BIGINT, position_since BIGINT)[]"
)
_TABLES_TYPE: Final = 'STRUCT("table" VARCHAR, "rows" BIGINT, commit_groups VARCHAR[][])[]'
RUNS_DDL: Final = f"""CREATE TABLE IF NOT EXISTS {RUNS} (
    run_id VARCHAR PRIMARY KEY, predecessor VARCHAR, successor VARCHAR, status VARCHAR NOT NULL,
    plan_time TIMESTAMP NOT NULL, cluster_id VARCHAR, partitions {_PARTITIONS_TYPE},
    tables {_TABLES_TYPE}, lowest_watermark BIGINT, live_ids BIGINT, state_bytes BIGINT,
    settings JSON, repairs VARCHAR)"""

_INTERNAL_DDL: Final = (
    f"CREATE TABLE IF NOT EXISTS {STREAMS} (stream VARCHAR PRIMARY KEY,"
    " table_name VARCHAR NOT NULL, next_offset BIGINT NOT NULL, state VARCHAR NOT NULL,"
    " kind VARCHAR NOT NULL)",
    f"CREATE TABLE IF NOT EXISTS {APPENDS} (stream VARCHAR NOT NULL,"
    " stream_offset BIGINT NOT NULL, row_count BIGINT NOT NULL, digest BLOB NOT NULL, ipc BLOB)",
    f"CREATE TABLE IF NOT EXISTS {REPORTS} (run_id VARCHAR NOT NULL, attempt VARCHAR NOT NULL,"
    " reports BLOB[] NOT NULL)",
)


def sql_type(kind: pa.DataType) -> str:
    """DuckDB's type for an Arrow type.

    Times are TIMESTAMP in UTC: TIMESTAMPTZ would make DATE() follow the session's zone.
    """
    if pa.types.is_struct(kind):
        return (
            "STRUCT(" + ", ".join(f'"{field.name}" {sql_type(field.type)}' for field in kind) + ")"
        )
    if pa.types.is_list(kind):
        return sql_type(kind.value_type) + "[]"
    return _TYPES[kind]


_TYPES: Final = {
    pa.string(): "VARCHAR",
    pa.int32(): "INTEGER",
    pa.int64(): "BIGINT",
    pa.float64(): "DOUBLE",
    pa.bool_(): "BOOLEAN",
    pa.binary(): "BLOB",
    pa.date32(): "DATE",
    TIMESTAMP: "TIMESTAMP",
    pa.decimal128(38, 9): "DECIMAL(38,9)",
}


class DuckDBTables:
    """The tables of a DuckDB file; see contract/tables.py."""

    def __init__(self, session: DuckDBSession) -> None:
        self._session = session
        self._created_for: PaymentSchema | None = None

    def create(self, schema: PaymentSchema) -> None:
        # `run --every` asks each second. It goes by what it has created, as long as that is there.
        if schema == self._created_for and _are_complete(self._session.cursor(), _schemas(schema)):
            return
        self._session.atomically(lambda cursor: _create(cursor, _schemas(schema)))
        self._created_for = schema

    def are_for_another_schema(self, schema: PaymentSchema) -> bool:
        return bool(_others(self._existing(), schema))

    def make_anew(self, schema: PaymentSchema, still_mine: Callable[[], None]) -> None:
        def change(cursor: duckdb.DuckDBPyConnection) -> None:
            for table in _others(_existing_columns(cursor), schema):
                if _has_row(cursor, table):
                    raise GuaranteeError(has_rows(table))
                still_mine()
                cursor.execute(f"DROP TABLE {table}")
            _create(cursor, _schemas(schema))

        self._session.atomically(change)

    def preflight(self, schema: PaymentSchema) -> Iterator[tuple[str, str]]:
        existing = self._existing()
        for table, columns in _schemas(schema).items():
            if table in existing:
                additions(table, columns, existing[table])
        yield (
            "tables",
            "all fit the schema"
            if RUNS in existing
            else "not there yet: the first run creates them",
        )

    def exist(self) -> bool:
        return self._session.is_there() and _exists(self._session.cursor(), RUNS)

    def are_empty(self) -> bool:
        existing = self._existing()
        return not any(
            _has_row(self._session.cursor(), table) for table in ROW_TABLES if table in existing
        )

    def _existing(self) -> dict[str, Columns]:
        return _existing_columns(self._session.cursor()) if self._session.is_there() else {}


def _create(cursor: duckdb.DuckDBPyConnection, schemas: dict[str, pa.Schema]) -> None:
    existing = _existing_columns(cursor)
    for table, schema in schemas.items():
        if table not in existing:
            cursor.execute(f"CREATE TABLE {table} ({', '.join(map(_column, schema))})")
            continue
        for field in additions(table, schema, existing[table]):
            cursor.execute(f'ALTER TABLE {table} ADD COLUMN "{field.name}" {sql_type(field.type)}')
    for statement in (*_INTERNAL_DDL, RUNS_DDL, *VIEWS.values()):
        cursor.execute(statement)


def _schemas(schema: PaymentSchema) -> dict[str, pa.Schema]:
    payments = payment_columns(schema.arrow_fields())
    return {
        PAYMENTS: payments,
        DUPLICATES: payments,
        REJECTED: REJECTED_SCHEMA,
        GAPS: GAPS_SCHEMA,
        TOTALS: TOTALS_TABLE_SCHEMA,
    }


def _column(field: pa.Field) -> str:
    """DuckDB's compression of ids, no two of which are equal, would cost a third of its checkpoint,
    to save 22 of a row's 58 bytes (benchmarks/README.md).
    """
    return (
        f'"{field.name}" {sql_type(field.type)}'
        + ("" if field.nullable else " NOT NULL")
        + (" USING COMPRESSION uncompressed" if field.name == DEDUP_COLUMN else "")
    )


def _has_row(cursor: duckdb.DuckDBPyConnection, table: str) -> bool:
    # All of the answer: a cursor with some of it left takes no other question.
    return bool(cursor.execute(f"SELECT 1 FROM {table} LIMIT 1").fetchall())


def _exists(cursor: duckdb.DuckDBPyConnection, table: str) -> bool:
    """Not within a transaction, which the error would end.

    duckdb_tables() would load all of DuckDB's own tables and views first: 10 ms of CPU.
    """
    try:
        cursor.execute(f"SELECT 1 FROM {table} LIMIT 0")
    except duckdb.CatalogException:
        return False
    return True


def _are_complete(cursor: duckdb.DuckDBPyConnection, schemas: dict[str, pa.Schema]) -> bool:
    """Whether every table is there with all its columns, and every view.

    Raises GuaranteeError as `additions`.
    """
    names = (*schemas, STREAMS, APPENDS, REPORTS, RUNS, *VIEWS)
    if not all(_exists(cursor, name) for name in names):
        return False
    return not any(
        additions(table, schema, _columns_of(cursor, table)) for table, schema in schemas.items()
    )


def _columns_of(cursor: duckdb.DuckDBPyConnection, table: str) -> Columns:
    rows: Sequence[tuple[str, str, bool]] = cursor.execute(
        f"SELECT name, type, NOT \"notnull\" FROM pragma_table_info('{table}')"
    ).fetchall()
    return {name: (kind, nullable) for name, kind, nullable in rows}


def _existing_columns(cursor: duckdb.DuckDBPyConnection) -> dict[str, Columns]:
    """The columns of each table, of views too."""
    rows: Sequence[tuple[str, str, str, bool]] = cursor.execute(
        "SELECT table_name, column_name, data_type, is_nullable FROM duckdb_columns() WHERE NOT"
        " internal AND schema_name = 'main' ORDER BY column_index"
    ).fetchall()
    tables: dict[str, Columns] = {}
    for table, column, kind, nullable in rows:
        tables.setdefault(table, {})[column] = (kind, nullable)
    return tables


def _others(existing: dict[str, Columns], schema: PaymentSchema) -> list[str]:
    """Payment tables whose columns are not exactly those of the schema."""
    return [
        table
        for table, columns in _schemas(schema).items()
        if table in (PAYMENTS, DUPLICATES)
        and table in existing
        and {name: (_plain(kind), nullable) for name, (kind, nullable) in existing[table].items()}
        != {field.name: (_plain(sql_type(field.type)), field.nullable) for field in columns}
    ]


def _plain(kind: str) -> str:
    """DuckDB quotes names within a type only where it must."""
    return kind.replace('"', "")


def additions(table: str, schema: pa.Schema, columns: Columns) -> list[pa.Field]:
    """Columns that an existing table lacks and may gain.

    columns: name -> type and whether it is nullable. Raises GuaranteeError for any other difference
    but a nullable column more, which stays NULL.
    """
    missing = []
    for field in schema:
        wanted = sql_type(field.type)
        if field.name not in columns:
            if not field.nullable:
                raise GuaranteeError(
                    f"table {table} has no column {field.name} ({wanted}, REQUIRED), and rows"
                    " without it may exist. Make it NULLABLE, or use"
                    " a new destination."
                )
            missing.append(field)
        elif _plain(columns[field.name][0]) != _plain(wanted):
            raise GuaranteeError(
                f"table {table}: column {field.name} is {columns[field.name][0]}, but the schema"
                " says"
                f" {wanted}. Give it back its type in --schema,"
                " or use a new destination."
            )
    if surplus := [
        name for name, (_, nullable) in columns.items() if name not in schema.names and not nullable
    ]:
        raise GuaranteeError(
            f"table {table} has the NOT NULL column(s) {', '.join(surplus)}, which --schema does"
            " not name. Name them again, or make them nullable."
        )
    return missing
