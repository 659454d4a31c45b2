"""A tail answers every question of a run as the whole chain does, whatever the chain went through.

Records are made as runs and jobs make them, from a tail; some by versions that name no landmarks,
or that copy those of another record. The oracle asks the whole chain.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from pipeline.run.generations import adoptions, current_of
from pipeline.run.preconditions import check_goes_on
from pipeline.run.rejected_rate import newest_records
from pipeline.run.settings import settings_in_force
from pipeline.streaming.records import begun_at, ownership_record, settings_without_ownership
from pipeline.streaming.shards import jobs_of, shards_of_job
from tests.support.examples import examples
from tests.support.in_memory_kafka import HOUR_US, MINUTE_US, NOW_US
from transforms.destinations.contract.ownership import (
    BEGIN,
    STOP,
    Ownership,
    jobs_in_turn,
    last_stop,
    owner_of,
    ownership_of,
    turns_of,
    turns_with,
)
from transforms.destinations.contract.run_ledger import (
    ABORTED,
    COMMITTED,
    GENESIS,
    PREPARED,
    PartitionProgress,
    RunRecord,
    TableProgress,
    horizon_of,
    last_claimed,
    last_committed,
    watermarks_made,
)
from transforms.destinations.contract.run_tail import (
    LANDMARKS,
    Landmark,
    LinkedRecord,
    landmarks_of,
    newest_first,
    read_backwards,
    read_tail,
    shortened,
    with_landmarks,
)
from transforms.model.errors import GuaranteeError
from transforms.model.tables import PAYMENTS


class Ledger:
    """A chain in memory. sizes: of the parts that `newest` gives."""

    def __init__(self, sizes: Sequence[int]) -> None:
        self.chain: list[RunRecord] = []
        self._sizes = sizes

    def newest(self) -> Iterator[list[LinkedRecord]]:
        after = [record.run_id for record in self.chain[1:]]
        linked = list(map(LinkedRecord, self.chain, [*after, None]))
        for size in self._sizes:
            if size >= len(linked):
                return
            yield linked[-size:][::-1]

    def named(self, wanted: Sequence[Landmark]) -> list[RunRecord]:
        return [run for run in self.chain if Landmark(run.run_id, run.plan_time) in wanted]

    def read(self) -> list[RunRecord]:
        return list(self.chain)

    def tail(self) -> list[RunRecord]:
        return read_tail(self)

    def backwards(self) -> Iterator[RunRecord]:
        return read_backwards(self)

    def end(self, status: str) -> None:
        self.chain[-1] = msgspec.structs.replace(self.chain[-1], status=status)


def part(topic: str, number: int, watermark: int | None) -> PartitionProgress:
    return PartitionProgress(
        topic=topic, partition=number, topic_id=topic, from_offset=0, to_offset=0, records=0,
        gap_offsets=0, coordinate_hash=0, start_watermark=None, watermark=watermark,
        position_since=0,
    )  # fmt: skip


def settings(horizon: int, schema: int) -> dict[str, Any]:
    return {"dedup_horizon_us": horizon, "schema": [schema], "shards": schema, "topics": ["p"]}


class History:
    """Plays steps; each is drawn, and left out where it may not come now."""

    def __init__(self, ledger: Ledger, draw: Callable[[Any], Any]) -> None:
        self.ledger = ledger
        self.draw = draw
        self.now = NOW_US
        self.names = 0

    def play(self) -> None:
        newest = self.ledger.chain[-1] if self.ledger.chain else None
        self.now += self.draw(st.sampled_from([0, 10_000_000, MINUTE_US]))
        if newest is None:
            genesis = [part("p", number, None) for number in range(2)]
            self._write(self._record(None, [], genesis, settings(HOUR_US, 1), tables=False))
        elif newest.status == PREPARED:
            self._finish(newest)
        elif owner_of([newest]):
            self.draw(st.sampled_from([self._found, self._stop, self._begin]))()
        else:
            some = [self._run, self._run, self._run, self._begin, self._make_anew]
            self.draw(st.sampled_from(some))()

    def _finish(self, newest: RunRecord) -> None:
        how = self.draw(st.sampled_from([COMMITTED, COMMITTED, COMMITTED, ABORTED, "repair"]))
        if how != "repair":
            self.ledger.end(how)
            return
        repair = msgspec.structs.replace(
            newest, run_id=self._name(), predecessor=newest.run_id, repairs=newest.run_id
        )
        runs = self.ledger.tail()
        self.ledger.end(ABORTED)
        self._write(self._named(repair, runs))

    def _run(self) -> None:
        runs = self.ledger.tail()
        last, force = last_committed(runs), settings_in_force(runs)
        least = HOUR_US if force is None else force["dedup_horizon_us"]
        horizon = least + self.draw(st.sampled_from([0, 0, 0, MINUTE_US, HOUR_US]))
        parts = [self._read(one) for one in last.partitions]
        known = {one.topic for one in parts}
        more = self.draw(st.sampled_from([None, None, None, None, "q", "p#2"]))
        if more and more not in known:
            parts.append(self._read(part(more, 0, None)))
        # What reads nothing is COMMITTED at once: a topic that is adopted and empty, for instance.
        tables = self.draw(st.integers(0, 4)) > 0
        schema = 1 if force is None else force["shards"]
        record = self._record(runs[-1], runs, parts, settings(horizon, schema), tables)
        self._write(record)

    def _make_anew(self) -> None:
        runs = self.ledger.tail()
        if settings_in_force(runs) is None:
            parts = last_committed(runs).partitions
            anew = settings(self.draw(st.sampled_from([HOUR_US, 2 * HOUR_US])), self.names)
            self._write(self._record(runs[-1], runs, parts, anew, tables=False))

    def _begin(self) -> None:
        runs = self.ledger.tail()
        self.names += 1
        job = f"job-{self.names}"
        turns = turns_with(job, runs, self.ledger)
        self._own(BEGIN, runs, job, turns, begun_at(runs, self.now))

    def _found(self) -> None:
        runs = self.ledger.tail()
        owner = owner_of(runs)
        assert owner is not None
        self._own("found", runs, owner.job_id, owner.turns, owner.begun_us)

    def _stop(self) -> None:
        runs = self.ledger.tail()
        owner = owner_of(runs)
        assert owner is not None
        self._own(STOP, runs, owner.job_id, turns_of(runs, self.ledger), owner.begun_us)

    def _own(self, kind: str, runs: Sequence[RunRecord], job: str, turns: Any, begun: int) -> None:
        last = runs[-1]
        parts = [self._read(one) for one in last.partitions] if kind == STOP else last.partitions
        old = self.draw(st.booleans())
        ownership = Ownership(
            kind=STOP if kind == STOP else BEGIN, job_id=job, generation=1, since_us=self.now,
            begun_us=begun, turns=None if old else turns,
        )  # fmt: skip
        before = settings_without_ownership(last)
        made = ownership_record(kind, runs, parts, None, before, ownership)
        if old:
            # Such a version copies every setting that it does not know.
            copied = before.get(LANDMARKS)
            kept = {name: value for name, value in made.settings.items() if name != LANDMARKS}
            made = msgspec.structs.replace(
                made, settings={**kept, **({LANDMARKS: copied} if copied else {})}
            )
        self._write(msgspec.structs.replace(made, run_id=self._name(kind)))

    def _read(self, one: PartitionProgress) -> PartitionProgress:
        """Often nothing: topics are retired, and others are quiet."""
        records = self.draw(st.sampled_from([0, 0, 1, 400]))
        if not records:
            return msgspec.structs.replace(one, from_offset=one.to_offset, records=0)
        further = self.draw(st.sampled_from([0, 1, 5]))
        mark = one.watermark if one.watermark is not None else 0
        return msgspec.structs.replace(
            one, from_offset=one.to_offset, to_offset=one.to_offset + records, records=records,
            watermark=mark + further,
        )  # fmt: skip

    def _record(
        self,
        before: RunRecord | None,
        runs: Sequence[RunRecord],
        parts: Sequence[PartitionProgress],
        kept: dict[str, Any],
        tables: bool,
    ) -> RunRecord:
        skew = self.draw(st.sampled_from([0, 0, 30_000_000, -30_000_000]))
        record = RunRecord(
            run_id=GENESIS if before is None else self._name(),
            predecessor=before and before.run_id,
            status=PREPARED if tables else COMMITTED,
            plan_time=self.now + skew, cluster_id=None, partitions=list(parts),
            tables=[TableProgress(table=PAYMENTS, rows=1, commit_groups=[])] if tables else [],
            lowest_watermark=None, live_ids=0, state_bytes=0, settings=kept,
        )  # fmt: skip
        return record if before is None else self._named(record, runs)

    def _named(self, record: RunRecord, runs: Sequence[RunRecord]) -> RunRecord:
        return record if self.draw(st.integers(0, 5)) == 0 else with_landmarks(record, runs)

    def _name(self, kind: str = "run") -> str:
        self.names += 1
        return f"{kind}-{self.names}"

    def _write(self, record: RunRecord) -> None:
        self.ledger.chain.append(record)


def refuses(runs: Sequence[RunRecord], now_us: int) -> bool:
    try:
        check_goes_on(runs, 0, now_us)
    except GuaranteeError:
        return True
    return False


def answers(
    runs: Sequence[RunRecord], ledger: Ledger, backwards: Sequence[RunRecord]
) -> dict[str, Any]:
    """Every question that a run, a job or a stop asks of the chain, but for the jobs."""
    claimed, force = last_claimed(runs), settings_in_force(runs)
    committed = [run for run in runs if run.status == COMMITTED]
    times = sorted({run.plan_time + 1_000_000 for run in ledger.chain})
    topics = [one.topic for one in claimed.partitions]
    return {
        "newest": runs[-1],
        "committed": last_committed(runs),
        "claimed": claimed,
        "current": current_of(claimed),
        "in force": force,
        # needs_tables_anew, which asks for a schema that is in no record.
        "schemas": None if force is not None else {str(run.settings["schema"]) for run in runs},
        "watermarks": {where: made[:2] for where, made in watermarks_made(runs).items()},
        "clock": [refuses(runs, now - ahead) for now in times for ahead in (0, 2_000_000)],
        "owner": owner_of(runs),
        "stop": last_stop(runs),
        "begun": begun_at(runs, 7),
        "shards": shards_of_job(runs, 99, False, from_tables=False),
        "adopted": adoptions(committed[-2:]),
        "rejected": [newest_records(topic, backwards) for topic in topics],
    }


def jobs(chain: Sequence[RunRecord]) -> tuple[list[str], list[str]]:
    """Of the whole chain: all jobs, and those that follow each other at its end."""
    all_of_them: dict[str, None] = {}
    in_turn: dict[str, None] = {}
    for found in map(ownership_of, chain):
        if found is None or found.kind != BEGIN:
            in_turn = {}
        else:
            all_of_them[found.job_id] = in_turn[found.job_id] = None
    return list(all_of_them), list(in_turn)


@examples(200)
@given(
    st.data(),
    st.integers(1, 40),
    st.sampled_from([(1, 2, 3), (2, 4), (3, 50), (8, 512)]),
)
def test_a_tail_answers_as_the_whole_chain_does(
    data: st.DataObject, steps: int, sizes: Sequence[int]
) -> None:
    ledger = Ledger(sizes)
    history = History(ledger, data.draw)
    for _ in range(steps):
        history.play()
        chain, tail = ledger.chain, ledger.tail()
        backwards = list(ledger.backwards())
        assert backwards == chain[::-1]
        whole = answers(chain, ledger, backwards)
        named = chain[-1].status == COMMITTED and landmarks_of(chain[-1])
        if named and whole["in force"]:
            # Three records of its own, the owner, the latest plan time, and one for each horizon.
            bound = 6 + len({horizon_of(run) for run in chain})
            assert len(tail) <= max(sizes[0], bound)
        for runs in (tail, shortened(tail), shortened(chain)):
            assert list(newest_first(runs, ledger)) == backwards
            assert answers(runs, ledger, backwards) == whole
            assert (jobs_of(runs, ledger), list(jobs_in_turn(runs, ledger))) == jobs(chain)
