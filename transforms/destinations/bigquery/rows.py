"""Rows on their way to BigQuery as Arrow record batches, and the error for rows that it refuses.

No Python object is made per row. Types:
https://cloud.google.com/bigquery/docs/supported-data-types#supported_apache_arrow_data_types
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

import pyarrow as pa

from transforms.destinations.bigquery.answers import Answer
from transforms.model.errors import GuaranteeError

_SHOWN: Final = 20


def serialize_rows(rows: pa.RecordBatch) -> bytes:
    """One encapsulated IPC message, without the schema."""
    return bytes(rows.cast(_wire_schema(rows.schema)).serialize())


@lru_cache(maxsize=32)
def serialize_schema(schema: pa.Schema) -> bytes:
    return bytes(_wire_schema(schema).serialize())


@lru_cache(maxsize=32)
def _wire_schema(schema: pa.Schema) -> pa.Schema:
    return pa.schema(
        [pa.field(field.name, _wire_type(field.type), field.nullable) for field in schema]
    )


def _wire_type(kind: pa.DataType) -> pa.DataType:
    """The type that is sent: 64 bits for every integer, as clients usually send them.

    INT64 columns are documented to take any integer.
    """
    return pa.int64() if kind == pa.int32() else kind


class RowsRefused(GuaranteeError):
    """Rows that the decoder accepted and BigQuery refuses: exit status 3, and what to do.

    Nothing of the append was written.
    """

    def __init__(self, rows: pa.RecordBatch, answer: Answer) -> None:
        refused = [(_coordinate(rows, index), message) for index, message in answer.row_errors]
        known = [(coordinate, message) for coordinate, message in refused if coordinate is not None]
        listed = "; ".join(f"{coordinate}: {message}" for coordinate, message in refused[:_SHOWN])
        more = f" and {len(refused) - _SHOWN} more" if len(refused) > _SHOWN else ""
        if "reason" in rows.schema.names:
            advice = (
                "they are rejected records already. Lower --max_record_bytes, so that less of their"
                " bytes is kept, and run again."
            )
        elif known and len(known) == len(refused):
            flag = ",".join(str(coordinate) for coordinate, _ in known)
            advice = (
                f"run again with --reject_records={flag}: exactly those records then go to"
                " rejected_records (refused_by_destination)."
            )
        else:
            advice = "report this line: these rows are the pipeline's own."
        super().__init__(
            f"BigQuery refuses rows that the decoder let through: {listed}{more}. Nothing of them"
            f" is visible; {advice}"
        )


def _coordinate(rows: pa.RecordBatch, index: int) -> str | None:
    """topic:partition:offset of a row of the three tables of records."""
    if "kafka_offset" not in rows.schema.names or not 0 <= index < rows.num_rows:
        return None
    return ":".join(
        str(rows.column(name)[index].as_py())
        for name in ("kafka_topic", "kafka_partition", "kafka_offset")
    )
