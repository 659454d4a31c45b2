"""Who owns the tables: bounded runs, a streaming job, or no one.

It changes by records of the chain `pipeline_runs`, claimed by the statement that claims a run: a
BEGIN, from which on one streaming job writes, and a STOP, from which on bounded runs go on. So a
bounded run that is half way loses its claim to a job that begins, and the other way round; looking
before writing would race.

Such a record is a RunRecord with an entry of its own in its settings. Ledgers of versions that
could not stream have none, and are read as chains of bounded runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, TypeAlias

import msgspec

from transforms.destinations.contract.run_ledger import RunHistory, RunRecord
from transforms.model.coordinates import TopicPartition
from transforms.model.errors import GuaranteeError
from transforms.model.moments import moment_in_words

OWNERSHIP: Final = "ownership"
"""Key of a record's settings, with the fields of Ownership."""

BEGIN: Final = "begin"
STOP: Final = "stop"

_CLOCKS_DIFFER_US: Final = 3_600_000_000

Turns: TypeAlias = tuple[tuple[str, ...], ...]
"""Groups of job ids: see Ownership."""


class Ownership(msgspec.Struct, frozen=True, kw_only=True):
    """What a record of ownership says beside positions, topic ids, watermarks and settings.

    kind: BEGIN or STOP. job_id: of the streaming job that begins, or has been stopped. generation:
    in the shard ledger, of that job or of the stop itself. since_us: of this record, microseconds
    since 1970; begun_us: of the first BEGIN since bounded runs owned the tables.
    restores: BEGIN from a checkpoint: the job that made the checkpoint, "" where that is unknown;
    None: from the tables. above: STOP: (topic, partition, end) where the tables held rows or gaps
    above the record's position: all of them lie below `end`. not_in_totals: STOP: rows of the
    tables that control_totals lack, all of them in windows that are marked as unobserved.
    turns: the ids of all jobs that have begun so far, oldest first, in groups that followed each
    other without a stop between; None in records of versions that did not write them.
    """

    kind: str
    job_id: str
    generation: int
    since_us: int
    begun_us: int
    restores: str | None = None
    above: tuple[tuple[str, int, int], ...] = ()
    not_in_totals: int = 0
    turns: Turns | None = None

    def ends_above(self) -> dict[TopicPartition, int]:
        """Partition -> the offset below which all lies that was written above its position."""
        return {(topic, partition): end for topic, partition, end in self.above}


def with_ownership(settings: Mapping[str, object], ownership: Ownership) -> dict[str, object]:
    """The settings of a record of ownership, as they are read back."""
    return {**settings, OWNERSHIP: msgspec.json.decode(msgspec.json.encode(ownership))}


def ownership_of(record: RunRecord) -> Ownership | None:
    """None where the record is not one of ownership."""
    found = record.settings.get(OWNERSHIP)
    return None if found is None else msgspec.convert(found, Ownership)


def is_binding(record: RunRecord) -> bool:
    """Whether its settings bind later runs: something of it is, or may become, visible.

    Of a streaming job rows are visible from its BEGIN on. Genesis and the records of tables that
    were made anew bind positions, topic ids and the cluster alone.
    """
    return bool(record.tables) or OWNERSHIP in record.settings


def owner_of(runs: Sequence[RunRecord]) -> Ownership | None:
    """The BEGIN of the streaming job that owns the tables; None: none does. runs: the chain."""
    newest = ownership_of(runs[-1]) if runs else None
    return newest if newest is not None and newest.kind == BEGIN else None


def last_stop(runs: Sequence[RunRecord]) -> tuple[RunRecord, Ownership] | None:
    """The newest STOP that no BEGIN has followed; None where there is none. runs: the chain."""
    for record in reversed(runs):
        found = ownership_of(record)
        if found is not None:
            return (record, found) if found.kind == STOP else None
    return None


def turns_of(runs: Sequence[RunRecord], history: RunHistory) -> Turns:
    """The jobs that have begun so far, see Ownership. runs: the chain, or its tail.

    history: is read as a whole where the newest record of ownership does not have them.
    """
    newest = next((found for run in reversed(runs) if (found := ownership_of(run))), None)
    if newest is None:
        return ()
    return _turns_in(history.read()) if newest.turns is None else newest.turns


def _turns_in(chain: Sequence[RunRecord]) -> Turns:
    turns: list[list[str]] = []
    goes_on = False
    for found in map(ownership_of, chain):
        if found is not None and found.kind == BEGIN:
            turns += [] if goes_on else [[]]
            turns[-1].append(found.job_id)
        goes_on = found is not None and found.kind == BEGIN
    return tuple(tuple(dict.fromkeys(turn)) for turn in turns)


def jobs_in_turn(runs: Sequence[RunRecord], history: RunHistory) -> tuple[str, ...]:
    """The jobs that follow each other at the end of the chain, oldest first.

    Empty where no job owns the tables. runs, history: see turns_of.
    """
    return () if owner_of(runs) is None else turns_of(runs, history)[-1]


def turns_with(job_id: str, runs: Sequence[RunRecord], history: RunHistory) -> Turns:
    """The turns of the BEGIN of this job behind the chain. runs, history: see turns_of."""
    turns, in_turn = turns_of(runs, history), jobs_in_turn(runs, history)
    return (*(turns[:-1] if in_turn else turns), (*in_turn, job_id))


def written_at(record: RunRecord) -> tuple[int, int]:
    """Bounds of the `ingest_time` of its rows, microseconds since 1970, both included.

    Rows of a run have its plan's time, those of a job the clocks of its workers, which may differ
    from the one that the record was written by.
    """
    found = ownership_of(record)
    if found is None:
        return record.plan_time, record.plan_time
    return found.begun_us - _CLOCKS_DIFFER_US, found.since_us + _CLOCKS_DIFFER_US


def refuse_owned(runs: Sequence[RunRecord]) -> None:
    """Raises GuaranteeError where a streaming job owns the tables. runs: the chain."""
    owner = owner_of(runs)
    if owner is not None:
        raise GuaranteeError(
            f"the streaming job {owner.job_id} owns the tables of this destination since"
            f" {moment_in_words(owner.since_us)}: what else wrote to them would write its records"
            " twice. Nothing of this run is visible. `payment-pipeline stop` ends the job and hands"
            " the tables over; `payment-pipeline stop --lost` does it where its cluster is gone."
        )
