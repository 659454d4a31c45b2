"""The tables and views in BigQuery: created when missing, compared with the schema before anything
is written.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import pyarrow as pa
from google.api_core.exceptions import BadRequest, Conflict, Forbidden, NotFound, PreconditionFailed
from google.cloud import bigquery

from transforms.destinations.bigquery.queries import Queries, fresh_job_id
from transforms.destinations.bigquery.retry import ROLES
from transforms.destinations.bigquery.run_ledger import create_statement
from transforms.destinations.bigquery.settings import NEVER, BigQuerySettings
from transforms.destinations.bigquery.views import views
from transforms.model.errors import GuaranteeError
from transforms.model.schema import PaymentSchema, SchemaField
from transforms.model.tables import (
    DUPLICATES,
    GAPS,
    GAPS_SCHEMA,
    KAFKA_COLUMNS,
    NUMERIC,
    PAYMENTS,
    REJECTED,
    REJECTED_SCHEMA,
    RUNS,
    TIMESTAMP,
    TOTALS,
    TOTALS_TABLE_SCHEMA,
)

REPORTS: Final = "run_reports"
REPORTS_SCHEMA: Final = pa.schema(
    [
        pa.field("run_id", pa.string(), nullable=False),
        pa.field("attempt", pa.string(), nullable=False),
        pa.field("pieces", pa.int64(), nullable=False),
        pa.field("report", pa.int64(), nullable=False),
        pa.field("piece", pa.int64(), nullable=False),
        pa.field("content", pa.binary(), nullable=False),
    ]
)
_REPORTS_LIVE_MS: Final = 3 * 86_400_000
"""Reports are read by the run that wrote them, within a day; rows of the Write API cannot be
deleted for 30 minutes, so their partitions expire.
"""

_TYPES: Final = {
    pa.string(): "STRING",
    pa.int32(): "INTEGER",
    pa.int64(): "INTEGER",
    pa.binary(): "BYTES",
    TIMESTAMP: "TIMESTAMP",
    NUMERIC: "NUMERIC",
}
_REST_NAMES: Final = {"INT64": "INTEGER", "FLOAT64": "FLOAT", "BOOL": "BOOLEAN"}
_DESCRIPTIONS: Final = {
    "transaction_id": "names the payment; at most one row of payment_transactions has it within the dedup horizon",
    "event_time": "when the payment happened",
    "unknown_fields": "JSON object of the fields that the schema does not name, as text: numbers keep all their digits",
    "kafka_topic": "with partition and offset: the record's coordinate, in one row of one table",
    "kafka_partition": "see kafka_topic",
    "kafka_offset": "see kafka_topic",
    "kafka_timestamp": "of the record, as Kafka has it",
    "ingest_time": "plan time of the run that wrote the row",
    "reason": "why the record is no payment",
    "detail": "which field, and what is wrong with it",
    "payload": "the record's own bytes",
    "first_offset": "first offset that holds no record",
    "last_offset": "last offset that holds no record",
    "cause": "no_record: marker, aborted or compacted; deleted: an accepted loss",
    "window_start": "minute of event time",
    "outcome": "accepted, duplicate or rejected",
    "records": "rows of the table that these totals add up",
    "amount": "",
    "stream_epoch": "streaming: which claim of its shard wrote the row",
    "stream_offset": "streaming: where in its write stream",
    "checksum": "sum of the first 60 bits of the SHA-256 of the ids, modulo 2^60",
}


@dataclass(frozen=True)
class TableShape:
    """partition: column whose day partitions the table, or None for the day of writing.

    Not the window for control_totals: rejected records have windows too, whatever time they bear,
    and a table holds 10,000 partitions.
    """

    name: str
    fields: tuple[bigquery.SchemaField, ...]
    partition: str | None
    cluster: tuple[str, ...] = ()
    expires_after_ms: int | None = None


@dataclass(frozen=True)
class Comparison:
    """missing: tables to be created; found: the others; additions: their new nullable columns by
    table.
    """

    missing: Sequence[TableShape]
    found: Mapping[str, bigquery.Table]
    additions: Mapping[str, Sequence[bigquery.SchemaField]]
    has_ledger: bool


def table_shapes(schema: PaymentSchema) -> list[TableShape]:
    payments = (
        *map(_payment_field, schema.fields),
        *map(_our_field, (pa.field("unknown_fields", pa.string()), *KAFKA_COLUMNS)),
    )
    ours = {name: tuple(map(_our_field, columns)) for name, columns in _OUR_SCHEMAS.items()}
    return [
        TableShape(PAYMENTS, payments, "event_time", ("transaction_id",)),
        TableShape(DUPLICATES, payments, "event_time", ("transaction_id",)),
        TableShape(
            REJECTED,
            ours[REJECTED],
            "ingest_time",
            ("kafka_topic", "kafka_partition", "kafka_offset"),
        ),
        TableShape(GAPS, ours[GAPS], None, ("kafka_topic", "kafka_partition", "first_offset")),
        TableShape(TOTALS, ours[TOTALS], None, ("window_start",)),
        TableShape(REPORTS, ours[REPORTS], None, ("run_id",), _REPORTS_LIVE_MS),
    ]


_OUR_SCHEMAS: Final = {
    REJECTED: REJECTED_SCHEMA,
    GAPS: GAPS_SCHEMA,
    TOTALS: TOTALS_TABLE_SCHEMA,
    REPORTS: REPORTS_SCHEMA,
}


class BigQueryTables:
    """Creates and compares. Calls are idempotent, and two processes may make them at once."""

    def __init__(
        self, client: bigquery.Client, queries: Queries, settings: BigQuerySettings
    ) -> None:
        self._client = client
        self._queries = queries
        self._settings = settings

    def exists(self, name: str) -> bool:
        return self._get(name) is not None

    def compare(self, schema: PaymentSchema) -> Comparison:
        """Everything that is missing or differs is said in one message. Raises GuaranteeError.
        Changes nothing.
        """
        expirations = self._check_dataset()
        shapes = table_shapes(schema)
        found = {
            shape.name: table for shape in shapes if (table := self._get(shape.name)) is not None
        }
        missing = [shape for shape in shapes if shape.name not in found]
        additions = {
            shape.name: _additions(shape, found[shape.name])
            for shape in shapes
            if shape.name in found
        }
        has_ledger = self.exists(RUNS)
        problems = expirations if len(additions) < len(shapes) else []
        problems += [
            problem
            for shape in shapes
            if shape.name in found
            for problem in _differences(shape, found[shape.name])
        ]
        problems += self._not_allowed(
            [*(shape.name for shape in missing), *([] if has_ledger else [RUNS])], additions
        )
        if problems:
            raise GuaranteeError(
                f"the tables in {self._settings.project}.{self._settings.dataset} do not fit:"
                f" {'; '.join(problems)}."
            )
        return Comparison(
            missing,
            found,
            {name: fields for name, fields in additions.items() if fields},
            has_ledger,
        )

    def prepare(self, schema: PaymentSchema) -> None:
        """Creates and extends what the comparison allows. Raises GuaranteeError before anything is
        created.
        """
        compared = self.compare(schema)
        for shape in compared.missing:
            self._create(shape)
        for name, fields in compared.additions.items():
            table = compared.found[name]
            table.schema = [*table.schema, *fields]
            with _explained(f"adding columns to table {self._settings.prefix}{name}"):
                self._client.update_table(table, ["schema"])
        if not compared.has_ledger:
            self.create_with_rows(RUNS, create_statement(self._settings.table(RUNS)))
        if self._settings.create_tables != NEVER:
            self._create_views()

    def _not_allowed(
        self, missing: Sequence[str], additions: dict[str, list[bigquery.SchemaField]]
    ) -> Iterator[str]:
        if missing and self._settings.create_tables == NEVER:
            yield f"missing: {', '.join(missing)}, and --create_tables=never is in force; --create_tables=if_needed creates them"
        for name, fields in additions.items():
            if fields and not self._settings.update_schema:
                yield f"table {name} has no column(s) {', '.join(field.name for field in fields)}; --update_schema adds nullable ones"

    def _check_dataset(self) -> list[str]:
        """What of the dataset's defaults new tables must not have."""
        try:
            found = self._client.get_dataset(f"{self._settings.project}.{self._settings.dataset}")
        except NotFound as error:
            raise GuaranteeError(
                f"--destination=bigquery:{self._settings.project}.{self._settings.dataset}: there"
                " is no such dataset. Create it where your data may"
                " be kept (`bq mk --location=... --dataset PROJECT:DATASET`), or correct the name."
            ) from error
        except Forbidden as error:
            raise GuaranteeError(
                f"BigQuery refuses access to {self._settings.dataset} ({error.message}). {ROLES}"
            ) from error
        defaults = {
            "table": found.default_table_expiration_ms,
            "partition": found.default_partition_expiration_ms,
        }
        return [
            f"the dataset lets each new {what} expire after {after} ms, so payments, and the ledger"
            " that knows of them, would vanish. Take that default"
            " away, or create the tables without it"
            for what, after in defaults.items()
            if after
        ]

    def _get(self, name: str) -> bigquery.Table | None:
        try:
            return self._client.get_table(self._reference(name))
        except NotFound:
            return None
        except Forbidden as error:
            raise GuaranteeError(
                f"BigQuery refuses access to {self._settings.prefix}{name} ({error.message})."
                f" {ROLES}"
            ) from error

    def _reference(self, name: str) -> bigquery.TableReference:
        return bigquery.DatasetReference(self._settings.project, self._settings.dataset).table(
            self._settings.prefix + name
        )

    def _create(self, shape: TableShape) -> None:
        table = bigquery.Table(self._reference(shape.name), schema=list(shape.fields))
        table.time_partitioning = bigquery.TimePartitioning(
            field=shape.partition, expiration_ms=shape.expires_after_ms
        )
        table.clustering_fields = list(shape.cluster) or None
        with _explained(f"creating table {self._settings.prefix}{shape.name}"):
            self._client.create_table(table, exists_ok=True)

    def create_with_rows(self, name: str, statement: str) -> None:
        """A ledger, by CREATE TABLE AS SELECT; of two processes one fails, because the table is
        there. Nothing if it is there already.
        """
        if self.exists(name):
            return
        if self._settings.create_tables == NEVER:
            raise GuaranteeError(
                f"missing: {name}, and --create_tables=never is in force; --create_tables=if_needed"
                " creates it."
            )
        try:
            self._queries.execute(statement, (), fresh_job_id("create"))
        except (GuaranteeError, Conflict):
            if not self.exists(name):
                raise

    def _create_views(self) -> None:
        for name, sql in views(self._settings).items():
            with _explained(f"creating view {self._settings.prefix}{name}"):
                self._queries.execute(
                    f"CREATE OR REPLACE VIEW {self._settings.table(name)} AS {sql}",
                    (),
                    fresh_job_id("view"),
                )


