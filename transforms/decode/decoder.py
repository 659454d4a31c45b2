"""Kafka values to Arrow columns. No record can shift, hide or break another one.

The fast path decodes each value with one C call and converts whole columns (fast_path.py). Records
that it does not take are judged one at a time (record_rule.py). Both give the same answers: a
property test compares them with an independent, simple decoder.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from transforms.decode.fast_path import FastPath, Slice
from transforms.decode.record_rule import Judged, RecordRule
from transforms.model.coordinates import int64s
from transforms.model.elements import DecodedBlock, RawBlock
from transforms.model.errors import GuaranteeError
from transforms.model.rejected import NONE_REJECTED, REJECTED_COLUMNS, original_payload
from transforms.model.schema import PaymentSchema, SchemaField
from transforms.model.tables import LATEST_US, SOURCE_COLUMNS, TIMESTAMP

DECODER_VERSION: Final = 2
"""Stored in every run record. Must rise with each change that gives a record another verdict."""

_VERSION: Final = "decoder_version"

_SLICE_RECORDS: Final = 5_000
_SLICE_VALUES: Final = 8 * _SLICE_RECORDS
"""Decoded at once: _SLICE_RECORDS, but not more than have _SLICE_VALUES values. So few that their
Python objects stay in the processor's cache between the one call for each record and those for each
column.
"""

_ITEMS: Final = 2
"""How many a REPEATED field is taken to have, for that."""


class Decoder:
    """Picklable; builds its fast path on first use in each process."""

    def __init__(
        self,
        schema: PaymentSchema,
        *,
        unknown_fields: str = "keep",
        max_record_bytes: int = 8 << 20,
    ) -> None:
        """unknown_fields: `keep` (as JSON in the column unknown_fields) or `reject`.

        max_record_bytes: longer values are `too_large`.
        """
        self.max_record_bytes = max_record_bytes
        self.rule = RecordRule(schema, unknown_fields == "reject", max_record_bytes)
        self._schema = schema
        self._fast: FastPath | None = None
        self._slice = min(_SLICE_RECORDS, _SLICE_VALUES // _values_of(schema.fields) or 1)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_fast": None, _VERSION: DECODER_VERSION}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Raises GuaranteeError in a worker of another version than the client.

        Nothing else of a run would show that two of its workers have judged by two rules.
        """
        version = state.pop(_VERSION, "an older one")
        if version != DECODER_VERSION:
            raise GuaranteeError(
                f"a Python worker reads records by version {DECODER_VERSION} of the rules, and the"
                f" client by {version}. Nothing of this run is visible. Install the client's"
                " version of the pipeline wherever workers start, then run again."
            )
        self.__dict__.update(state)

    def decode(self, block: RawBlock) -> DecodedBlock:
        """Every record of the block is in exactly one of `payments` and `rejected`, by offset.

        Never raises on a record's bytes.
        """
        fast = self._decode_slices(block.values)
        judged = [
            (row, self.rule.judge(block.values[row]))
            for row in np.flatnonzero(~fast.taken).tolist()
        ]
        accepted = [(row, record.row) for row, record in judged if record.row is not None]
        refused = [(row, record) for row, record in judged if record.row is None]
        payments, index = self._payments(block, fast, accepted)
        return DecodedBlock(payments, index, self._rejected(block, refused))

    def _decode_slices(self, values: list[bytes | None]) -> Slice:
        if self._fast is None:
            self._fast = FastPath(self._schema, not self.rule.reject_unknown, self.max_record_bytes)
        parts = [
            self._fast.decode(values[start : start + self._slice])
            for start in range(0, len(values) or 1, self._slice)
        ]
        if len(parts) == 1:
            return parts[0]
        return Slice(
            [
                pa.concat_arrays(columns)
                for columns in zip(*(part.columns for part in parts), strict=True)
            ],
            pa.concat_arrays([part.unknown for part in parts]),
            np.concatenate([part.taken for part in parts]),
        )

    def _payments(
        self,
        block: RawBlock,
        fast: Slice,
        slow: list[tuple[int, dict[str, Any]]],
    ) -> tuple[pa.RecordBatch, NDArray[np.int64]]:
        rows = np.flatnonzero(fast.taken)
        fields = [*self._schema.arrow_fields(), pa.field("unknown_fields", pa.string())]
        batch = pa.RecordBatch.from_arrays([*fast.columns, fast.unknown], schema=pa.schema(fields))
        if slow:
            more = pa.RecordBatch.from_pylist([row for _, row in slow], schema=pa.schema(fields))
            batch = pa.concat_batches([batch, more])
            rows = np.concatenate([rows, np.array([row for row, _ in slow], dtype=rows.dtype)])
            order = np.argsort(rows, kind="stable")
            batch, rows = batch.take(pa.array(order)), rows[order]
        kafka = _kafka_columns(block, rows)
        return pa.RecordBatch.from_arrays(
            [*batch.columns, *kafka], schema=pa.schema([*fields, *SOURCE_COLUMNS])
        ), rows

    def _rejected(self, block: RawBlock, judged: list[tuple[int, Judged]]) -> pa.RecordBatch:
        if not judged:
            return NONE_REJECTED
        rows = np.array([row for row, _ in judged], dtype=np.int64)
        columns = [
            pa.array([record.reason for _, record in judged], pa.string()),
            pa.array([record.detail for _, record in judged], pa.string()),
            pa.array(
                [original_payload(block.values[row], self.max_record_bytes) for row, _ in judged],
                pa.binary(),
            ),
            pa.array([record.transaction_id for _, record in judged], pa.string()),
            pa.array([record.event_time_us for _, record in judged], pa.int64()).cast(TIMESTAMP),
            *_kafka_columns(block, rows),
        ]
        return pa.RecordBatch.from_arrays(columns, schema=REJECTED_COLUMNS)


def _values_of(fields: Sequence[SchemaField]) -> int:
    """About how many values a record with these fields has."""
    return sum(
        (_values_of(field.fields) + 1 if field.fields else 1)
        * (_ITEMS if field.mode == "REPEATED" else 1)
        for field in fields
    )


def _kafka_columns(block: RawBlock, rows: NDArray[np.int64]) -> list[pa.Array]:
    """SOURCE_COLUMNS of the rows of the block.

    Producers may write any number as the timestamp; one outside 1970 to 9999 is stored as NULL.
    """
    timestamps = int64s(block.timestamps)[rows]
    none = (timestamps < 0) | (timestamps > LATEST_US // 1000)
    return [
        pa.repeat(pa.scalar(block.topic, pa.string()), len(rows)),
        pa.repeat(pa.scalar(block.partition, pa.int32()), len(rows)),
        pa.array(int64s(block.offsets)[rows]),
        pa.array(np.where(none, 0, timestamps) * 1000, mask=none).cast(TIMESTAMP),
    ]
