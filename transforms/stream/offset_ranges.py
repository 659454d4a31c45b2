"""Ranges of offsets of one partition: joined, cut and subtracted without a number per offset.

A gap may span millions of offsets, where a topic was compacted or its retention went on.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence

from transforms.model.elements import EmptyOffsets


def joined(gaps: Iterable[EmptyOffsets]) -> list[EmptyOffsets]:
    """Rising gaps, with neighbours of one cause as one gap."""
    whole: list[EmptyOffsets] = []
    for gap in gaps:
        if whole and (whole[-1].last + 1, whole[-1].cause) == (gap.first, gap.cause):
            gap = EmptyOffsets(whole.pop().first, gap.last, gap.cause)
        whole.append(gap)
    return whole


def cut(
    gaps: Sequence[EmptyOffsets], at: int
) -> tuple[Sequence[EmptyOffsets], Sequence[EmptyOffsets]]:
    """The rising gaps up to the offset `at`, inclusive, and those above it."""
    index = bisect_right(gaps, at, key=lambda gap: gap.first)
    if not index or gaps[index - 1].last <= at:
        return gaps[:index], gaps[index:]
    first, last, cause = gaps[index - 1]
    below, above = EmptyOffsets(first, at, cause), EmptyOffsets(at + 1, last, cause)
    return [*gaps[: index - 1], below], [above, *gaps[index:]]


def without(gaps: Iterable[EmptyOffsets], taken: Iterable[tuple[int, int]]) -> list[EmptyOffsets]:
    """What is left of rising gaps without ranges (first, last), inclusive, in any order."""
    left: list[EmptyOffsets] = []
    rising = sorted(taken)
    index = 0
    for first, last, cause in gaps:
        while index < len(rising) and rising[index][1] < first:
            index += 1
        following = index
        while following < len(rising) and rising[following][0] <= last:
            start, end = rising[following]
            if first < start:
                left.append(EmptyOffsets(first, start - 1, cause))
            first = max(first, end + 1)
            following += 1
        if first <= last:
            left.append(EmptyOffsets(first, last, cause))
    return left
