"""The tables as BigQuery should have them, and how one that is there differs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import pyarrow as pa
from google.cloud import bigquery

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
_REPORTS_LIVE_MS: Final = 6 * 3_600_000
"""How long partitions of the reports live, each of an hour.

Reports are read by the run that wrote them, as soon as its graph has ended; a driver that was
suspended for longer finds none, and nothing of its run becomes visible. Rows of the Write API
cannot be deleted for 30 minutes, so their partitions expire. What a run reads of them is that of
all runs of these hours.
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
    "transaction_id": "names the payment; at most one row of payment_transactions has it within the"
    " dedup horizon",
    "event_time": "when the payment happened",
    "unknown_fields": "JSON object of the fields that the schema does not name, as text: numbers"
    " keep all their digits",
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
    """What a table of BigQuery is created with.

    partition: column whose day partitions the table, or None for the time of writing. Not the
    window for control_totals: rejected records have windows too, at any event time, and a table
    holds 10,000 partitions. unit: of a partition, DAY or HOUR. expires_after_ms: age at which a
    partition is deleted, None for never.
    """

    name: str
    fields: tuple[bigquery.SchemaField, ...]
    partition: str | None
    cluster: tuple[str, ...] = ()
    expires_after_ms: int | None = None
    unit: str = bigquery.TimePartitioningType.DAY


def table_shapes(schema: PaymentSchema) -> list[TableShape]:
    """The shapes of all tables but the ledgers, which are created with their first rows."""
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
        TableShape(
            REPORTS,
            ours[REPORTS],
            None,
            ("run_id",),
            _REPORTS_LIVE_MS,
            bigquery.TimePartitioningType.HOUR,
        ),
    ]


_OUR_SCHEMAS: Final = {
    REJECTED: REJECTED_SCHEMA,
    GAPS: GAPS_SCHEMA,
    TOTALS: TOTALS_TABLE_SCHEMA,
    REPORTS: REPORTS_SCHEMA,
}


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


def lacking_columns(shape: TableShape, table: bigquery.Table) -> list[bigquery.SchemaField]:
    """Columns that the table lacks and may gain."""
    there = {field.name.lower() for field in table.schema}
    return [
        field
        for field in shape.fields
        if field.name.lower() not in there and field.mode != "REQUIRED"
    ]


def differences(shape: TableShape, table: bigquery.Table) -> Iterator[str]:
    """Why a run must not write to the table: a sentence for each difference."""
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
        yield (
            f"table {shape.name} lacks the REQUIRED column(s) {', '.join(others)}, and rows without"
            " them may exist"
        )
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
        yield (
            f"table {shape.name} has the REQUIRED column(s) {', '.join(needed)}, which --schema"
            " does not name"
        )


def has_other_columns(shape: TableShape, table: bigquery.Table) -> bool:
    """Whether the table's columns are not exactly the shape's, in any order."""
    wanted, found = (
        {field.name.lower(): _kind(field) for field in fields}
        for fields in (shape.fields, table.schema)
    )
    return wanted != found


def _retention(shape: TableShape, table: bigquery.Table) -> Iterator[str]:
    """Settings of the table that remove rows, or hide them from a query that must see all."""
    if table.expires is not None:
        yield f"table {shape.name} expires at {table.expires}; take its expiration away"
    partitioning = table.time_partitioning
    if partitioning is not None and partitioning.expiration_ms and shape.expires_after_ms is None:
        yield (
            f"partitions of table {shape.name} expire after {partitioning.expiration_ms} ms; take"
            " that away"
        )
    if table.require_partition_filter:
        yield (
            f"table {shape.name} requires a partition filter, but coordinates of all partitions"
            " must be seen; take that requirement away"
        )


def _kind(field: bigquery.SchemaField) -> str:
    """Type and mode of a field, with its precision, scale, length and nested fields."""
    kind = {"STRUCT": "RECORD", **_REST_NAMES}.get(field.field_type, field.field_type)
    if limits := [
        str(limit)
        for limit in (field.precision, field.scale, field.max_length)
        if limit is not None
    ]:
        kind += f"({', '.join(limits)})"
    nested = ", ".join(f"{inner.name} {_kind(inner)}" for inner in field.fields)
    return f"{kind} {field.mode}" + (f" ({nested})" if nested else "")
