"""The file `_metadata` of a checkpoint or savepoint, as far as damage shows without Flink.

It begins with a magic number and the version of its format:
https://github.com/apache/flink/blob/release-1.19/flink-runtime/src/main/java/org/apache/flink/runtime/checkpoint/Checkpoints.java
From version 4 on, which Flink 1.19 writes, the last thing in it is a Java object of a known class:
https://github.com/apache/flink/blob/release-1.19/flink-runtime/src/main/java/org/apache/flink/runtime/checkpoint/metadata/MetadataV4Serializer.java
"""

from __future__ import annotations

from typing import Final

MAGIC: Final = (0x4960672D).to_bytes(4, "big")
WITH_PROPERTIES: Final = 4
PROPERTIES: Final = (
    b"\xac\xed\x00\x05sr\x008org.apache.flink.runtime.checkpoint.CheckpointProperties"
)
"""Magic number and version of Java's object streams, and a description of the class."""

_LAST_BYTES: Final = 8_192
"""The object has some 600."""


def damage_in(metadata: bytes) -> str | None:
    """Why Flink could not read these bytes of the file; None where nothing shows.

    What is damaged in the middle, and files that it names, only Flink finds.
    """
    if not metadata:
        return "it is empty"
    if not metadata.startswith(MAGIC):
        return "it does not begin as Flink's metadata do"
    version = int.from_bytes(metadata[4:8], "big")
    if len(metadata) < 8 or (
        version == WITH_PROPERTIES and PROPERTIES not in metadata[-_LAST_BYTES:]
    ):
        return f"its end is missing, behind {len(metadata):,} bytes"
    return None
