"""What a value that is not JSON seems to be, by its first bytes."""

from __future__ import annotations

from typing import Final

_COMPRESSED: Final = "compress with compression.type of the producer instead, which Kafka undoes"
_PREFIXES: Final = (
    (b"\xef\xbb\xbf", "a byte order mark of UTF-8 (EF BB BF), which JSON must not have"),
    (b"\xff\xfe\x00\x00", "a byte order mark of UTF-32; JSON must be UTF-8"),
    (b"\x00\x00\xfe\xff", "a byte order mark of UTF-32; JSON must be UTF-8"),
    (b"\xff\xfe", "a byte order mark of UTF-16 (little endian); JSON must be UTF-8"),
    (b"\xfe\xff", "a byte order mark of UTF-16 (big endian); JSON must be UTF-8"),
    (b"\x1f\x8b", f"the magic number of gzip; {_COMPRESSED}"),
    (b"\x28\xb5\x2f\xfd", f"the magic number of zstd; {_COMPRESSED}"),
    (b"\x04\x22\x4d\x18", f"the magic number of LZ4; {_COMPRESSED}"),
    (b"\xff\x06\x00\x00sNaPpY", f"the magic number of Snappy; {_COMPRESSED}"),
    (b"\x82SNAPPY\x00", f"the magic number of Snappy; {_COMPRESSED}"),
    (b"Obj\x01", "the magic number of an Avro file; the value must be JSON"),
    (b"\xc3\x01", "the marker of a single Avro object; the value must be JSON"),
    (b"\xac\xed\x00\x05", "the header of a serialized Java object; the value must be JSON"),
)
"""First bytes of a value -> what they are, and what to do. The longer prefix stands first.

Sources: https://www.rfc-editor.org/rfc/rfc8259#section-8.1 for the marks,
https://avro.apache.org/docs/1.12.0/specification/ for Avro, and the formats' own descriptions.
"""

_JSON_BEGINS: Final = b'{[" \t\r\n'


def begins_like(value: bytes) -> str | None:
    """What the value begins with, in words, if it is something that is sent by mistake.

    value: bytes that are not valid JSON. None: nothing is recognized.
    """
    for prefix, meaning in _PREFIXES:
        if value.startswith(prefix):
            return meaning
    return _wide_characters(value) or _registry_header(value)


def _wide_characters(value: bytes) -> str | None:
    """ASCII in UTF-16 or UTF-32 has null bytes in fixed places."""
    for width, order, at in ((4, "little", 0), (4, "big", 3), (2, "little", 0), (2, "big", 1)):
        first, second = value[:width], value[width : 2 * width]
        if (
            len(first) == width
            and first[at] in _JSON_BEGINS
            and first.count(0) == width - 1
            and (not second or (second.count(0) == width - 1 and second[at] != 0))
        ):
            return f"UTF-{8 * width} ({order} endian, without a mark); JSON must be UTF-8"
    return None


def _registry_header(value: bytes) -> str | None:
    """A null byte, and the schema's id in four bytes:
    https://docs.confluent.io/platform/current/schema-registry/fundamentals/serdes-develop/index.html#wire-format
    """
    schema = int.from_bytes(value[1:5], "big")
    if value[:1] != b"\x00" or len(value) < 5 or schema == 0:  # ids begin at 1
        return None
    behind = "JSON" if value[5:6] in (b"{", b"[") else "no JSON"
    return (
        f"the header of Confluent's Schema Registry (a null byte, and the schema id {schema}), and"
        f" behind it is {behind}; the producer must write plain JSON without that header"
    )
