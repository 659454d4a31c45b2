"""The record of a prune, with the streams of what it writes: gaps, and totals to take off."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.run.begin import lost_race
from pipeline.run.make_plan import new_run_id
from pipeline.run.prepare import commit_groups, written_stream
from pipeline.run.pruned_gaps import gaps_instead
from pipeline.run.remove_pruned import not_visible
from pipeline.run.settings import settings_in_force
from transforms.destinations.contract.destination import Destination
from transforms.destinations.contract.ownership import OWNERSHIP, refuse_owned
from transforms.destinations.contract.pruned import PRUNED, Pruned, pruned_of, with_pruned
from transforms.destinations.contract.run_ledger import (
    PREPARED,
    PREPARED_AT,
    TOPIC_CLUSTERS,
    RunRecord,
    TableProgress,
    amount_and_currency,
    carried_on,
    last_committed,
    other_clusters,
)
from transforms.destinations.contract.run_tail import LANDMARKS, with_landmarks
from transforms.model.tables import GAPS, TOTALS, TOTALS_SCHEMA
from transforms.model.totals import CHECKSUM_MASK

_OF_ONE_RECORD = (OWNERSHIP, PRUNED, LANDMARKS, PREPARED_AT, TOPIC_CLUSTERS)


def prune_record(
    destination: Destination,
    runs: Sequence[RunRecord],
    pruned: Pruned,
    rows: Mapping[str, pa.RecordBatch],
    now_us: int,
) -> RunRecord:
    """The record that follows the chain, PREPARED, with its streams; it is not claimed yet.

    rows: see rows_instead. now_us: microseconds since 1970.
    """
    before = last_committed(runs)
    # What binds later runs stays as it is; a run that had nothing to show may have had others.
    in_force = settings_in_force(runs) or before.settings
    settings = {name: value for name, value in in_force.items() if name not in _OF_ONE_RECORD}
    settings |= {name: before.settings[name] for name in ("topics",) if name in before.settings}
    settings |= other_clusters(before, before.cluster_id)
    record = RunRecord(
        run_id=new_run_id(),
        predecessor=runs[-1].run_id,
        status=PREPARED,
        plan_time=now_us,
        cluster_id=before.cluster_id,
        partitions=[carried_on(part) for part in before.partitions],
        tables=[
            _progress(destination, table, rows[table]) for table in rows if rows[table].num_rows
        ],
        lowest_watermark=None,
        live_ids=before.live_ids,
        state_bytes=before.state_bytes,
        settings=with_pruned({**settings, PREPARED_AT: now_us}, pruned),
    )
    return with_landmarks(record, runs)


def claim(destination: Destination, record: RunRecord) -> None:
    """From here on the prune is done to its end. Raises TryAgainLater where a run was faster."""
    if not destination.runs.claim(record):
        refuse_owned(destination.runs.tail())
        raise lost_race(record.predecessor)


def again(
    destination: Destination, expired: RunRecord, runs: Sequence[RunRecord], now_us: int
) -> RunRecord:
    """The record that takes the place of a prune whose streams have expired before all of them were
    committed: what is not visible is written again. It is claimed.

    runs: the chain, which ends with that prune. now_us: microseconds since 1970.
    """
    pruned = pruned_of(expired)
    assert pruned is not None
    lacking = not_visible(destination, expired)
    pruning, cut = destination.pruning, pruned.cut()
    columns = amount_and_currency(expired.settings)
    rows = rows_instead(
        pruned,
        pruning.kept_in(cut.ranges),
        pruning.gaps_in(cut.ranges),
        pruning.totals_to_take_off(cut, *columns),
    )
    record = msgspec.structs.replace(
        expired,
        run_id=new_run_id(),
        predecessor=expired.run_id,
        plan_time=now_us,
        repairs=expired.run_id,
        tables=[
            _progress(destination, table.table, rows[table.table])
            if table.table in lacking
            else msgspec.structs.replace(table, commit_groups=[])
            for table in expired.tables
        ],
        settings={**expired.settings, PREPARED_AT: now_us},
    )
    record = with_landmarks(record, runs)
    claim(destination, record)
    return record


def _progress(destination: Destination, table: str, rows: pa.RecordBatch) -> TableProgress:
    """Of rows that are in a stream of their own now, finalized."""
    stream = written_stream(destination, table, rows)
    return TableProgress(table=table, rows=rows.num_rows, commit_groups=commit_groups([stream]))


def rows_instead(
    pruned: Pruned, kept: pa.Table, gaps: pa.Table, totals: pa.RecordBatch
) -> dict[str, pa.RecordBatch]:
    """What a prune writes, by table, in the order of the commits.

    kept, gaps, totals: answers of Pruning.kept_in, gaps_in and totals_to_take_off for its cut, made
    while the rows that go are there.
    """
    return {GAPS: gaps_instead(kept, gaps, pruned.partitions), TOTALS: _taken_off(totals)}


def _taken_off(added: pa.RecordBatch) -> pa.RecordBatch:
    """Rows of `control_totals` that take off what the removed rows have added."""
    checksums = [
        (CHECKSUM_MASK + 1 - number) & CHECKSUM_MASK
        for number in added.column("checksum").to_pylist()
    ]
    taken_off = {
        "records": pc.negate(added.column("records")),
        "amount": pc.negate(added.column("amount")).cast(TOTALS_SCHEMA.field("amount").type),
        "checksum": pa.array(checksums, pa.int64()),
    }
    return pa.RecordBatch.from_arrays(
        [taken_off.get(name, added.column(name)) for name in TOTALS_SCHEMA.names],
        schema=TOTALS_SCHEMA,
    )
