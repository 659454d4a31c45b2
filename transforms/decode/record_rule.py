"""The whole rule for one Kafka value: a payment's columns, or the reason why it is rejected."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from typing import Any, Final

import msgspec

from transforms.decode.foreign_formats import begins_like
from transforms.decode.json_values import read_field, read_record
from transforms.decode.rejection import Rejected
from transforms.decode.unknown_fields import UnknownFinder, paths, to_json
from transforms.model.rejected import INVALID_JSON, NULL_VALUE, TOO_LARGE, UNKNOWN_FIELD, Reason
from transforms.model.schema import DEDUP_COLUMN, EVENT_TIME_COLUMN, PaymentSchema

VALIDATE: Final = msgspec.json.Decoder(float_hook=str)
"""Raises for what is not JSON at any depth; floats stay text, so none is out of range here."""

_OBJECT: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])


@dataclass(frozen=True)
class Judged:
    """The verdict on one record: the `row` of a payment, or reason and detail of a rejection.

    row: value per column, None for a rejected record. transaction_id, event_time_us: what could be
    read of a rejected record.
    """

    row: dict[str, Any] | None
    reason: Reason = ""
    detail: str = ""
    transaction_id: str | None = None
    event_time_us: int | None = None


@dataclass(frozen=True)
class RecordRule:
    """Judges one record at a time, slowly and completely.

    reject_unknown: whether a field outside the schema rejects the record; otherwise such fields go
    to the column unknown_fields as JSON. max_record_bytes: longer values are `too_large`.
    """

    schema: PaymentSchema
    reject_unknown: bool
    max_record_bytes: int

    @cached_property
    def unknown(self) -> UnknownFinder:
        """Finds what the schema does not name in a value."""
        return UnknownFinder(self.schema.fields)

    def judge(self, value: bytes | None) -> Judged:
        """Never raises on a record's bytes."""
        try:
            return self._judge(value)
        except RecursionError:
            # Also where VALIDATE has just passed: what reads a RECORD stands some frames deeper.
            return Judged(None, INVALID_JSON, "nested too deeply")

    def _judge(self, value: bytes | None) -> Judged:
        if value is None:
            return Judged(None, NULL_VALUE, "the record has no value")
        if len(value) > self.max_record_bytes:
            detail = (
                f"{len(value)} bytes, more than {self.max_record_bytes};"
                f" SHA-256 {sha256(value).hexdigest()}; the payload is a prefix"
            )
            return Judged(None, TOO_LARGE, detail)
        try:
            VALIDATE.decode(value)
            members = _OBJECT.decode(value)
        except ValueError as error:
            return Judged(None, INVALID_JSON, _cause(value, error))
        try:
            row = read_record(self.schema.fields, members, "", self.schema.amount_column)
            unknown = self.unknown.find(value)
            if unknown and self.reject_unknown:
                raise Rejected(
                    UNKNOWN_FIELD,
                    f"{', '.join(sorted(paths(unknown)))[:500]}: not in the schema, and"
                    " --unknown_fields=reject",
                )
        except Rejected as problem:
            return Judged(None, problem.reason, problem.detail, *self._readable(members))
        row["unknown_fields"] = to_json(unknown)
        return Judged(row)

    def _readable(self, members: dict[str, msgspec.Raw]) -> tuple[str | None, int | None]:
        """(transaction_id, event time in microseconds) of a rejected record, where valid."""
        found: dict[str, Any] = {}
        for field in self.schema.fields:
            if field.column in (DEDUP_COLUMN, EVENT_TIME_COLUMN) and field.name in members:
                try:
                    found[field.column] = read_field(
                        field, bytes(members[field.name]), field.name, False
                    )
                except Rejected:
                    continue
        return found.get(DEDUP_COLUMN) or None, found.get(EVENT_TIME_COLUMN)


def _cause(value: bytes, error: ValueError) -> str:
    if not value:
        return "the value has no bytes"
    if found := begins_like(value):
        return f"the value begins with {found}"
    return str(error).replace("\x00", "\\0")[:500]
