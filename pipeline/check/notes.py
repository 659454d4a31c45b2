"""What is no failure, but a person must not miss it: topics, losses and repairs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import takewhile
from typing import Any

from pipeline.check.result import NOTED, PROOF_ROWS, CheckResult
from pipeline.counted import counted
from pipeline.run.generations import ACCEPT, Adoption, adoptions
from transforms.destinations.contract.ownership import owner_of
from transforms.destinations.contract.pruned import PRUNED
from transforms.destinations.contract.run_ledger import COMMITTED, RunRecord
from transforms.destinations.contract.snapshot import Snapshot
from transforms.model.topic_generations import kafka_topic


def topics_not_named(runs: Sequence[RunRecord]) -> Iterator[CheckResult]:
    """Topics that the ledger knows and the newest run did not name.

    runs: the chain, not empty. Nothing where the run is of a version that did not record them.
    """
    named: Any = runs[-1].settings.get("topics")
    if named is None:
        return
    forgotten = sorted({kafka_topic(part.topic) for part in runs[-1].partitions} - set(named))
    if forgotten:
        yield CheckResult(
            "topics that the last run did not name",
            NOTED,
            f"{', '.join(forgotten)}: nothing of them is read. Name them with --topic, unless they"
            " are retired",
        )


def adopted_topics(runs: Sequence[RunRecord]) -> Iterator[CheckResult]:
    """Topics that went on as others of the same name, and what was not read of the old ones.

    runs: the chain in its order.
    """
    if adopted := adoptions(runs):
        yield CheckResult(
            "adopted topics",
            NOTED,
            f"{', '.join(sorted({one.topic for one in adopted}))}: another topic took its place"
            " (--adopt_topic), and what was not read of the old one is lost"
            f" ({ACCEPT}); how much that is cannot be known{_not_yet_moved(adopted, runs)}",
            [one.figures() for one in adopted[-PROOF_ROWS:]],
        )


def _not_yet_moved(adopted: Sequence[Adoption], runs: Sequence[RunRecord]) -> str:
    """Whether a job has adopted a topic since the tables were handed to streaming jobs."""
    jobs = takewhile(lambda run: owner_of([run]) is not None, reversed(runs))
    if {run.run_id for run in jobs}.isdisjoint(one.run_id for one in adopted):
        return ""
    return (
        ". The position of a topic that a job has adopted is where the job before began to read it,"
        " until `stop` writes down how far the tables are"
    )


def accepted_losses(snapshot: Snapshot) -> Iterator[CheckResult]:
    """Offsets that were deleted before they were read, and accepted as lost, by partition."""
    lost = snapshot.query(snapshot.checks.accepted_losses).to_pylist()
    if lost:
        offsets = sum(row["offsets"] for row in lost)
        yield CheckResult(
            "offsets accepted as lost",
            NOTED,
            f"{counted(offsets, 'offset')} in {counted(len(lost), 'partition')}, deleted before"
            " they were read (--on_data_loss=accept)",
            lost[:PROOF_ROWS],
        )


def repaired_runs(runs: Sequence[RunRecord]) -> Iterator[CheckResult]:
    """Runs that died while they became visible, and of which a part had to be read again.

    runs: the chain in its order.
    """
    repairs = [
        run
        for run in runs
        if run.repairs is not None and run.status == COMMITTED and PRUNED not in run.settings
    ]
    if repairs:
        records = sum(part.records for run in repairs for part in run.partitions)
        yield CheckResult(
            "repaired runs",
            NOTED,
            f"{counted(len(repairs), 'run')} with {counted(records, 'record')}: the write streams"
            " of a dead run had expired, and what was not visible of it was read again",
            [{"run_id": run.run_id, "repairs": run.repairs} for run in repairs[-PROOF_ROWS:]],
        )
