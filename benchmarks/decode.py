"""What decoding costs: flat values, nested ones, and each with a field that the schema does not
name.

python -m benchmarks.decode [values]: CPU of the decoder alone, without Kafka. All values have the
same number of bytes. Everything it prints comes from one run of it.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from benchmarks.report import say
from pipeline.options.schema_file import load_schema
from transforms.decode.decoder import Decoder
from transforms.model.collector import collector_paused
from transforms.model.elements import RawBlock
from transforms.model.schema import PaymentSchema

BYTES: Final = 320
"""Of each value."""

REPETITIONS: Final = 15
"""Of each case, one case after the other, so that a slow moment of the machine hits all of them.
The best of each counts.
"""

AT_MOST: Final = 2.0
TO_REACH: Final = (
    "flat, 1 unknown field",
    "nested",
    "nested, 1 unknown field",
    "nested, 1 unknown field in a RECORD",
)
"""These are to cost at most so many times the flat one."""

HEAD: Final[list[dict[str, Any]]] = [
    {"name": "transaction_id", "type": "STRING", "mode": "REQUIRED"},
    {"name": "event_time", "type": "TIMESTAMP", "mode": "REQUIRED"},
    {"name": "amount", "type": "NUMERIC", "mode": "REQUIRED"},
    {"name": "currency", "type": "STRING", "mode": "REQUIRED"},
]
FLAT: Final = [
    *HEAD,
    {"name": "payer_id", "type": "STRING"},
    {"name": "payee_id", "type": "STRING"},
    {"name": "status", "type": "STRING"},
    {"name": "payment_method", "type": "STRING"},
    {"name": "merchant_id", "type": "STRING"},
    {"name": "country", "type": "STRING"},
    {"name": "fee", "type": "NUMERIC"},
]
"""11 values, the usual number for so many bytes. The default schema is the first 8 of them."""

NESTED: Final = [
    *HEAD,
    {
        "name": "payer",
        "type": "RECORD",
        "fields": [{"name": "id", "type": "STRING"}, {"name": "country", "type": "STRING"}],
    },
    {"name": "tags", "type": "STRING", "mode": "REPEATED"},
    {
        "name": "items",
        "type": "RECORD",
        "mode": "REPEATED",
        "fields": [
            {"name": "sku", "type": "STRING"},
            {"name": "quantity", "type": "INT64"},
            {"name": "price", "type": "NUMERIC"},
        ],
    },
]
"""14 values, in a message with two tags and two items."""


def main(values: int) -> None:
    schemas = {
        flat: schema_of(FLAT),
        default: load_schema(None),
        nested: schema_of(NESTED),
    }
    cases: dict[str, tuple[Message, Callable[[int], str], Callable[[int], str]]] = {
        "flat": (flat, nothing, nothing),
        "flat, the default schema": (default, nothing, nothing),
        "flat, 1 unknown field": (flat, channel, nothing),
        "nested": (nested, nothing, nothing),
        "nested, 1 unknown field": (nested, channel, nothing),
        "nested, 1 unknown field in a RECORD": (nested, nothing, channel),
        "flat, 3 unknown fields": (flat, three, nothing),
        "flat, 1 unknown field, never the same": (flat, another, nothing),
        "nested, 1 unknown field, never the same": (nested, another, nothing),
    }
    seconds: dict[str, float] = {}
    ready = {
        name: (
            Decoder(schemas[message]),
            block([padded(message, number, *more) for number in range(values)]),
        )
        for name, (message, *more) in cases.items()
    }
    with collector_paused():
        for repetition in range(REPETITIONS + 1):
            for name, (decoder, messages) in ready.items():
                begun = time.process_time()
                decoded = decoder.decode(messages)
                spent = time.process_time() - begun
                assert decoded.payments.num_rows == values
                unknown = decoded.payments.column("unknown_fields")
                assert unknown.null_count == (0 if "unknown" in name else values)
                if repetition:  # the first one warms up
                    seconds[name] = min(spent, seconds.get(name, spent))
    print(f"{values:,} values of {BYTES} bytes, the best of {REPETITIONS} repetitions")
    for name, spent in seconds.items():
        figure = f"{spent / values * 1e6:6.2f} microseconds/value"
        if name == "flat":
            say(name, figure)
        else:
            goal = f"at most {AT_MOST:.0f}" if name in TO_REACH else ""
            say(name, f"{figure}   {spent / seconds['flat']:5.2f} of flat", goal)


Message = Callable[[int, str, str, str], str]
"""Number of the message, zeros for an id, members of unknown name of the message and of a RECORD in
it -> JSON.
"""


def flat(number: int, zeros: str, unknown: str, within: str) -> str:
    more = f',"merchant_id":"{number % 7919:06d}","country":"DE","fee":{number % 9 + 1}.25'
    return default(number, zeros, unknown + more, within)


def default(number: int, zeros: str, unknown: str, within: str) -> str:
    return (
        f"{{{head(number)},"
        f'"payer_id":"payer-{number * 7919:010d}","payee_id":"payee-{zeros}{number % 9973:04d}",'
        f'"status":"AUTHORIZED","payment_method":"CARD"{unknown}}}'
    )


def nested(number: int, zeros: str, unknown: str, within: str) -> str:
    return (
        f"{{{head(number)},"
        f'"payer":{{"id":"{zeros}{number % 9973:04d}"{within},"country":"DE"}}{unknown},'
        f'"tags":["web","first"],"items":[{{"sku":"{number % 99991:05d}","quantity":{number % 7},'
        f'"price":{number % 90 + 10}.50}},{{"sku":"{number % 7919:05d}","quantity":2,'
        f'"price":"{number % 1000 + 1000}.5"}}]}}'
    )


def head(number: int) -> str:
    minute, millisecond = divmod(number, 60_000)
    return (
        f'"transaction_id":"0000002a-{number:012d}-{number * 7919 % (1 << 40):010x}",'
        f'"event_time":"2026-11-27T{minute // 60 % 24:02d}:{minute % 60:02d}:'
        f'{millisecond // 1000:02d}.{millisecond % 1000:03d}Z",'
        f'"amount":{number % 5000 + 1000}.{number % 100:02d},"currency":"EUR"'
    )


def nothing(number: int) -> str:
    return ""


def channel(number: int) -> str:
    return f',"channel":"web-{number % 10}"'


def three(number: int) -> str:
    return f',"web":true,"attempt":{number % 10},"shop":[{number % 9973}]'


def another(number: int) -> str:
    return f',"flag_{number:06d}":true'


def schema_of(fields: list[dict[str, Any]]) -> PaymentSchema:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "schema.json")
        file.write_text(json.dumps(fields))
        return load_schema(str(file))


def padded(
    message: Message,
    number: int,
    unknown: Callable[[int], str],
    within: Callable[[int], str],
) -> bytes:
    """The message with as many zeros in an id as make it BYTES long."""
    more = unknown(number), within(number)
    return message(number, "0" * (BYTES - len(message(number, "", *more))), *more).encode()


def block(values: list[bytes | None]) -> RawBlock:
    return RawBlock("payments", 0, list(range(len(values))), [0] * len(values), values)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 30_000)
