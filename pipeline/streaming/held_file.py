"""`status` of a DuckDB file that a job's worker has open: what Flink alone knows of the job."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from pipeline.streaming.flink_job import FlinkJob, job_id_in
from pipeline.streaming.job_report import JobReport, report_of
from runners.flink.rest import FlinkRest

DUCKDB: Final = "duckdb:"


@dataclass(frozen=True)
class HeldFile:
    """job_id: ours. pid: of its worker, None where it is not known. destination: as the job was
    given it.
    """

    job_id: str
    pid: int | None
    destination: str
    job: JobReport

    def as_json(self) -> dict[str, Any]:
        """owner, stop marks and positions are in the file, and left out."""
        return {"file_in_use": True, "job_id": self.job_id, "job": self.job.as_json()}

    def lines(self) -> list[str]:
        """The same for a person."""
        return [
            f"the streaming job {self.job_id} writes to {self.destination}. Its command"
            f"{'' if self.pid is None else f' (process {self.pid})'} is its worker and has the file"
            " open: Ctrl-C there takes a savepoint and ends it. Owner, positions and stop marks are"
            " in the file, and shown once the job has ended",
            *self.job.lines(),
        ]


def job_that_holds(
    rest: FlinkRest, path: str, pid: int | None, now_us: Callable[[], int]
) -> HeldFile | None:
    """The job that Flink runs for a DuckDB file; None: it runs none.

    pid: of the process that has the file open. now_us: the clock, microseconds since 1970. Flink
    shows the options of a job; a relative path in them is taken from the folder of this process.
    Raises FlinkUnreachable.
    """
    for found in rest.running_jobs():
        job_id = job_id_in(found["name"])
        if job_id is None:
            continue
        destination = rest.options_of(found["jid"]).get("destination", "")
        named = destination.startswith(DUCKDB) and destination.removeprefix(DUCKDB)
        if named and os.path.realpath(named) == os.path.realpath(path):
            report = report_of(FlinkJob(rest, found["jid"]), now_us())
            return HeldFile(job_id, pid, destination, report)
    return None
