"""Elements come out of their coders as they went in."""

from __future__ import annotations

from apache_beam.coders import registry

from transforms.model.coders import RawBlockCoder
from transforms.model.elements import LOG_APPEND_TIME, RawBlock


def test_a_raw_block_with_empty_values_and_odd_bytes() -> None:
    values = [b"{}", None, b"", bytes(range(256))]
    sent = RawBlock("payments", 3, [4, 5, 8, 9], [-1, 0, 1, 2], values, bytearray(4))
    sent.timestamp_types[1] = LOG_APPEND_TIME
    coder = registry.get_coder(RawBlock)
    assert isinstance(coder, RawBlockCoder)
    assert coder.decode(coder.encode(sent)) == sent
    assert coder.estimate_size(sent) == 2 + 256
