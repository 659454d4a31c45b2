"""Messages of librdkafka, thousands at once, as a block."""

from __future__ import annotations

from operator import itemgetter
from typing import Final

from confluent_kafka import Message

from transforms.model.elements import RawBlock

_TYPE: Final = itemgetter(0)
_MILLISECONDS: Final = itemgetter(1)


def block_of(messages: list[Message], offsets: list[int], topic: str, partition: int) -> RawBlock:
    """The messages of one partition, none of them an error, and their offsets."""
    stamps = list(map(Message.timestamp, messages))
    types, timestamps = bytearray(map(_TYPE, stamps)), list(map(_MILLISECONDS, stamps))
    values: list[bytes | None] = list(map(Message.value, messages))
    return RawBlock(topic, partition, offsets, timestamps, values, types)


def offsets_of(messages: list[Message]) -> list[int]:
    """The offset of each message."""
    offsets: list[int] = list(map(Message.offset, messages))  # type: ignore[arg-type]
    return offsets
