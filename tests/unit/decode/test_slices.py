"""A large block is decoded slice by slice, and comes out as if it had been decoded at once."""

import pytest

from pipeline.options.schema_file import load_schema
from pipeline.produce.message_generator import MessageGenerator
from transforms.decode import decoder
from transforms.decode.decoder import Decoder
from transforms.model.elements import RawBlock

RECORDS = 40
VALUES = [
    message.value
    for message in MessageGenerator(3, 1_790_000_000_000_000, invalid_rate=0.3).take(RECORDS)
]


def block(values: list[bytes | None]) -> RawBlock:
    offsets = list(range(len(values)))
    return RawBlock("payments", 0, offsets, [1_790_000_000_000] * len(values), values)


@pytest.mark.parametrize("values", [VALUES, VALUES[:7], VALUES[:8], [b"broken"] * 9, []])
def test_slices_are_not_seen(monkeypatch: pytest.MonkeyPatch, values: list[bytes | None]) -> None:
    at_once = Decoder(load_schema(None)).decode(block(values))
    monkeypatch.setattr(decoder, "_SLICE_RECORDS", 7)
    sliced = Decoder(load_schema(None)).decode(block(values))
    assert sliced.payments == at_once.payments
    assert sliced.payload_index.tolist() == at_once.payload_index.tolist()
    assert sliced.rejected == at_once.rejected
    assert sliced.payments.num_rows + sliced.rejected.num_rows == len(values)
