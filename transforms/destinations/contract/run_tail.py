"""The tail of the chain: what a run reads of it, however long it is.

A run asks the chain a handful of questions: its newest records, the settings in force, who owns the
tables, the highest plan time, what was pruned, the horizon under which each watermark was made.
Most answers lie in the newest records; the others lie in a few older ones, the *landmarks*, which
each record names for those that follow it. So a tail is a part of the chain of which every one of
these questions has the same answer as of the whole (tests/property/test_run_tail.py holds one
against the other):

    landmarks of a COMMITTED record, that record, and all that follow it

Which records are landmarks can be told from such a part as well as from the whole. Records of
versions that named none make a run read the whole chain, until one of this version follows them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import dropwhile
from typing import Final, NamedTuple, Protocol

import msgspec

from transforms.destinations.contract.ownership import OWNERSHIP, is_binding
from transforms.destinations.contract.pruned import PRUNED
from transforms.destinations.contract.run_ledger import (
    ABORTED,
    COMMITTED,
    Made,
    RunHistory,
    RunRecord,
    horizon_of,
    watermarks_made,
)
from transforms.model.coordinates import TopicPartition

LANDMARKS: Final = "landmarks"
"""Key of a record's settings: [run_id, plan time in microseconds] of each landmark, in the order of
the chain. The last one is the record's predecessor: a version that knows nothing of the key may
have copied it from another record, and then it is not.
"""


class Landmark(NamedTuple):
    """plan_time: in microseconds, for destinations that find a record by it."""

    run_id: str
    plan_time: int


class LinkedRecord(NamedTuple):
    """A record and the run_id of the one that follows it, None at the end of the chain."""

    record: RunRecord
    successor: str | None


class ChainSource(Protocol):
    """What a destination must be able to ask of its ledger."""

    def newest(self) -> Iterator[Sequence[LinkedRecord]]:
        """Ever larger parts of the ledger, each with the newest records, in any order.

        It may end before a part is the whole ledger. Each part may be of another moment.
        """

    def named(self, wanted: Sequence[Landmark]) -> Sequence[RunRecord]:
        """Those of the records that are there, in any order."""

    def read(self) -> list[RunRecord]:
        """The whole chain. Raises GuaranteeError where it is broken."""


def read_tail(source: ChainSource) -> list[RunRecord]:
    """The tail, oldest record first.

    Raises GuaranteeError where the chain is broken, as far as that is met: by `source.read`, which
    finds the words.
    """
    for part in source.newest():
        chain = _linked(part)
        if chain is None:
            break
        for number, record in enumerate(chain):
            newer = chain[: number + 1]
            if record.predecessor is None:
                return newer[::-1]
            # The link to its predecessor must have been seen, too.
            if record.status == COMMITTED and number + 1 < len(chain):
                marks = landmarks_of(record)
                if marks is not None:
                    older = _find(source, marks, part)
                    return source.read() if older is None else [*older, *newer[::-1]]
    return source.read()


def read_backwards(source: ChainSource) -> Iterator[RunRecord]:
    """All records, the newest first; reads no further than it is asked for."""
    last: RunRecord | None = None
    for part in source.newest():
        chain = _linked(part)
        if chain is None:
            break
        for record in _behind(chain, last):
            last = record
            yield record
        if last is not None and last.predecessor is None:
            return
    yield from _behind(source.read()[::-1], last)


def _behind(chain: Sequence[RunRecord], last: RunRecord | None) -> Iterable[RunRecord]:
    """The records before `last`, all where there is none. chain: newest first."""
    if last is None:
        return chain
    return dropwhile(lambda record: record.run_id != last.predecessor, chain)


def newest_first(runs: Sequence[RunRecord], history: RunHistory) -> Iterator[RunRecord]:
    """All records of the chain of which `runs` is a tail, the newest first.

    history: is read only where the tail does not have them.
    """
    wanted: str | None = None
    for number, record in enumerate(reversed(runs)):
        if number and record.run_id != wanted:
            break
        wanted = record.predecessor
        yield record
    if wanted is not None:
        yield from dropwhile(lambda record: record.run_id != wanted, history.backwards())


def _linked(part: Sequence[LinkedRecord]) -> list[RunRecord] | None:
    """From the end of the chain backwards, as far as the part goes, the newest record first.

    Empty where the part does not hold the end. None where the chain has two ends, or a link leads
    elsewhere.
    """
    there = {linked.record.run_id: linked for linked in part}
    ends = [linked.record for linked in part if linked.successor is None]
    if len(ends) > 1:
        return None
    chain = ends
    while chain and (before := there.get(chain[-1].predecessor or "")):
        if before.successor != chain[-1].run_id or len(chain) > len(part):
            return None
        chain.append(before.record)
    return chain


def _find(
    source: ChainSource, marks: Sequence[Landmark], part: Sequence[LinkedRecord]
) -> list[RunRecord] | None:
    """The landmarks in their order; None where one of them is not there."""
    there = {linked.record.run_id: linked.record for linked in part}
    missing = [mark for mark in marks if mark.run_id not in there]
    if missing:
        there |= {record.run_id: record for record in source.named(missing)}
    found = [there.get(mark.run_id) for mark in marks]
    return None if None in found else [record for record in found if record is not None]


def landmarks_of(record: RunRecord) -> list[Landmark] | None:
    """The landmarks that the record names, in the order of the chain; None where it names none."""
    named = record.settings.get(LANDMARKS)
    marks = [Landmark(*mark) for mark in msgspec.convert(named or [], list[tuple[str, int]])]
    return marks if marks and marks[-1].run_id == record.predecessor else None


def with_landmarks(record: RunRecord, runs: Sequence[RunRecord]) -> RunRecord:
    """The record as it is to be claimed, with the landmarks of those that will follow it.

    runs: the chain that it follows, or a tail of it.
    """
    # A tail begins with the landmarks of a COMMITTED record, so they are those of one.
    committed = msgspec.structs.replace(record, status=COMMITTED)
    marks = [[run.run_id, run.plan_time] for run in shortened([*runs, committed])[:-1]]
    return msgspec.structs.replace(record, settings={**record.settings, LANDMARKS: marks})


def shortened(runs: Sequence[RunRecord]) -> list[RunRecord]:
    """A part of the chain of which every question of a run has the same answer as of `runs`."""
    answering = _answering(runs)
    if not answering[_SETTINGS]:
        return list(runs)  # Tables may still be made anew, and every schema counts then.
    kept = {number for numbers in answering.values() for number in numbers}
    made = watermarks_made(runs)
    of_horizon = {
        horizon_of(run): number for number, run in enumerate(runs) if run.status == COMMITTED
    }
    while True:
        part = [runs[number] for number in sorted(kept)]
        lacking = _differing(made, watermarks_made(part))
        if lacking is None:
            return part
        # Horizons only grow, with the exception of runs that have read nothing. So the newest run
        # of a horizon mostly tells it for all partitions; the run that made the watermark always.
        more = {of_horizon[lacking.horizon_us], lacking.number} - kept
        if not more:
            return list(runs)
        kept.add(max(more))


def told_otherwise(part: Sequence[RunRecord], runs: Sequence[RunRecord]) -> list[str]:
    """The questions that `part` answers otherwise than `runs`, the chain up to the same record."""
    names = [
        {
            question: [chain[number].run_id for number in numbers]
            for question, numbers in _answering(chain).items()
        }
        for chain in (part, runs)
    ]
    differing = [question for question in names[0] if names[0][question] != names[1][question]]
    if names[1][_SETTINGS] and _differing(watermarks_made(runs), watermarks_made(part)):
        differing.append("the horizon of a watermark")
    return differing


_SETTINGS: Final = "the settings in force"


def _answering(runs: Sequence[RunRecord]) -> dict[str, Sequence[int]]:
    """Question of a run -> numbers of the records that answer it, but for the watermarks."""
    counting = [number for number, run in enumerate(runs) if run.status != ABORTED]
    return {
        "the newest records": range(max(0, len(runs) - 2), len(runs)),
        # What a run has begun, such as a topic that goes on as another, the one before it tells.
        "the newest committed runs": [
            number for number in counting if runs[number].status == COMMITTED
        ][-2:],
        _SETTINGS: [number for number in counting if is_binding(runs[number])][-1:],
        "the owner": [number for number, run in enumerate(runs) if OWNERSHIP in run.settings][-1:],
        "what was pruned": [number for number in counting if PRUNED in runs[number].settings][-1:],
        "the latest plan": sorted(counting, key=lambda number: (runs[number].plan_time, number))[
            -1:
        ],
    }


def _differing(
    made: Mapping[TopicPartition, Made], found: Mapping[TopicPartition, Made]
) -> Made | None:
    """One of `made` that is not found with its watermark and horizon."""
    for where, mark in made.items():
        other = found.get(where)
        if other is None or other[:2] != mark[:2]:
            return mark
    return None
