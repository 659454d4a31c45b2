"""Step 4 of a run: what was written is proven, and one atomic statement claims the run.

The statement writes the whole record of the run: from there on it will become visible.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pyarrow as pa

from pipeline.run.begin import lost_race
from pipeline.run.notes import Notes
from pipeline.run.plan import Plan
from pipeline.run.prove import Proof, prove
from pipeline.run.read_and_write import cold_start
from pipeline.run.rejected_rate import check_rejected_rate
from pipeline.run.settings import RunSettings
from transforms.deduplicate.known_ids import load_known_ids
from transforms.deduplicate.shard_state import packed_bytes
from transforms.destinations.appends import FailBundle, TableAppends
from transforms.destinations.contract.destination import Destination
from transforms.destinations.contract.ownership import refuse_owned
from transforms.destinations.contract.run_ledger import (
    COMMITTED,
    PREPARED,
    PREPARED_AT,
    RunRecord,
    TableProgress,
)
from transforms.destinations.contract.run_tail import newest_first, with_landmarks
from transforms.destinations.contract.write_streams import STREAMS_PER_COMMIT, StreamNotFound
from transforms.model.buckets import expiry_of_bucket
from transforms.model.errors import GuaranteeError, TryAgainLater
from transforms.model.run_report import ShardReport, decode_report
from transforms.model.tables import COMMIT_ORDER, GAPS, TOTALS


def prove_and_prepare(
    destination: Destination,
    planned: Plan,
    settings: RunSettings,
    runs: Sequence[RunRecord],
    notes: Notes,
    now_us: int,
    before_claim: Callable[[RunRecord, Proof], None] = lambda _record, _proof: None,
) -> tuple[RunRecord, Proof]:
    """Step 4: finalize, prove, and claim the predecessor with the whole record.

    runs: the chain, or its tail. now_us: microseconds since 1970; the hour in which the run must
    become visible begins. before_claim: called with both results when nothing but another run can
    refuse it any more. Returns the record and what it comes from. Raises GuaranteeError, with
    nothing visible, where the proof fails, too many records would be rejected, or another run was
    faster.
    """
    proof = finalize_and_prove(destination, planned, settings)
    check_rejected_rate(
        planned,
        proof.partitions,
        proof.rejected,
        lambda: newest_first(runs, destination.runs),
        settings.max_rejected_rate,
        destination.rows.rejected_by_reason,
    )
    record = with_landmarks(make_record(destination, planned, proof, settings, now_us), runs)
    before_claim(record, proof)
    prepare(destination, record)
    notes.rejected.extend(proof.rejected)
    return record, proof


def finalize_and_prove(destination: Destination, planned: Plan, settings: RunSettings) -> Proof:
    """Step 4, first half: the streams of one set of reports hold what was read.

    Raises GuaranteeError, with nothing visible, where they do not.
    """
    attempts = destination.reports.read(planned.run_id)
    if not attempts and any(part.to_offset > part.read_from for part in planned.partitions):
        raise GuaranteeError(
            "the runner says that the run is done, but no report of it arrived. Nothing of it is"
            " visible; run again."
        )
    reports = [decode_report(report) for report in attempts[min(attempts)]] if attempts else []
    streams = [
        stream.stream
        for report in reports
        if isinstance(report, ShardReport)
        for stream in report.streams
    ]
    try:
        finalized = {stream: destination.streams.finalize(stream) for stream in streams}
    except StreamNotFound as missing:
        raise TryAgainLater(
            f"a write stream of this run is gone ({missing}): another run has begun meanwhile, or"
            " this one took longer than a stream lives. Nothing of it is visible; run again, with a"
            " smaller --max_records_per_run if it took that long."
        ) from missing
    return prove(planned, reports, finalized, settings.limits.dedup_horizon_us)


def make_record(
    destination: Destination, planned: Plan, proof: Proof, settings: RunSettings, now_us: int
) -> RunRecord:
    """The whole record of the run.

    Gaps and totals get their write streams here, on the same path as the rows.
    """
    streams = dict(proof.streams)
    for table, rows in ((GAPS, proof.gaps), (TOTALS, proof.totals)):
        if rows.num_rows:
            streams[table] = [(written_stream(destination, table, rows), rows.num_rows)]
    visible = {table: planned.in_tables.rows(table) for table in COMMIT_ORDER}
    tables = [
        TableProgress(
            table=table,
            rows=visible[table] + sum(rows for _, rows in streams.get(table, [])),
            commit_groups=commit_groups([name for name, _ in streams.get(table, [])]),
        )
        for table in COMMIT_ORDER
        if table in streams or visible[table]
    ]
    partitions = [*proof.partitions, *planned.carried]
    live = _live_ids(destination, planned, proof, settings)
    return RunRecord(
        run_id=planned.run_id,
        predecessor=planned.predecessor,
        # A record without rows has nothing that is still to become visible.
        status=PREPARED if tables else COMMITTED,
        plan_time=planned.plan_time_us,
        cluster_id=planned.cluster_id,
        partitions=partitions,
        tables=tables,
        lowest_watermark=planned.lowest_watermark_us,
        live_ids=sum(live.values()),
        state_bytes=packed_bytes(live, settings.shards),
        settings={
            **_settings_of(planned, settings),
            **planned.carried_settings,
            PREPARED_AT: now_us,
        },
        repairs=planned.repair.expired.run_id if planned.repair else None,
    )


def _settings_of(planned: Plan, settings: RunSettings) -> dict[str, Any]:
    """What the record keeps of the configuration.

    A repair judges by the watermarks of the run that it repairs, so by the topics of that run.
    """
    if planned.repair is None:
        return settings.recorded
    expired = planned.repair.expired.settings
    others = {name: value for name, value in settings.recorded.items() if name != "topics"}
    return {"topics": expired["topics"], **others} if "topics" in expired else others


def prepare(destination: Destination, record: RunRecord) -> None:
    """Step 4, second half: of two runs from one predecessor exactly one succeeds.

    From here on the run will become visible. Raises TryAgainLater for the one that lost, or
    GuaranteeError where it lost to a streaming job that has begun.
    """
    if not destination.runs.claim(record):
        refuse_owned(destination.runs.tail())
        raise lost_race(record.predecessor)


def _live_ids(
    destination: Destination, planned: Plan, proof: Proof, settings: RunSettings
) -> dict[int, int]:
    """Bucket -> ids that the next run will load."""
    live = dict(load_known_ids(cold_start(destination, planned, settings)).live)
    for bucket, change in proof.live_id_changes.items():
        live[bucket] = live.get(bucket, 0) + change
    marks = [part.watermark for part in proof.partitions if part.watermark is not None]
    return {
        bucket: count
        for bucket, count in live.items()
        if count
        and (not marks or expiry_of_bucket(bucket, settings.extra_retention_us) > min(marks))
    }


def written_stream(destination: Destination, table: str, rows: pa.RecordBatch) -> str:
    """The name of a finalized pending stream that holds `rows`, which must not be empty."""
    appends = TableAppends(destination.streams, table, FailBundle())
    appends.add(rows)
    written = appends.written()
    assert written is not None
    destination.streams.finalize(written.stream)
    return written.stream


def commit_groups(streams: list[str]) -> list[list[str]]:
    """The streams of one table, as the record fixes which are committed together."""
    return [
        streams[start : start + STREAMS_PER_COMMIT]
        for start in range(0, len(streams), STREAMS_PER_COMMIT)
    ]
