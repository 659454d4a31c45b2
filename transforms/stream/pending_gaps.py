"""Gaps that not every row shard has passed yet: the bookkeeping of gaps.py.

All shards get the same gaps, in the order of offsets, but in bundles of their own: one may have
passed more than another.
"""

from __future__ import annotations

import msgspec

from transforms.model.elements import EmptyOffsets, PassedGaps
from transforms.model.errors import GuaranteeError
from transforms.stream.offset_ranges import cut, joined


class PendingGaps(msgspec.Struct, array_like=True):
    """Of one partition.

    gaps: rising, neighbours of one cause joined. passed: per row shard the highest offset of a gap
    that it has passed, -1 before the first. present: offsets of the gaps that are in some table.
    """

    topic: str
    partition: int
    gaps: list[EmptyOffsets]
    passed: list[int]
    present: list[int]

    def add(self, shard: int, answer: PassedGaps, written: int) -> None:
        """Takes the answer of one shard. written: offset up to which the gaps were decided.

        Raises GuaranteeError when the shard has passed some of the gaps before, or does not name
        the gaps that others have named.
        """
        given = joined(answer.gaps)
        before = max(written, self.passed[shard])
        where = f"{self.topic}:{self.partition}"
        if given[0].first <= before:
            raise GuaranteeError(
                f"shard {shard} passes the gap {where}:{given[0].first} although {before} was"
                " passed before. Start from a complete checkpoint, or without one."
            )
        last = given[-1].last
        highest = self.gaps[-1].last if self.gaps else written
        known, _ = cut(cut(self.gaps, before)[1], last)
        named, more = cut(given, highest)
        if list(known) != list(named):
            raise GuaranteeError(
                f"the row shards name different gaps of {where} between {before + 1} and {last}:"
                f" {[*known]} and {[*named]} (shard {shard}), so one of them may hold a record"
                " there. Start from the last checkpoint."
            )
        self.gaps = joined([*self.gaps, *more])
        self.passed[shard] = last
        self.present += answer.present

    def take_passed(self) -> tuple[list[EmptyOffsets], list[int]]:
        """The gaps that every shard has passed, and which of their offsets are in some table."""
        limit = min(self.passed)
        gaps, left = cut(self.gaps, limit)
        present = [offset for offset in self.present if offset <= limit]
        self.gaps = list(left)
        self.present = [offset for offset in self.present if offset > limit]
        return list(gaps), present
