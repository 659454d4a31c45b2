"""The fields of a message that the schema does not name, in the structure of the message.

`{"payer":{"name":"A","extra":1},"payer.extra":2}` keeps `{"payer":{"extra":1},"payer.extra":2}`:
dotted paths could not tell the two apart. An array of records becomes an array of the same length,
with null for each record of which nothing is unknown, so that a value keeps its place. Of a key
that comes twice the last value counts, as in every field.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

import msgspec

from transforms.model.schema import SchemaField

Unknown = Any
"""msgspec.Raw for a field that the schema does not name; UnknownFields for a RECORD, and a list of
UnknownFields or None for a REPEATED one, which it names.
"""

UnknownFields = dict[str, Unknown]
"""Name in the message -> what is unknown of it."""

_OBJECT: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_RECORD: Final = msgspec.json.Decoder(dict[str, msgspec.Raw] | None)
_RECORDS: Final = msgspec.json.Decoder(list[msgspec.Raw] | None)


class UnknownFinder:
    """Finds what the fields of a message, or of a RECORD, do not name."""

    def __init__(self, fields: Sequence[SchemaField]) -> None:
        self._named = frozenset(field.name for field in fields)
        self._records = [
            (field.name, field.mode == "REPEATED", UnknownFinder(field.fields))
            for field in fields
            if field.type == "RECORD"
        ]

    def find(self, value: bytes | msgspec.Raw) -> UnknownFields:
        """What is unknown of one JSON object: of its RECORDs in the order of the schema, then its
        own members in the order of their first appearance.

        Raises msgspec.DecodeError, UnicodeDecodeError or RecursionError if the value is not JSON,
        or one of its RECORDs not of the schema's structure.
        """
        return self._of_members(_OBJECT.decode(value))

    def _of_members(self, members: dict[str, msgspec.Raw]) -> UnknownFields:
        unknown: UnknownFields = {}
        for name, repeated, within in self._records:
            if name in members and (found := within._of_field(members[name], repeated)):
                unknown[name] = found
        named = self._named
        unknown.update({name: raw for name, raw in members.items() if name not in named})
        return unknown

    def _of_field(self, raw: msgspec.Raw, repeated: bool) -> Unknown:
        if not repeated:
            return self._of_members(_RECORD.decode(raw) or {})
        of_each = [self.find(item) or None for item in _RECORDS.decode(raw) or []]
        return of_each if any(of_each) else None


def to_json(unknown: UnknownFields) -> str | None:
    """The value of the column unknown_fields; None: the schema names everything."""
    return msgspec.json.encode(unknown).decode() if unknown else None


def paths(unknown: UnknownFields, parent: str = "") -> Iterator[str]:
    """Where each field stands, such as `payer.extra` and `steps[1].more`, for people."""
    for name, found in unknown.items():
        if isinstance(found, dict):
            yield from paths(found, f"{parent}{name}.")
        elif isinstance(found, list):
            for index, each in enumerate(found):
                yield from paths(each or {}, f"{parent}{name}[{index}].")
        else:
            yield f"{parent}{name}"
