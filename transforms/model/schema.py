"""The payment schema: the fields of a message, as the columns of the payment tables."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import pyarrow as pa

from transforms.model.tables import NUMERIC, TIMESTAMP

DEDUP_COLUMN: Final = "transaction_id"
EVENT_TIME_COLUMN: Final = "event_time"

ARROW_TYPES: Final[dict[str, pa.DataType]] = {
    "STRING": pa.string(),
    "INT64": pa.int64(),
    "FLOAT64": pa.float64(),
    "BOOL": pa.bool_(),
    "NUMERIC": NUMERIC,
    "TIMESTAMP": TIMESTAMP,
    "DATE": pa.date32(),
    "BYTES": pa.binary(),
    "JSON": pa.string(),
}
"""BigQuery's type -> Arrow's; RECORD, the one type that is missing here, becomes a struct."""


EPOCH_UNITS: Final = ("s", "ms", "us", "ns")
"""Units of a time that is a number: how many have passed since 1970 in UTC."""


@dataclass(frozen=True)
class SchemaField:
    """One field of a message, and the column it becomes.

    name: the JSON name in the message. column: its name in the table. type, mode: as in a BigQuery
    schema (INT64, NULLABLE ...). fields: those of a RECORD. epoch_unit: of a TIMESTAMP, the one of
    EPOCH_UNITS that its numbers count; None: a number is no time.
    """

    name: str
    column: str
    type: str
    mode: str
    fields: tuple[SchemaField, ...] = ()
    epoch_unit: str | None = None

    def arrow_field(self) -> pa.Field:
        """The column of the payment tables: its name, Arrow type and nullability."""
        kind = (
            pa.struct([field.arrow_field() for field in self.fields])
            if self.type == "RECORD"
            else ARROW_TYPES[self.type]
        )
        if self.mode == "REPEATED":
            return pa.field(self.column, pa.list_(pa.field("item", kind)))
        return pa.field(self.column, kind, nullable=self.mode != "REQUIRED")

    def to_json(self) -> dict[str, Any]:
        """The entry of a BigQuery JSON schema file, with the column's name."""
        nested = {"fields": [field.to_json() for field in self.fields]} if self.fields else {}
        return {"name": self.column, "type": self.type, "mode": self.mode, **nested}


@dataclass(frozen=True)
class PaymentSchema:
    """All fields of a message, and what some of them mean.

    dedup_key, event_time_field: JSON names of the fields that become `transaction_id` and
    `event_time`. amount_column (NUMERIC or INT64) and currency_column (STRING) feed the control
    totals; None: totals without them.
    """

    fields: tuple[SchemaField, ...]
    dedup_key: str
    event_time_field: str
    amount_column: str | None
    currency_column: str | None

    def arrow_fields(self) -> list[pa.Field]:
        """The columns of the payment tables that come from the message, in order."""
        return [field.arrow_field() for field in self.fields]

    def epoch_units(self) -> dict[str, str]:
        """Path of each TIMESTAMP whose numbers are times -> their unit, for the ledger."""
        return dict(_epoch_units(self.fields, ""))

    def to_json(self) -> list[dict[str, Any]]:
        """Canonical form with the table's column names, for the ledger."""
        return [field.to_json() for field in self.fields]


def _epoch_units(fields: Iterable[SchemaField], parent: str) -> Iterator[tuple[str, str]]:
    for field in fields:
        if field.epoch_unit is not None:
            yield f"{parent}{field.column}", field.epoch_unit
        yield from _epoch_units(field.fields, f"{parent}{field.column}.")
