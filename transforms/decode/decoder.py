"""Kafka values to Arrow columns. No record can shift, hide or break another one.

The fast path decodes each value with one C call and converts whole columns (columns.py). Records
that it does not take are judged one at a time (record_rule.py). Both give the same answers: a
property test compares them with an independent, simple decoder.
"""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter
from typing import Any, Final

import msgspec
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from transforms.decode.columns import column_of, struct_decoder
from transforms.decode.record_rule import Judged, RecordRule
from transforms.model.elements import DecodedBlock, RawBlock
from transforms.model.rejected import REJECTED_COLUMNS, original_payload
from transforms.model.schema import PaymentSchema
from transforms.model.tables import LATEST_US, SOURCE_COLUMNS, TIMESTAMP

DECODER_VERSION: Final = 2
"""Stored in every run record. Must rise with each change that gives a record another verdict."""

_SLICE_RECORDS: Final = 5_000
"""Decoded at once: so few that their Python objects stay in the processor's cache between the one
call for each value and the one for each column.
"""


class Decoder:
    """Picklable; builds its msgspec decoder on first use in each process."""

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
        self._decode: Callable[[bytes], Any] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_decode": None}

    def decode(self, block: RawBlock) -> DecodedBlock:
        """Every record of the block is in exactly one of `payments` and `rejected`, by offset.

        Never raises on a record's bytes.
        """
        columns, fast = self._decode_slices(block.values)
        judged = [
            (row, self.rule.judge(block.values[row])) for row in np.flatnonzero(~fast).tolist()
        ]
        accepted = [(row, record.row) for row, record in judged if record.row is not None]
        refused = [(row, record) for row, record in judged if record.row is None]
        payments, index = self._payments(block, columns, fast, accepted)
        return DecodedBlock(payments, index, self._rejected(block, refused))

    def _decode_slices(
        self, values: list[bytes | None]
    ) -> tuple[dict[str, pa.Array], NDArray[np.bool_]]:
        """As _columns, of all values."""
        starts = range(0, len(values) or 1, _SLICE_RECORDS)
        parts = [
            self._columns(self._decode_values(values[start : start + _SLICE_RECORDS]))
            for start in starts
        ]
        if len(parts) == 1:
            return parts[0]
        columns = {
            name: pa.concat_arrays([columns[name] for columns, _ in parts]) for name in parts[0][0]
        }
        return columns, np.concatenate([fast for _, fast in parts])

    def _decode_values(self, values: list[bytes | None]) -> list[Any]:
        """One struct per value, None where the fast path does not take it."""
        decode = self._decode = self._decode or struct_decoder(self._schema.fields)
        limit = self.max_record_bytes
        sized = [value or b"" for value in values]
        if max(map(len, sized), default=0) > limit:
            sized = [value if len(value) <= limit else b"" for value in sized]
        if not all(map(bytes.isascii, sized)):
            # msgspec does not check the UTF-8 of a Raw, nor of a value that a later one of the same
            # key replaces.
            sized = [value if value.isascii() or _is_utf8(value) else b"" for value in sized]
        structs: list[Any] = []
        remaining = iter(sized)
        while True:
            try:
                # On an error `extend` keeps what came before it, and the iterator goes on after the
                # refused value.
                structs.extend(map(decode, remaining))
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                structs.append(None)
            else:
                return structs

    def _columns(self, structs: list[Any]) -> tuple[dict[str, pa.Array], NDArray[np.bool_]]:
        """Columns of the rows that the fast path took, and a mask of these rows over the block."""
        fast = np.array([struct is not None for struct in structs], dtype=bool)
        good = structs if fast.all() else [struct for struct in structs if struct is not None]
        understood = np.ones(len(good), dtype=bool)
        columns = {}
        for field in self._schema.fields:
            values = list(map(attrgetter(field.name), good))
            columns[field.column], refused = column_of(
                field, values, field.column == self._schema.amount_column
            )
            understood &= ~refused
        if not understood.all():
            columns = {
                name: column.filter(pa.array(understood)) for name, column in columns.items()
            }
            fast[fast] = understood
        return columns, fast

    def _payments(
        self,
        block: RawBlock,
        columns: dict[str, pa.Array],
        fast: NDArray[np.bool_],
        slow: list[tuple[int, dict[str, Any]]],
    ) -> tuple[pa.RecordBatch, NDArray[np.int64]]:
        rows = np.flatnonzero(fast)
        fields = [*self._schema.arrow_fields(), pa.field("unknown_fields", pa.string())]
        unknown = pa.nulls(len(rows), pa.string())
        batch = pa.RecordBatch.from_arrays([*columns.values(), unknown], schema=pa.schema(fields))
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


def _is_utf8(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True


def _kafka_columns(block: RawBlock, rows: NDArray[np.int64]) -> list[pa.Array]:
    """SOURCE_COLUMNS of the rows of the block.

    Producers may write any number as the timestamp; one outside 1970 to 9999 is stored as NULL.
    """
    timestamps = np.array(block.timestamps, dtype=np.int64)[rows]
    none = (timestamps < 0) | (timestamps > LATEST_US // 1000)
    return [
        pa.repeat(pa.scalar(block.topic, pa.string()), len(rows)),
        pa.repeat(pa.scalar(block.partition, pa.int32()), len(rows)),
        pa.array(np.array(block.offsets, dtype=np.int64)[rows]),
        pa.array(np.where(none, 0, timestamps) * 1000, mask=none).cast(TIMESTAMP),
    ]
