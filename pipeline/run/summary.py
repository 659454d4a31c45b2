"""What a person reads at the end of `run`, and the same as JSON."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final, TextIO

from pipeline.counted import counted
from pipeline.run.notes import FINISHED, PLANNED_AGAIN, REPAIRED, Notes
from pipeline.run.rejected_rate import DETAILS
from transforms.destinations.contract.run_ledger import RunRecord
from transforms.model.coordinates import TopicPartition
from transforms.model.rejected_counts import as_figures, merge_rejected
from transforms.model.tables import DUPLICATES, PAYMENTS, REJECTED

NAME_OF_ROWS: Final = {PAYMENTS: "accepted", DUPLICATES: "duplicates", REJECTED: "rejected"}
"""Table -> what its rows are called in figures."""


def summarize(
    records: Sequence[RunRecord],
    rejected: Sequence[Mapping[str, Any]],
    seconds: float,
    bytes_read: int | None = None,
    notes: Notes | None = None,
) -> dict[str, Any]:
    """The figures of all transactions of one `run`.

    records: in the order they were committed. rejected: rows of the question `reasons`. seconds:
    how long the run took. bytes_read: by queries, None for a destination that does not bill them.
    notes: what the run has to say beside.
    """
    notes = notes or Notes()
    rows = rows_of(records, notes)
    ranges: dict[TopicPartition, list[int]] = {}
    gaps: Counter[TopicPartition] = Counter()
    for record in records:
        for part in record.partitions:
            gaps[part.topic, part.partition] += part.gap_offsets
            if part.to_offset > part.from_offset:
                ranges.setdefault((part.topic, part.partition), [part.from_offset, part.to_offset])[
                    1
                ] = part.to_offset
    total = sum(rows.values())
    by_reason = sorted(rejected, key=lambda row: str(row["reason"]))
    return {
        "transactions": len(records),
        "partitions": [
            {
                "topic": topic,
                "partition": partition,
                "from": first,
                "to": end,
                "gap_offsets": gaps[topic, partition],
            }
            for (topic, partition), (first, end) in sorted(ranges.items())
        ],
        **{NAME_OF_ROWS[table]: count for table, count in rows.items()},
        "gap_offsets": gaps.total(),
        "rejected_by_reason": {row["reason"]: row["n"] for row in by_reason},
        "rejected_details": [
            {"topic": count.topic, **as_figures(count)}
            for count in merge_rejected(notes.rejected)[:DETAILS]
        ],
        **note_figures(notes),
        "live_ids": records[-1].live_ids if records else None,
        "state_bytes": records[-1].state_bytes if records else None,
        "seconds": round(seconds, 2),
        "messages_per_second": round(total / seconds) if seconds > 0 else None,
        **({} if bytes_read is None else {"bytes_read_by_queries": bytes_read}),
    }


def rows_of(records: Iterable[RunRecord], notes: Notes) -> dict[str, int]:
    """Table of NAME_OF_ROWS -> rows that the records' runs have written themselves.

    notes: of the command that has committed them.
    """
    rows = {table: -notes.passed_over[table] for table in NAME_OF_ROWS}
    for record in records:
        for part in record.tables:
            if part.table in rows:
                rows[part.table] += part.rows
    return rows


def describe_rows(figures: Mapping[str, Any]) -> str:
    """The figures named in NAME_OF_ROWS for a person, on one line."""
    return "   ".join(f"{name} {figures[name]:,}" for name in NAME_OF_ROWS.values())


def note_figures(notes: Notes) -> dict[str, Any]:
    """What the run has to say beside its transactions, as figures of `summarize`."""
    return {
        "recovered": [asdict(recovered) for recovered in notes.recovered],
        "losses": [asdict(loss) for loss in notes.losses],
        "offsets_lost": sum(loss.last - loss.first + 1 for loss in notes.losses),
        "adopted_topics": [adoption.figures() for adoption in notes.adopted],
        "topics_not_named": [asdict(topic) for topic in notes.forgotten],
        "start_ignored": notes.start_ignored,
        "start_flag": notes.start_flag,
        "passed_over": dict(notes.passed_over),
    }


def print_notes(figures: Mapping[str, Any], file: TextIO | None = None) -> None:
    """Prints the figures of `note_figures` as text, a line each. file: None for standard output."""
    if figures["start_ignored"] is not None:
        print(describe_start_ignored(figures["start_ignored"], figures["start_flag"]), file=file)
    for run in figures["recovered"]:
        rows = ", ".join(f"{count:,} {table}" for table, count in run["rows"].items())
        print(f"{run['run_id']}, an earlier run: {_HOW[run['how']]}{rows}", file=file)
    if passed := figures["passed_over"]:
        rows = ", ".join(f"{count:,} {table}" for table, count in passed.items())
        print(f"passed over, since a streaming job had written them: {rows}", file=file)
    for loss in figures["losses"]:
        print(
            f"accepted loss: topic {loss['topic']} partition {loss['partition']} offsets"
            f" {loss['first']:,} to {loss['last']:,}, deleted before they were read",
            file=file,
        )
    if figures["losses"]:
        print(f"accepted losses: {counted(figures['offsets_lost'], 'offset')} in all", file=file)
    for adoption in figures["adopted_topics"]:
        print(f"adopted topic: {describe_adoption(adoption)}", file=file)
    for topic in figures["topics_not_named"]:
        print(
            f"not named by --topic, but known to this destination: {describe_forgotten(topic)}",
            file=file,
        )


def describe_adoption(adoption: Mapping[str, Any]) -> str:
    """One entry of `adopted_topics` for a person."""
    read = ", ".join(
        f"{part['position']:,} of partition {part['partition']}" for part in adoption["positions"]
    )
    return (
        f"{adoption['topic']} (id {adoption['old_topic_id']}, cluster {adoption['old_cluster_id']})"
        f" was read up to offset {read}; what came behind, if anything, is lost. It goes on as"
        f" {adoption['generation']} (id {adoption['topic_id']}, cluster {adoption['cluster_id']})"
    )


def describe_forgotten(topic: Mapping[str, Any]) -> str:
    """One entry of `topics_not_named` for a person."""
    if topic["problem"]:
        return f"{topic['topic']}; {topic['problem']}"
    lost = f", {topic['lost']:,} deleted before they were read" if topic["lost"] else ""
    waiting = counted(topic["waiting"], "offset waits", "offsets wait")
    return f"{topic['topic']}, {waiting}{lost}"


def describe_start_ignored(start: str, flag: str) -> str:
    """Why --start, or --start_offsets, has no effect, for a person. start: its value."""
    return (
        f"--{flag}={start} is for the first run only: it has no effect, for this destination's"
        " ledger has positions, and they count"
    )


def print_summary(figures: Mapping[str, Any], as_json: bool) -> None:
    """Prints the figures of `summarize` as text, or as one line of JSON."""
    if as_json:
        print(json.dumps({"exit_status": 0, "error": None, **figures}))
        return
    print_notes(figures)
    if not figures["transactions"]:
        print("Nothing new between the positions of this destination and the end of the topics.")
        return
    print(f"{'topic':<24} {'partition':>9} {'from':>12} {'to':>12}")
    for part in figures["partitions"]:
        print(f"{part['topic']:<24} {part['partition']:>9} {part['from']:>12,} {part['to']:>12,}")
    reasons = ", ".join(
        f"{reason} {count:,}" for reason, count in figures["rejected_by_reason"].items()
    )
    print(describe_rows(figures) + (f" ({reasons})" if reasons else ""))
    for cause in figures["rejected_details"]:
        print(
            f"  {cause['records']:,} {cause['reason']}: {cause['detail']} (for example"
            f" {cause['example']})"
        )
    ids, size = counted(figures["live_ids"], "live id"), counted(figures["state_bytes"], "byte")
    print(f"state {ids}, {size}")
    transactions = counted(figures["transactions"], "transaction")
    rate = figures["messages_per_second"] or 0
    if "bytes_read_by_queries" in figures:
        print(
            f"BigQuery: queries read {counted(figures['bytes_read_by_queries'], 'byte')},"
            f" {figures['bytes_billed']:,} are billed"
        )
    print(f"{figures['seconds']} s in {transactions}, {rate:,} messages/s")


_HOW = {
    FINISHED: "had died while it became visible, and is finished now: ",
    PLANNED_AGAIN: "nothing of it was visible, its records are read again",
    REPAIRED: "was visible in part, and is repaired now: ",
}