@contextmanager
def _explained(what: str) -> Iterator[None]:
    """Two runs may do the same at one moment; the next one finds it done."""
    try:
        yield
    except (BadRequest, Conflict, Forbidden, PreconditionFailed) as error:
        raise GuaranteeError(
            f"BigQuery refuses {what} ({error.message}). Nothing was read; run again, and see"
            f" {ROLES}"
        ) from error


def _payment_field(field: SchemaField) -> bigquery.SchemaField:
    nested = tuple(map(_payment_field, field.fields))
    kind = _REST_NAMES.get(field.type, field.type)
    return bigquery.SchemaField(
        field.column, kind, field.mode, description=_DESCRIPTIONS.get(field.column), fields=nested
    )


def _our_field(field: pa.Field) -> bigquery.SchemaField:
    mode = "NULLABLE" if field.nullable else "REQUIRED"
    return bigquery.SchemaField(
        field.name, _TYPES[field.type], mode, description=_DESCRIPTIONS.get(field.name) or None
    )


def _additions(shape: TableShape, table: bigquery.Table) -> list[bigquery.SchemaField]:
    """Columns that the table lacks and may gain."""
    there = {field.name.lower() for field in table.schema}
    return [
        field
        for field in shape.fields
        if field.name.lower() not in there and field.mode != "REQUIRED"
    ]


