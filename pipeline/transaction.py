"""A bounded run is a transaction. The steps are numbered as in docs/guarantees.md; a test kills the process before and after each.

1 recover, 2 plan, 3 read and write (nothing visible), 4 prove and prepare (one atomic statement), 5 commit table by table,
6 mark committed and tell Kafka.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

import pyarrow as pa

from pipeline.kafka_admin import TopicState
from pipeline.run import repair
from pipeline.run.plan import Plan, PlanLimits, last_committed, make_plan
from pipeline.run.prove import Proof, prove
from transforms.deduplicate.known_ids import ColdStart, IdSource, load_known_ids
from transforms.deduplicate.shard_state import packed_bytes
from transforms.destinations.contract.run_ledger import COMMITTED, GENESIS, PREPARED, PartitionProgress, RunRecord, TableProgress
from transforms.destinations.contract.write_streams import StreamAlreadyCommitted, StreamNotFound, WriteStreams
from transforms.model.buckets import expiry_of_bucket
from transforms.model.errors import GuaranteeError
from transforms.model.run_report import ShardReport, decode_report
from transforms.model.schema import PaymentSchema
from transforms.model.tables import COMMIT_ORDER, GAPS, TOTALS
from transforms.write.collect_reports import ReportStore
from transforms.write.write_rows import TableWriter

STREAMS_PER_COMMIT = 10_000
"""BatchCommitWriteStreams takes no more (https://cloud.google.com/bigquery/quotas#write-api-limits)."""


COMMIT_WITHIN_SECONDS = 3600.0
"""A small part of how long a finalized stream lives (https://cloud.google.com/bigquery/docs/write-api-batch)."""


@dataclass(frozen=True)
class Moment:
    """By both clocks: one stands still while a machine sleeps, the other one may be set. Seconds."""

    wall: float
    monotonic: float

    @staticmethod
    def now() -> Moment:
        return Moment(time.time(), time.monotonic())

    def must_be_recent(self, run_id: str) -> None:
        """Raises GuaranteeError when it is too long ago."""
        now = Moment.now()
        if max(now.wall - self.wall, now.monotonic - self.monotonic) > COMMIT_WITHIN_SECONDS:
            raise GuaranteeError(
                f"run {run_id} was claimed more than {COMMIT_WITHIN_SECONDS:.0f} s ago and is not visible as a whole yet, so this process must not go"
                " on with it. Run again: the next run finishes it."
            )


class RunDestination(WriteStreams, IdSource, ReportStore, repair.VisibleRows, Protocol):
    """What a run needs of a destination; see transforms/destinations."""

    def __enter__(self) -> RunDestination: ...

    @property
    def streams_per_hour(self) -> int | None: ...

    def has_tables(self) -> bool: ...

    def create_tables(self, schema: PaymentSchema) -> None: ...

    def read_runs(self) -> list[RunRecord]: ...

    def claim_run(self, record: RunRecord) -> bool: ...

    def mark_run(self, run_id: str, status: str) -> None: ...

    def discard_streams(self, keep: Sequence[str]) -> int: ...

    def discard_reports(self, keep_run_id: str | None) -> None: ...

    def read_reports(self, run_id: str) -> dict[str, list[bytes]]: ...


@dataclass(frozen=True)
class RunSettings:
    """What the steps need of the configuration. settings: see pipeline/run/settings.py; times in microseconds."""

    limits: PlanLimits
    extra_retention_us: int
    shards: int
    settings: dict[str, Any]


def recover(destination: RunDestination) -> list[RunRecord]:
    """Step 1: rolls a PREPARED run forward, removes what a dead run left behind, and returns the ledger; empty where no run has been.

    If the newest record is still PREPARED then, a repair must follow it (pipeline/run/repair.py). Removing is safe: a run that is still alive
    finds its streams gone when it finalizes them, before it claims anything.
    """
    if not destination.has_tables():
        return []
    runs = destination.read_runs()
    if runs and runs[-1].status == PREPARED:
        commit(destination, runs[-1])
        runs = destination.read_runs()
    destination.discard_streams(keep=())
    destination.discard_reports(None)
    return runs


def begin(
    destination: RunDestination,
    positions: Mapping[tuple[str, int], int],
    states: Sequence[TopicState],
    cluster_id: str | None,
    settings: RunSettings,
    now_us: int,
) -> list[RunRecord]:
    """Step 2, only for an empty ledger: `--start`, resolved to numbers, is written down before anything is read.

    Raises GuaranteeError where the tables have rows although the ledger has none.
    """
    if not destination.is_empty():
        raise GuaranteeError(
            "the tables have rows, but the ledger pipeline_runs is empty, so nobody knows which Kafka records they hold. Restore the ledger"
            " from a backup, or start with a new destination and --start=earliest."
        )
    partitions = [
        PartitionProgress(
            topic=state.topic, partition=partition, topic_id=state.topic_id, from_offset=position, to_offset=position, records=0,
            gap_offsets=0, coordinate_hash=0, start_watermark=None, watermark=None, position_since=now_us,
        )
        for state in states
        for partition, position in ((number, positions[state.topic, number]) for number in sorted(state.partitions))
    ]  # fmt: skip
    genesis = RunRecord(
        run_id=GENESIS, predecessor=None, status=COMMITTED, plan_time=now_us, cluster_id=cluster_id, partitions=partitions, tables=[],
        lowest_watermark=None, live_ids=0, state_bytes=0, settings=settings.settings,
    )  # fmt: skip
    if not destination.claim_run(genesis):
        raise _lost_race(GENESIS)
    return [genesis]


def plan(runs: Sequence[RunRecord], states: Sequence[TopicState], cluster_id: str | None, settings: RunSettings, now_us: int) -> Plan:
    """Step 2: ranges, start watermarks, idle advances and the plan's time, from the last COMMITTED run and fresh answers of the broker."""
    return make_plan(_new_run_id(), runs, states, cluster_id, settings.limits, now_us)


def plan_repair(destination: RunDestination, expired: RunRecord, ask: Callable[[str], TopicState], settings: RunSettings) -> Plan:
    """Step 2, when the newest run is PREPARED and can be committed only in part: its ranges once more. ask: the broker, for one topic."""
    columns = settings.settings["amount_column"], settings.settings["currency_column"]
    visible = repair.visible_of(destination, expired, columns, settings.limits.accept_data_loss)
    return repair.plan_repair(_new_run_id(), visible, [ask(topic) for topic in repair.topics_to_read(visible)])


def read_and_write(run_graph: Callable[[Plan], None], planned: Plan) -> None:
    """Step 3: runs the graph. Everything it writes lies in pending streams: nothing is visible."""
    run_graph(planned)


def prove_and_prepare(destination: RunDestination, planned: Plan, settings: RunSettings) -> RunRecord:
    """Step 4: finalize, prove, and claim the predecessor with the whole record in one atomic statement."""
    proof = finalize_and_prove(destination, planned, settings)
    record = make_record(destination, planned, proof, settings)
    prepare(destination, record)
    return record


def finalize_and_prove(destination: RunDestination, planned: Plan, settings: RunSettings) -> Proof:
    """Step 4, first half: one set of reports counts; its streams are closed and their rows compared with what was read."""
    attempts = destination.read_reports(planned.run_id)
    if not attempts and any(part.to_offset > part.read_from for part in planned.partitions):
        raise GuaranteeError("the runner says that the run is done, but no report of it arrived. Nothing of it is visible; run again.")
    reports = [decode_report(report) for report in attempts[min(attempts)]] if attempts else []
    streams = [stream.stream for report in reports if isinstance(report, ShardReport) for stream in report.streams]
    try:
        finalized = {stream: destination.finalize_stream(stream) for stream in streams}
    except StreamNotFound as gone:
        raise GuaranteeError(
            f"a write stream of this run is gone ({gone}): another run has begun meanwhile, or this one took longer than a stream lives. Nothing"
            " of it is visible; run again, with a smaller --max_records_per_run if it took that long."
        ) from gone
    return prove(planned, reports, finalized, settings.limits.dedup_horizon_us)


def make_record(destination: RunDestination, planned: Plan, proof: Proof, settings: RunSettings) -> RunRecord:
    """The whole record of the run; gaps and totals get their streams here, on the same path as the rows."""
    streams = dict(proof.streams)
    for table, rows in ((GAPS, proof.gaps), (TOTALS, proof.totals)):
        if rows.num_rows:
            streams[table] = [(_write_stream(destination, table, rows), rows.num_rows)]
    visible = {table: planned.repair.rows(table) if planned.repair else 0 for table in COMMIT_ORDER}
    tables = [
        TableProgress(
            table=table,
            rows=visible[table] + sum(rows for _, rows in streams.get(table, [])),
            commit_groups=_groups([name for name, _ in streams.get(table, [])]),
        )
        for table in COMMIT_ORDER
        if table in streams or visible[table]
    ]
    partitions = [*proof.partitions, *planned.carried]
    live = _live_ids(destination, planned, proof, settings)
    return RunRecord(
        run_id=planned.run_id, predecessor=planned.predecessor, status=PREPARED, plan_time=planned.plan_time_us,
        cluster_id=planned.cluster_id, partitions=partitions, tables=tables,
        lowest_watermark=planned.lowest_watermark_us, live_ids=sum(live.values()),
        state_bytes=packed_bytes(live, settings.shards), settings=settings.settings,
        repairs=planned.repair.expired.run_id if planned.repair else None,
    )  # fmt: skip


def prepare(destination: RunDestination, record: RunRecord) -> None:
    """Step 4, second half: of two runs from one predecessor exactly one succeeds. From here on the run will become visible."""
    if not destination.claim_run(record):
        raise _lost_race(record.predecessor)


def commit(destination: RunDestination, record: RunRecord, since: Moment | None = None) -> str:
    """Steps 5 and 6 of a PREPARED run, by whoever finds it. Returns the status that the run has then.

    since: a moment before it was claimed, or found; None: now. Nobody commits later than an hour after it: whoever finds streams expired,
    days later, may write their rows again, and must not meet a process that has slept and goes on committing.

    Streams that have expired meanwhile: COMMITTED if all of it is visible all the same, ABORTED if nothing is, so that it is planned again;
    else it stays PREPARED, and only a repair can follow it.
    """
    since = since or Moment.now()
    status = COMMITTED
    try:
        for table in record.tables:
            since.must_be_recent(record.run_id)
            commit_table(destination, table)
    except StreamNotFound:
        status = repair.status_without_streams(destination, record)
    if status != PREPARED:
        mark(destination, record, status)
    return status


def commit_table(destination: RunDestination, table: TableProgress) -> None:
    """Step 5 for one table; committed already is success, because the groups are fixed in the record. Raises StreamNotFound."""
    for group in table.commit_groups:
        with suppress(StreamAlreadyCommitted):
            destination.commit_streams(table.table, group)


def mark(destination: RunDestination, record: RunRecord, status: str) -> None:
    """Step 6, first half."""
    destination.mark_run(record.run_id, status)


def check_cluster(runs: Sequence[RunRecord], cluster_id: str | None) -> None:
    """Raises GuaranteeError when the broker belongs to another Kafka cluster than what was read so far."""
    before = last_committed(runs).cluster_id
    if before is not None and before != cluster_id:
        raise GuaranteeError(
            f"--bootstrap_servers leads to the Kafka cluster {cluster_id}, but this destination was filled from {before}: its positions mean"
            " nothing there. Use the servers of that cluster, or a new destination."
        )


def cold_start(destination: RunDestination, planned: Plan, settings: RunSettings) -> ColdStart:
    """What the shards load: the ids that the lowest start watermark has not expired."""
    return ColdStart(destination, planned.run_id, planned.lowest_watermark_us, settings.extra_retention_us)


def _live_ids(destination: RunDestination, planned: Plan, proof: Proof, settings: RunSettings) -> dict[int, int]:
    """Bucket -> ids that the next run will load."""
    live = load_known_ids(cold_start(destination, planned, settings)).per_bucket()
    for bucket, change in proof.live_id_changes.items():
        live[bucket] = live.get(bucket, 0) + change
    marks = [part.watermark for part in proof.partitions if part.watermark is not None]
    return {
        bucket: count
        for bucket, count in live.items()
        if count and (not marks or expiry_of_bucket(bucket, settings.extra_retention_us) > min(marks))
    }


def _write_stream(destination: RunDestination, table: str, rows: pa.RecordBatch) -> str:
    """In appends of a size that every destination takes. rows: not empty."""
    writer = TableWriter(destination, table)
    writer.add(rows)
    writer.flush()
    written = writer.written()
    assert written is not None
    destination.finalize_stream(written.stream)
    return written.stream


def _groups(streams: list[str]) -> list[list[str]]:
    return [streams[start : start + STREAMS_PER_COMMIT] for start in range(0, len(streams), STREAMS_PER_COMMIT)]


def _new_run_id() -> str:
    return f"run-{secrets.token_hex(8)}"


def _lost_race(predecessor: str | None) -> GuaranteeError:
    return GuaranteeError(
        f"another run has followed {predecessor} meanwhile; of two runs from one predecessor only one may count. Nothing of this one is"
        " visible. Run one at a time into a destination."
    )
