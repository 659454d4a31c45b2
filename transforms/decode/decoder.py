"""Kafka values to Arrow columns. Every value is judged on its own: one record can never shift, hide
or break another.

The fast way decodes with one C call per value and converts whole columns; whatever it does not
understand at once goes the slow way, one record at a time (`judge_record`). Both say the same: a
property test holds them against an independent, obvious decoder.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from operator import attrgetter
from typing import Annotated, Any, Final

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from transforms.decode.json_values import Rejected, read_field, read_record
from transforms.decode.timestamps import plain_timestamps
from transforms.model.elements import DecodedBlock, RawBlock
from transforms.model.rejected import original_payload
from transforms.model.schema import DEDUP_COLUMN, EVENT_TIME_COLUMN, PaymentSchema, SchemaField
from transforms.model.tables import KAFKA_COLUMNS, LATEST_US, NUMERIC, REJECTED_SCHEMA, TIMESTAMP

DECODER_VERSION: Final = 1
"""Kept in every run record; to be raised whenever a record would be judged in another way."""

_KAFKA: Final = pa.schema([field for field in KAFKA_COLUMNS if field.name != "ingest_time"])
_REJECTED: Final = pa.schema([field for field in REJECTED_SCHEMA if field.name != "ingest_time"])
_VALIDATE: Final = msgspec.json.Decoder(float_hook=str)
_OBJECT: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_NULL: Final = msgspec.Raw(b"null")
_FAST_TYPES: Final[dict[str, Any]] = {
    "STRING": str,
    "INT64": Annotated[int, msgspec.Meta(ge=-(1 << 63), le=(1 << 63) - 1)],
    "FLOAT64": float,
    "BOOL": bool,
    "BYTES": bytes,
    "TIMESTAMP": str,
}


@dataclass(frozen=True)
class Judged:
    """One record by the slow way: `row` holds the columns of a payment, or reason and detail say
    why it is rejected.

    transaction_id and event_time_us are what could be read of a rejected record.
    """

    row: dict[str, Any] | None
    reason: str = ""
    detail: str = ""
    transaction_id: str | None = None
    event_time_us: int | None = None


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
        self._schema = schema
        self._reject_unknown = unknown_fields == "reject"
        self._max_record_bytes = max_record_bytes
        self._decode: Callable[[bytes], Any] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_decode": None}

    def decode(self, block: RawBlock) -> DecodedBlock:
        """Every record of the block is in exactly one of `payments` and `rejected`, in offset
        order. Never raises on a record's bytes.
        """
        structs = self._decode_values(block.values)
        columns, fast = self._columns(structs)
        judged = [
            (row, self.judge_record(block.values[row])) for row in np.flatnonzero(~fast).tolist()
        ]
        payments, index = self._payments(
            block, columns, fast, [(row, one.row) for row, one in judged if one.row is not None]
        )
        return DecodedBlock(
            payments,
            index,
            self._rejected(block, [(row, one) for row, one in judged if one.row is None]),
        )

    def judge_record(self, value: bytes | None) -> Judged:
        """The slow way: the whole rule for one value."""
        if value is None:
            return Judged(None, "null_value", "the record has no value")
        if len(value) > self._max_record_bytes:
            detail = f"{len(value)} bytes, more than {self._max_record_bytes}; SHA-256 {sha256(value).hexdigest()}; the payload is a prefix"
            return Judged(None, "too_large", detail)
        try:
            _VALIDATE.decode(value)
            members = _OBJECT.decode(value)
        except RecursionError:
            return Judged(None, "invalid_json", "nested too deeply")
        except ValueError as error:
            return Judged(None, "invalid_json", str(error).replace("\x00", "\\0")[:500])
        known = self._known(members)
        unknown: dict[str, msgspec.Raw] = {}
        try:
            row = read_record(self._schema.fields, members, "", self._schema.amount_column, unknown)
            if unknown and self._reject_unknown:
                raise Rejected(
                    "unknown_field",
                    f"{', '.join(sorted(unknown))[:500]}: not in the schema, and"
                    " --unknown_fields=reject",
                )
        except Rejected as problem:
            return Judged(None, problem.reason, problem.detail, *known)
        row["unknown_fields"] = msgspec.json.encode(unknown).decode() if unknown else None
        return Judged(row)

    def _known(self, members: dict[str, msgspec.Raw]) -> tuple[str | None, int | None]:
        found: dict[str, Any] = {}
        for field in self._schema.fields:
            if field.column in (DEDUP_COLUMN, EVENT_TIME_COLUMN) and field.name in members:
                try:
                    found[field.column] = read_field(
                        field, bytes(members[field.name]), field.name, False, {}
                    )
                except Rejected:
                    continue
        return found.get(DEDUP_COLUMN) or None, found.get(EVENT_TIME_COLUMN)

    def _decode_values(self, values: list[bytes | None]) -> list[Any]:
        """One struct per value, None where the fast way refuses it."""
        decode = self._decode = self._decode or self._build()
        limit = self._max_record_bytes
        sized = [value or b"" for value in values]
        if max(map(len, sized), default=0) > limit:
            sized = [value if len(value) <= limit else b"" for value in sized]
        if not all(map(bytes.isascii, sized)):
            # msgspec does not look into a Raw, nor into a value that a later one of the same key
            # replaces.
            sized = [value if value.isascii() or _is_utf8(value) else b"" for value in sized]
        structs: list[Any] = []
        remaining = iter(sized)
        while True:
            try:
                # On an error `extend` keeps what came before it, and the iterator stands behind the
                # refused value.
                structs.extend(map(decode, remaining))
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                structs.append(None)
            else:
                return structs

    def _build(self) -> Callable[[bytes], Any]:
        required = [
            (field.name, _fast_type(field))
            for field in self._schema.fields
            if field.mode == "REQUIRED"
        ]
        optional = [
            (field.name, *_optional(field))
            for field in self._schema.fields
            if field.mode != "REQUIRED"
        ]
        struct = msgspec.defstruct(
            "Payment", [*required, *optional], forbid_unknown_fields=True, gc=False
        )
        return msgspec.json.Decoder(struct).decode

    def _columns(self, structs: list[Any]) -> tuple[dict[str, pa.Array], NDArray[np.bool_]]:
        """Columns of the rows that the fast way took, and the mask of these rows over the block."""
        fast = np.array([struct is not None for struct in structs], dtype=bool)
        good = structs if fast.all() else [struct for struct in structs if struct is not None]
        understood = np.ones(len(good), dtype=bool)
        columns = {}
        for field in self._schema.fields:
            values = list(map(attrgetter(field.name), good))
            columns[field.column], refused = _column(
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
        slow: list[tuple[int, dict[str, Any] | None]],
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
            [*batch.columns, *kafka], schema=pa.schema([*fields, *_KAFKA])
        ), rows

    def _rejected(self, block: RawBlock, judged: list[tuple[int, Judged]]) -> pa.RecordBatch:
        rows = np.array([row for row, _ in judged], dtype=np.int64)
        columns = [
            pa.array([one.reason for _, one in judged], pa.string()),
            pa.array([one.detail for _, one in judged], pa.string()),
            pa.array(
                [original_payload(block.values[row], self._max_record_bytes) for row, _ in judged],
                pa.binary(),
            ),
            pa.array([one.transaction_id for _, one in judged], pa.string()),
            pa.array([one.event_time_us for _, one in judged], pa.int64()).cast(TIMESTAMP),
            *_kafka_columns(block, rows),
        ]
        return pa.RecordBatch.from_arrays(columns, schema=_REJECTED)


def _is_utf8(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True


def _is_raw(field: SchemaField) -> bool:
    return field.mode == "REPEATED" or field.type not in _FAST_TYPES


def _fast_type(field: SchemaField) -> Any:
    if field.column == DEDUP_COLUMN:
        return Annotated[str, msgspec.Meta(min_length=1)]
    return msgspec.Raw if _is_raw(field) else _FAST_TYPES[field.type]


def _optional(field: SchemaField) -> tuple[Any, Any]:
    return (msgspec.Raw, _NULL) if _is_raw(field) else (_FAST_TYPES[field.type] | None, None)


def _column(
    field: SchemaField, values: list[Any], amount: bool
) -> tuple[pa.Array, NDArray[np.bool_]]:
    """The column, and a mask of the rows that must be judged by the slow way."""
    if field.type == "NUMERIC" and field.mode != "REPEATED":
        return _numeric_column(field, values, amount)
    if field.type == "TIMESTAMP" and field.mode != "REPEATED":
        return plain_timestamps(pa.array(values, pa.string()))
    if _is_raw(field):
        return _nested_column(field, values)
    return pa.array(values, field.arrow_field().type), _none_refused(len(values))


def _numeric_column(
    field: SchemaField, values: list[msgspec.Raw], amount: bool
) -> tuple[pa.Array, NDArray[np.bool_]]:
    """Exact: only the plain forms whose digits surely fit are cast, so that Arrow has nothing to
    round.
    """
    texts = pa.array(list(map(bytes, values)), pa.binary()).cast(pa.string())
    is_null = pc.equal(texts, "null")
    plain = pc.match_substring_regex(texts, _PLAIN_AMOUNT if amount else _PLAIN_NUMERIC)
    numbers = pc.utf8_trim(pc.if_else(plain, texts, None), characters='"').cast(NUMERIC)
    understood = plain if field.mode == "REQUIRED" else pc.or_(plain, is_null)
    return numbers, ~np.asarray(understood)


_PLAIN_AMOUNT: Final = r'^(-?[0-9]{1,20}(\.[0-9]{1,9})?|"-?[0-9]{1,20}(\.[0-9]{1,9})?")$'
_PLAIN_NUMERIC: Final = r'^(-?[0-9]{1,29}(\.[0-9]{1,9})?|"-?[0-9]{1,29}(\.[0-9]{1,9})?")$'


def _nested_column(
    field: SchemaField, values: list[msgspec.Raw]
) -> tuple[pa.Array, NDArray[np.bool_]]:
    """DATE, JSON, RECORD and REPEATED: one call of the slow rule per value."""
    refused = _none_refused(len(values))
    converted: list[Any] = []
    for row, value in enumerate(values):
        unknown: dict[str, msgspec.Raw] = {}
        try:
            _VALIDATE.decode(value)
            converted.append(read_field(field, bytes(value), field.name, False, unknown))
        except (Rejected, ValueError, RecursionError):
            converted.append(None)
            refused[row] = True
        refused[row] |= bool(unknown)
    return pa.array(converted, field.arrow_field().type), refused


def _none_refused(rows: int) -> NDArray[np.bool_]:
    return np.zeros(rows, dtype=bool)


def _kafka_columns(block: RawBlock, rows: NDArray[np.int64]) -> list[pa.Array]:
    """A Kafka timestamp that is no moment between the years 0001 and 9999 counts as none: producers
    may write anything there.
    """
    timestamps = np.array(block.timestamps, dtype=np.int64)[rows]
    none = (timestamps < 0) | (timestamps > LATEST_US // 1000)
    return [
        pa.repeat(pa.scalar(block.topic, pa.string()), len(rows)),
        pa.repeat(pa.scalar(block.partition, pa.int32()), len(rows)),
        pa.array(np.array(block.offsets, dtype=np.int64)[rows]),
        pa.array(np.where(none, 0, timestamps) * 1000, mask=none).cast(TIMESTAMP),
    ]
