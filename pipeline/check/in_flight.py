"""The newest run, where it is PREPARED: alive, or dead between its tables?"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from typing import Final

from pipeline.check.result import FAILED, NOTED, CheckResult
from pipeline.run.commit import COMMIT_WITHIN_SECONDS
from transforms.destinations.contract.run_ledger import PREPARED, PREPARED_AT, RunRecord

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=timezone.utc)
_MICROSECONDS: Final = 1_000_000


def check_run_in_flight(last: RunRecord, now_us: int | None) -> Iterator[CheckResult]:
    """Nothing where the newest run is not PREPARED.

    now_us: microseconds since 1970; None: the run may be as old as it likes. A process that has
    claimed a run goes on with it for COMMIT_WITHIN_SECONDS at most, so an older one is dead. The
    time counts from the claim; a record that does not have it tells the plan's time, which lies
    before.
    """
    if last.status != PREPARED:
        return
    since = int(str(last.settings.get(PREPARED_AT, last.plan_time)))
    if now_us is None or now_us - since <= COMMIT_WITHIN_SECONDS * _MICROSECONDS:
        yield CheckResult(
            "run in flight",
            NOTED,
            f"{last.run_id} is PREPARED: not judged; the next run makes it visible as a whole",
        )
        return
    begun = (_EPOCH + timedelta(microseconds=since)).strftime("%Y-%m-%d %H:%M:%S")
    yield CheckResult(
        "run in flight",
        FAILED,
        f"{last.run_id} is PREPARED since {begun} UTC, longer than a process goes on with a run"
        f" ({COMMIT_WITHIN_SECONDS:.0f} s): it died, and some of its tables may lack its rows."
        " Start"
        " `run` again: it rolls it forward, or repairs it where its write streams have expired",
    )
