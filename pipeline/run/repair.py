"""A PREPARED run whose streams have expired before all of its tables were committed.

If nothing of it is visible, it is planned again. If something is, a repair reads the recorded
ranges again, passes over what is visible, and judges the rest. The ids of visible payments are
loaded like those of every earlier run, so a copy among the rest is a duplicate.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np

from pipeline.kafka_admin import TopicState
from pipeline.run.plan import Plan, PlannedPartition, Repair
from pipeline.run.preconditions import check_position, check_same_topic
from transforms.destinations.contract.ownership import Ownership
from transforms.destinations.contract.run_ledger import (
    ABORTED,
    COMMITTED,
    PREPARED,
    PartitionProgress,
    RunRecord,
    other_clusters,
)
from transforms.destinations.contract.seed import seed_of
from transforms.destinations.contract.visible_rows import VisibleRows
from transforms.model.coordinates import OffsetRange, TopicPartition
from transforms.model.errors import GuaranteeError
from transforms.model.tables import GAPS, ROW_TABLES
from transforms.model.totals import as_unobserved

_NEEDED: Final = (
    "They are needed to complete a run of which a part is visible and whose write streams have"
    " expired. Use a new topic name, and a new destination."
)
"""What a person can do: another topic of that name, even if it were adopted, does not have them."""


def status_without_streams(
    rows: VisibleRows,
    record: RunRecord,
    stop: Ownership | None = None,
    not_in_totals: int = 0,
) -> str:
    """The status of a PREPARED run with a stream that no longer exists.

    COMMITTED if all its rows are visible, ABORTED if none is, PREPARED if it needs a repair. A
    stream may have expired before or after its commit, so the tables are asked. Totals have no
    coordinates: they count the rows of all runs, so they are short by this run's rows exactly if
    its totals are missing. stop: of the streaming job before it: what that has written of the run's
    ranges counts as visible, and its totals may be there. not_in_totals: rows that the totals
    lacked before the run. Raises GuaranteeError where the totals miss any other number of rows.
    """
    present = rows.present_offsets(_ranges(record)).values()
    found = {table: sum(len(tables[table]) for tables in present) for table in ROW_TABLES}
    found[GAPS] = sum(map(len, rows.present_gaps(_ranges(record)).values()))
    if not any(found.values()):
        return ABORTED
    wanted = {table.table: table.rows for table in record.tables}
    if any(wanted.get(table, 0) != count for table, count in found.items()):
        return PREPARED
    missing = rows.count_rows() - rows.count_in_totals() - not_in_totals
    visible = sum(found[table] for table in ROW_TABLES)
    if missing not in (0, visible) and not (holds_streamed(record, stop) and 0 < missing < visible):
        raise GuaranteeError(
            f"run {record.run_id}: its streams have expired, and control_totals miss {missing}"
            " rows, which is neither none nor those of this run: the tables were altered by hand."
            " Run `check`, and restore the destination from a backup."
        )
    return PREPARED if missing else COMMITTED


def visible_of(
    rows: VisibleRows,
    expired: RunRecord,
    columns: tuple[str | None, str | None],
    accept_data_loss: bool,
    stop: Ownership | None = None,
) -> Repair:
    """What is visible of the expired run. columns: of amount and currency, None where there is
    none. stop: of the streaming job before it.

    Which of the visible rows the job has written, and counted in totals, is not known any more, so
    their windows are marked as unobserved.
    """
    ranges = _ranges(expired)
    totals = rows.present_totals(ranges, *columns)
    return Repair(
        expired=expired,
        offsets=rows.present_offsets(ranges),
        gaps=rows.present_gaps(ranges),
        totals=as_unobserved(totals) if holds_streamed(expired, stop) else totals,
        accept_data_loss=accept_data_loss,
    )


def holds_streamed(record: RunRecord, stop: Ownership | None) -> bool:
    """Whether the run passes over what the streaming job before it has written."""
    ends = stop.ends_above() if stop else {}
    return any(first < ends.get((topic, at), 0) for topic, at, first, _ in _ranges(record))


def topics_to_read(repair: Repair) -> list[str]:
    """Topics of which an offset is neither a visible row nor a visible gap.

    Of the others, Kafka need not have anything any more.
    """
    return sorted({where[0] for where in _ranges(repair.expired) if not _is_whole(repair, where)})


def plan_repair(run_id: str, repair: Repair, states: Sequence[TopicState]) -> Plan:
    """The plan of a repair: ranges, watermarks and time of the expired run.

    states: of `topics_to_read`. Raises GuaranteeError for offsets that are neither visible nor in
    Kafka any more.
    """
    expired = repair.expired
    for state in states:
        check_same_topic(state, expired.partitions, _NEEDED)
    there = {(state.topic, partition): state for state in states for partition in state.partitions}
    partitions = tuple(_planned(part, there, repair) for part in expired.partitions)
    return Plan(
        run_id,
        expired.run_id,
        expired.plan_time,
        expired.cluster_id,
        partitions,
        (),
        other_clusters(expired, expired.cluster_id),
        repair=repair,
        seed=seed_of(expired),
    )


def _planned(
    part: PartitionProgress, there: Mapping[TopicPartition, TopicState], repair: Repair
) -> PlannedPartition:
    position = (part.topic, part.partition)
    read_from = part.to_offset
    if not _is_whole(repair, (*position, part.from_offset, part.to_offset)):
        if position not in there:
            raise GuaranteeError(
                f"topic {part.topic} partition {part.partition} does not exist any more, but"
                f" offsets {part.from_offset} to {part.to_offset - 1} of it must be read again to"
                " complete a run whose streams have expired. What is not visible of them is lost."
            )
        state, accept = there[position], repair.accept_data_loss
        low, high = state.partitions[part.partition]
        check_position(state, part.partition, part.to_offset, (0, high), accept, _NEEDED)
        deleted = np.setdiff1d(
            np.arange(part.from_offset, min(low, part.to_offset)), repair.known(position)
        )
        if len(deleted):
            first = int(deleted[0])
            check_position(state, part.partition, first, (low, high), accept, _NEEDED)
        read_from = min(max(part.from_offset, low), part.to_offset)
    return PlannedPartition(
        topic=part.topic,
        partition=part.partition,
        topic_id=part.topic_id,
        from_offset=part.from_offset,
        read_from=read_from,
        to_offset=part.to_offset,
        start_watermark_us=part.start_watermark,
        load_watermark_us=part.start_watermark,
        position_since_us=part.position_since,
    )


def _is_whole(repair: Repair, where: OffsetRange) -> bool:
    return len(repair.known(where[:2])) == where[3] - where[2]


def _ranges(record: RunRecord) -> list[OffsetRange]:
    return [
        (part.topic, part.partition, part.from_offset, part.to_offset)
        for part in record.partitions
        if part.to_offset > part.from_offset
    ]
