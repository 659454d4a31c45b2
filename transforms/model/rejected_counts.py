"""How many records were rejected for which cause, with one example each."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from transforms.model.rejected import Reason

EXAMPLE_BYTES: Final = 200
CAUSES: Final = 200
"""So many causes are kept apart for one topic and reason; the rarest beyond are added up."""

_VALUES: Final = r'"[^"]*"|\b[0-9][0-9.]*'
"""The values within a detail: details that differ in them alone have one cause."""


class RejectedCount(msgspec.Struct, frozen=True):
    """Records of one topic that were rejected for one cause.

    detail: of the example; records whose details differ in quoted values and numbers alone have the
    same cause. partition, offset, value: of the example, its value cut to EXAMPLE_BYTES, and a byte
    more that says so; None for a record without one.
    """

    topic: str
    reason: Reason
    detail: str
    records: int
    partition: int
    offset: int
    value: bytes | None

    @property
    def text(self) -> str | None:
        """Of the value, with "..." where it was longer."""
        if self.value is None:
            return None
        shown = self.value[:EXAMPLE_BYTES].decode(errors="backslashreplace")
        return shown + ("..." if len(self.value) > EXAMPLE_BYTES else "")


def count_rejected(rows: pa.RecordBatch) -> list[RejectedCount]:
    """One for each cause in rows of `rejected_records`."""
    causes = pc.replace_substring_regex(rows.column("detail"), _VALUES, "*")
    keys = pa.table(
        {
            "topic": rows.column("kafka_topic"),
            "reason": rows.column("reason"),
            "cause": causes,
            "row": pa.array(range(rows.num_rows), pa.int64()),
        }
    )
    groups = keys.group_by(["topic", "reason", "cause"], use_threads=False).aggregate(
        [("row", "count"), ("row", "min")]
    )
    examples = rows.take(groups.column("row_min").combine_chunks())
    columns = {
        "topic": groups.column("topic").combine_chunks(),
        "reason": groups.column("reason").combine_chunks(),
        "detail": examples.column("detail"),
        "records": groups.column("row_count").combine_chunks(),
        "partition": examples.column("kafka_partition"),
        "offset": examples.column("kafka_offset"),
        "value": pc.binary_slice(examples.column("payload"), 0, EXAMPLE_BYTES + 1),
    }
    return merge_rejected(
        RejectedCount(**count) for count in pa.RecordBatch.from_pydict(columns).to_pylist()
    )


def merge_rejected(counts: Iterable[RejectedCount]) -> list[RejectedCount]:
    """Added up by cause, the most frequent first; the example has the lowest coordinate.

    The sum for each topic and reason is exact; beyond CAUSES of them, the rarest causes are one.
    """
    merged: dict[tuple[str, Reason, str], RejectedCount] = {}
    for count in counts:
        key = count.topic, count.reason, re.sub(_VALUES, "*", count.detail)
        known = merged.get(key)
        merged[key] = _sum(known, count) if known else count
    kept: dict[tuple[str, Reason], list[RejectedCount]] = {}
    for count in _by_frequency(merged.values()):
        of_reason = kept.setdefault((count.topic, count.reason), [])
        if len(of_reason) < CAUSES:
            of_reason.append(count)
        else:
            of_reason[-1] = _sum(of_reason[-1], count)
    return _by_frequency([count for of_reason in kept.values() for count in of_reason])


def _sum(known: RejectedCount, more: RejectedCount) -> RejectedCount:
    first = min(known, more, key=lambda one: (one.partition, one.offset))
    return msgspec.structs.replace(first, records=known.records + more.records)


def _by_frequency(counts: Iterable[RejectedCount]) -> list[RejectedCount]:
    return sorted(
        counts, key=lambda one: (-one.records, one.topic, one.reason, one.partition, one.offset)
    )


def as_figures(count: RejectedCount) -> dict[str, str | int | None]:
    """As plain values, for JSON: the example is topic:partition:offset."""
    return {
        "records": count.records,
        "reason": count.reason,
        "detail": count.detail,
        "example": f"{count.topic}:{count.partition}:{count.offset}",
        "value": count.text,
    }


def describe(count: RejectedCount) -> str:
    """One line for a person: how many, why, and the example."""
    text = count.text
    value = "no value" if text is None else text
    return (
        f"{count.records:,} {count.reason}: {count.detail} (for example"
        f" {count.topic}:{count.partition}:{count.offset} {value})"
    )


def most_frequent(counts: Sequence[RejectedCount], topic: str, most: int) -> list[RejectedCount]:
    """Of one topic; `counts` as `merge_rejected` returns them."""
    return [count for count in counts if count.topic == topic][:most]