def _differences(shape: TableShape, table: bigquery.Table) -> Iterator[str]:
    there = {field.name.lower(): field for field in table.schema}
    lacking = [
        field.name
        for field in shape.fields
        if field.name.lower() not in there and field.mode == "REQUIRED"
    ]
    if ours := [name for name in lacking if name.startswith("kafka_") or name == "ingest_time"]:
        yield (
            f"table {shape.name} lacks the column(s) {', '.join(ours)}, so nobody can tell which"
            " Kafka record a row came from, and no guarantee can"
            " be given for it. Use another dataset or a --table_prefix, and copy the old rows into"
            " a table of their own"
        )
    if others := [name for name in lacking if name not in ours]:
        yield f"table {shape.name} lacks the REQUIRED column(s) {', '.join(others)}, and rows without them may exist"
    for field in shape.fields:
        found = there.get(field.name.lower())
        if found is not None and (wanted := _kind(field)) != (seen := _kind(found)):
            yield f"table {shape.name}: column {field.name} is {seen}, the schema says {wanted}"
    yield from _retention(shape, table)
    known = {field.name.lower() for field in shape.fields}
    if needed := [
        field.name
        for field in table.schema
        if field.name.lower() not in known and field.mode == "REQUIRED"
    ]:
        yield f"table {shape.name} has the REQUIRED column(s) {', '.join(needed)}, which --schema does not name"


def _retention(shape: TableShape, table: bigquery.Table) -> Iterator[str]:
    """What would take rows away, or hide them from a query that must see all."""
    if table.expires is not None:
        yield f"table {shape.name} expires at {table.expires}; take its expiration away"
    partitioning = table.time_partitioning
    if partitioning is not None and partitioning.expiration_ms and shape.expires_after_ms is None:
        yield f"partitions of table {shape.name} expire after {partitioning.expiration_ms} ms; take that away"
    if table.require_partition_filter:
        yield f"table {shape.name} requires a partition filter, but coordinates of all partitions must be seen; take that requirement away"


def _kind(field: bigquery.SchemaField) -> str:
    """Type and mode, and what narrows the type."""
    kind = {"STRUCT": "RECORD", **_REST_NAMES}.get(field.field_type, field.field_type)
    if limits := [
        str(limit)
        for limit in (field.precision, field.scale, field.max_length)
        if limit is not None
    ]:
        kind += f"({', '.join(limits)})"
    nested = ", ".join(f"{inner.name} {_kind(inner)}" for inner in field.fields)
    return f"{kind} {field.mode}" + (f" ({nested})" if nested else "")
