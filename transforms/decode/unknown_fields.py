"""The fields of a message that the schema does not name, in the structure of the message.

`{"payer":{"name":"A","extra":1},"payer.extra":2}` keeps `{"payer":{"extra":1},"payer.extra":2}`:
dotted paths could not tell the two apart. An array of records becomes an array of the same length,
with null for each record of which nothing is unknown, so that a value keeps its place. Of a key
that comes twice the last value counts, as in every field.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

Unknown = Any
"""msgspec.Raw for a field that the schema does not name; UnknownFields for a RECORD, and a list of
UnknownFields or None for a REPEATED one, which it names.
"""

UnknownFields = dict[str, Unknown]
"""Name in the message -> what is unknown of it."""


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
